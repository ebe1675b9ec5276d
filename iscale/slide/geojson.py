"""Features of GeoJSON one after the other: a million cells are a gigabyte of text."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from iscale.errors import InputError
from iscale.slide.user_mask import POLYGONS

TEXT_AT_ONCE = 1 << 20
LONGEST = 256 << 20
"""A single value of more characters is no feature."""

LISTS = ("features", "geometries")


def features(path: Path, remedy: str = POLYGONS) -> Iterator[Any]:
    """Features of a GeoJSON file one after the other; the one value that it holds where it is no collection."""
    try:
        zipped = path.name.lower().endswith(".gz")
        with cast(
            TextIO, gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig")
        ) as file:
            yield from _Stream(file).values()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path} is damaged: it is no whole gzip file.", "Copy or export it again.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not JSON: it is no text in UTF-8.", remedy) from None
    except RecursionError:
        raise InputError(f"{path} is not GeoJSON: its values are nested too deeply.", remedy) from None
    except _NotJson as error:
        raise InputError(f"{path} is not JSON: {error}.", remedy) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the file.") from None


class _NotJson(ValueError):
    """What is wrong in a text that should be JSON, and where."""


class _Stream:
    """Values of a JSON text that is read as far as the next value ends."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = self._before = 0

    def values(self) -> Iterator[Any]:
        """Members of the list that the text is, or of its list of features; else its one value."""
        if self._peek() == "[":
            yield from self._members()
        elif self._peek() == "{":
            rest: dict[str, Any] = {}
            streamed = False
            for key in self._keys():
                if key in LISTS and self._peek() == "[":
                    streamed = True
                    yield from self._members()
                else:
                    rest[key] = self._value()
            if not streamed:
                yield rest
        else:
            self._value()  # a number, or what is no JSON
        if self._peek():
            raise _NotJson(f"there is more after its end, at character {self._before + self._at}")

    def _keys(self) -> Iterator[str]:
        """Keys of an object; each one's value must be taken before the next is asked for."""
        for _ in self._separated("}"):
            key = self._value()
            self._take(":")
            yield str(key)

    def _members(self) -> Iterator[Any]:
        for _ in self._separated("]"):
            yield self._value()

    def _separated(self, end: str) -> Iterator[None]:
        self._at += 1
        if self._peek() == end:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == end:
                self._at += 1
                return
            self._take(",")

    def _take(self, mark: str) -> None:
        if self._peek() != mark:
            found = self._peek() or "the end of the file"
            raise _NotJson(f"{found!r} instead of {mark!r} at character {self._before + self._at}")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            text = self._text
            while self._at < len(text) and text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(text):
                return text[self._at]
            if not self._more(TEXT_AT_ONCE):
                return ""

    def _value(self) -> Any:
        self._peek()
        ask = TEXT_AT_ONCE
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > LONGEST or not self._more(ask):
                    raise _NotJson(f"what begins at character {self._before + self._at} is no value") from None
                ask *= 2  # what is long is tried few times
                continue
            if end == len(self._text) and self._more(TEXT_AT_ONCE):
                continue  # a number may go on
            self._at = end
            return value

    def _more(self, n: int) -> bool:
        """Read on, letting go of what was used; whether there was more."""
        text = self._file.read(n)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(text)

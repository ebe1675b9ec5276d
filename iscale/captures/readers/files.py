"""Files of a vendor's folder: finding them, and reading text of any size in bounded memory.

A folder from an instrument or a download is not trusted: a link that leads out of it is refused, and a small gzip file
that unfolds to gigabytes ends in one error.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from iscale.errors import InputError

LONGEST_LINE = 64 << 20
BLOCK = 1 << 20
JSON_LIMIT = 16 << 20
# Deflate reaches 1,032 to 1 at most; tables of counts that are nearly all 0 come to some 200 to 1.
BOMB_RATIO = 500
BOMB_BYTES = 256 << 20
NAMES_SHOWN = 12


def find_file(folder: Path, *names: str, what: str) -> Path:
    """The one file of a vendor's folder (may be a link) that has one of these names; links are not resolved.

    Names are exact or glob patterns below the folder, as ``spatial/tissue_positions.csv`` or ``*_matrix.h5``, the
    preferred first: the first that a file has is taken. Hidden files (``._matrix.h5``, as macOS leaves) do not count.
    ``what`` says what the file is, for messages: ``the spot positions``.

    Raises
    ------
    InputError
        Where there is no such file, several match one pattern, or it is empty or lies outside of the folder.
    """
    found = find_optional(folder, *names, what=what)
    if found is None:
        raise InputError(
            f"{folder} does not hold {what}: looked for {' or '.join(names)}; the folder {describe_folder(folder)}.",
            "Give the folder as the instrument wrote it, with this file in it.",
        )
    return found


def find_optional(folder: Path, *names: str, what: str) -> Path | None:
    """As :func:`find_file`; None where there is no such file."""
    check_folder(folder)
    for name in names:
        matches = sorted(path for path in folder.glob(name) if path.is_file() and not path.name.startswith("."))
        if len(matches) > 1:
            shown = ", ".join(str(path.relative_to(folder)) for path in matches[:NAMES_SHOWN])
            raise InputError(
                f"{folder} holds {len(matches)} files that may be {what}: {shown}.",
                "Keep one of them in the folder, or give a folder that holds one sample.",
            )
        if matches:
            check_inside(folder, matches[0], what=what)
            if matches[0].stat().st_size == 0:
                raise InputError(f"{matches[0]} ({what}) is empty: 0 bytes.", "Copy or download it again.")
            return matches[0]
    return None


def check_folder(folder: Path) -> None:
    """Refuse what is no folder."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is {'not a folder' if folder.exists() else 'not there'}.", "Give the folder of the capture."
        )


def check_inside(folder: Path, path: Path, *, what: str) -> None:
    """Refuse a file or folder below ``folder`` that is, or lies behind, a link to somewhere else."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{path} ({what}) is a link that leads out of the folder, to {path.resolve()}.",
            "Put what it points to into the folder: links are followed only inside of it.",
        )


def describe_folder(folder: Path) -> str:
    """What a folder holds, for messages: ``holds a.h5, spatial/``."""
    there = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(there) - NAMES_SHOWN} more" if len(there) > NAMES_SHOWN else ""
    return f"holds {', '.join(there[:NAMES_SHOWN])}{more}" if there else "is empty"


def lines(path: Path, longest: int = LONGEST_LINE) -> Iterator[str]:
    """Lines of a UTF-8 text file that are not blank, without their ends; through gzip where its name ends in ``.gz``.

    Never holds more than one line of ``longest`` bytes and one block. An InputError where a line is longer, the text is
    not UTF-8, or a gzip file is truncated, none, or unfolds beyond measure.
    """
    return (_decoded(path, raw) for raw in byte_lines(path, longest))


def byte_lines(path: Path, longest: int | None = LONGEST_LINE) -> Iterator[bytes]:
    """As :func:`lines`, not decoded; of a file that is trusted, where ``longest`` is None, of any length."""
    first = True
    for block in blocks(path, longest):
        for raw in (block.removeprefix(b"\xef\xbb\xbf") if first else block).split(b"\n"):
            if longest is not None and len(raw) > longest:
                _refuse_line(path, longest)
            if stripped := raw.rstrip(b"\r"):
                yield stripped
        first = False


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not a text file: a line has the byte {raw[error.start]:#04x}, which is not UTF-8.",
            "Give the file as it was written, or write it again as UTF-8 text.",
        ) from None


def blocks(path: Path, longest: int | None = LONGEST_LINE) -> Iterator[bytes]:
    """Bytes of a text file in blocks of whole lines; through gzip where its name ends in ``.gz``.

    Raises
    ------
    InputError
        Where a line outgrows a block and ``longest`` bytes, or a gzip file is truncated, none, or unfolds too far.
    """
    held: list[bytes] = []
    size = 0
    for chunk in _chunks(path, is_trusted=longest is None):
        whole, end, rest = chunk.rpartition(b"\n")
        if longest is not None and size + (chunk.find(b"\n") if end else len(chunk)) > longest:
            _refuse_line(path, longest)
        if end:
            yield b"".join([*held, whole, end])
            held, size = [], 0
        held.append(rest)
        size += len(rest)
    if size:
        yield b"".join(held)


def _refuse_line(path: Path, longest: int) -> NoReturn:
    raise InputError(
        f"{path} has a line of more than {longest:,} bytes: it is no table of text.",
        "Copy or download it again; if it is compressed, look at what it unpacks to.",
    )


def _chunks(path: Path, is_trusted: bool) -> Iterator[bytes]:
    """Bytes of a file as they come, at most ``BLOCK`` at once."""
    zipped = path.name.lower().endswith(".gz")
    total = 0
    try:
        limit = math.inf if is_trusted or not zipped else max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)
        with cast(BinaryIO, gzip.open(path, "rb") if zipped else path.open("rb")) as file:
            while chunk := file.read(BLOCK):
                total += len(chunk)
                if total > limit:
                    raise InputError(
                        f"{path} unpacks to more than {total:,} bytes, over {BOMB_RATIO} times its size.",
                        "Copy or download it again, and look at what it unpacks to.",
                    )
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} is truncated or no gzip file: {total:,} bytes could be read ({error}).",
            "Copy or download it again.",
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the file.") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object, of at most 16 MiB."""
    remedy = "Give the file as the instrument wrote it."
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT:
            raise InputError(f"{path} has {size:,} bytes; {JSON_LIMIT:,} are the most for a JSON file.", remedy)
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", "Check the file.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON: line {error.lineno}, column {error.colno}.", remedy) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not valid JSON: it is no text in UTF-8.", remedy) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not valid JSON: it has a value that cannot be read.", remedy) from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, not an object with names.", remedy)
    return value

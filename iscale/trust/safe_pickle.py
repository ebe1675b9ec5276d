"""Arrays of a pickle that others wrote, which is read and never run; and the published maps in one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.trust.truth import gene_first
from iscale.words import by

INSTEAD = "Write the maps as .npz instead: np.savez(path, genes=names, expected=array), array (gene, y, x)."

KINDS = "biufSU"
"""Kinds of dtypes that are taken: numbers and text; besides, objects that are numbers or text."""


class _Refused(Exception):
    """Something that is no array of numbers or text."""


class _Type:
    """A dtype as the pickle tells it: its code, and the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def dtype(self) -> np.dtype[Any]:
        code = self.code.decode() if isinstance(self.code, bytes) else str(self.code)
        dtype = np.dtype(code) if code.lstrip("<>=|")[:1] in (*KINDS, "O", "V") else np.dtype("V")
        if dtype.kind not in KINDS + "O" or dtype.fields is not None:
            raise _Refused(f"an array of {code[:40]}")
        return dtype.newbyteorder(">" if self.order == ">" else "<")


class _Array:
    """An array as the pickle tells it; it is made when its state is known."""

    def __init__(self) -> None:
        self.values: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, fortran, content = state
        self.values = _made(content, kind, shape, "F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.values = _made(content, kind, shape, str(order))
    return array


def _scalar(kind: Any, content: Any = b"") -> Any:
    if not isinstance(content, bytes | str):
        raise _Refused("a number that is not given by its bytes")
    return _made(content, kind, (1,), "C")[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocols 0 to 2 write bytes; other encodings are not theirs."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("_codecs.encode")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocols 0 to 2 write bytes of which there are none."""
    return b""


def _made(content: Any, kind: Any, shape: Any, order: str) -> NDArray[Any]:
    """An array of its bytes, or of a list where it is one of objects."""
    if not isinstance(kind, _Type) or not all(isinstance(n, int) for n in shape):
        raise _Refused("an array without a type and a shape")
    dtype = kind.dtype()
    if dtype.kind == "O":
        if not (isinstance(content, list) and all(isinstance(v, str | int | float) for v in content)):
            raise _Refused("an array of objects that are neither text nor numbers")
        flat = np.array(content, dtype=object)
    else:
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(raw, bytes | bytearray):
            raise _Refused("an array that is not given by its bytes")
        flat = np.frombuffer(raw, dtype)
    return flat.reshape(tuple(shape), order="F" if order == "F" else "C")


class _Named:
    """Something of NumPy's that pickles name; a pickle can call it, and change nothing about it."""

    __slots__ = ("_call", "_name")

    def __init__(self, name: str, call: Callable[..., Any] | None) -> None:
        self._name, self._call = name, call

    def __call__(self, *arguments: Any) -> Any:
        if self._call is None:
            raise _Refused(f"{self._name}, called")
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"{self._name}, changed")


_NUMPY = {"multiarray._reconstruct": _reconstruct, "multiarray.scalar": _scalar, "numeric._frombuffer": _from_buffer}
_ADMITTED = {
    name: _Named(name, call)
    for name, call in {
        "numpy.ndarray": None,  # an argument of _reconstruct
        "numpy.dtype": _Type,
        "_codecs.encode": _encode,
        "__builtin__.bytes": _no_bytes,
        **{f"numpy.{core}.{name}": call for core in ("core", "_core") for name, call in _NUMPY.items()},
    }.items()
}


class _Reader(pickle.Unpickler):
    """Knows arrays, and no other name."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ADMITTED:
            raise _Refused(name)
        return _ADMITTED[name]


def read_pickle(path: Path) -> Any:
    """What a pickle holds: arrays as `numpy.ndarray` where they lie at most one dict, list or tuple deep.

    An `InputError` where it is no pickle, or holds, or would call, anything but arrays, numbers, text, lists, tuples
    and dicts.
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file, encoding="latin1").load()
    except _Refused as error:
        raise InputError(
            f"{path} holds {error}. Only arrays of numbers or text, lists and dicts are read from a pickle: anything "
            "else could run a program.",
            INSTEAD,
        ) from None
    except MemoryError:
        raise InputError(f"{path}: there is not enough memory for what it says it holds.", INSTEAD) from None
    except (
        pickle.UnpicklingError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise InputError(f"{path} cannot be read as a pickle: {type(error).__name__}: {error}.", INSTEAD) from None
    except (ImportError, RecursionError, OSError) as error:
        raise InputError(f"{path} cannot be read as a pickle: {error}.", INSTEAD) from None
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return _plain(content)


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value


def maps_of(path: Path) -> tuple[list[str], list[NDArray[Any]]]:
    """Genes of a pickle, and their (y, x) maps.

    They are a dict of gene and (y, x) array, or a dict, list or tuple of one array (y, x, gene), or (gene, y, x), and
    the genes' names; else an `InputError` says what it holds.
    """
    content = read_pickle(path)
    if isinstance(content, dict) and content:
        maps = list(content.values())
        if all(isinstance(m, np.ndarray) and m.ndim == 2 for m in maps) and len({m.shape for m in maps}) == 1:
            return [str(gene) for gene in content], maps
    parts = list(content.values()) if isinstance(content, dict) else content if isinstance(content, list) else []
    arrays = [part for part in parts if isinstance(part, np.ndarray) and part.ndim == 3]
    names = [found for part in parts if (found := _names_in(part))]
    if len(arrays) == 1 and len(names) == 1:
        return names[0], list(gene_first(arrays[0], len(names[0]), str(path), genes_last=True))
    raise InputError(
        f"{path} holds {describe(content)}: that is neither a dict of genes and (y, x) arrays of one shape, nor one "
        "array (y, x, gene) with the names of the genes.",
        INSTEAD,
    )


def describe(content: Any) -> str:
    """What something is, for people: its type, and of what it holds the first.

    >>> describe({"cnts": np.zeros((2, 3)), "n": 4})
    'a dict of 2 (cnts: an array 2 x 3 of float64, n: int)'
    """
    if isinstance(content, dict):
        shown = [f"{str(key)[:30]}: {_kind(value)}" for key, value in list(content.items())[:6]]
        return f"a dict of {len(content)} ({', '.join(shown)}{' ...' if len(content) > 6 else ''})"
    if isinstance(content, list):
        shown = [_kind(value) for value in content[:6]]
        return f"a list of {len(content)} ({', '.join(shown)}{' ...' if len(content) > 6 else ''})"
    return _kind(content)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {by(value.shape)} of {value.dtype}"
    size = f" of {len(value)}" if isinstance(value, dict | list | tuple | str) else ""
    return f"{type(value).__name__}{size}"


def _names_in(part: Any) -> list[str]:
    """Names of genes: text, in a list or an array of one axis; else none."""
    flat = part.tolist() if isinstance(part, np.ndarray) and part.ndim == 1 else part
    if isinstance(flat, list | tuple) and flat and all(isinstance(name, str) for name in flat):
        return list(flat)
    return []

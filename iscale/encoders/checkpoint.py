"""Weight files that anybody may have made, read so that tensors come out and no code in them runs.

A ``.pth`` file is a pickle, and a pickle can have any function called that it names. Torch's restricted unpickler
knows only what rebuilds tensors. A training checkpoint holds other things too, the trainer's arguments and NumPy
numbers; their names are admitted here, but what is built in their place is an object that keeps nothing. Any other name
ends the reading before anything is called.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import threading
import uuid
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, cast

from iscale.engine.whole_file import whole_file
from iscale.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_ZIP_MAGIC = b"PK\x03\x04"
_LFS_MAGIC = b"version https://git-lfs"

_OF_A_TRAINER = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",  # NumPy 1
    "numpy._core.multiarray.scalar",  # NumPy 2
)
"""Names in a DINO trainer's checkpoint that torch does not know: the arguments, and learning rates as NumPy scalars."""

TRAINER_PREFIXES = ("module.", "backbone.")
"""What trainers put before the names of a model's weights."""
_HEAD = "head."

# Torch keeps the admitted names per process: two threads that read would take them from each other.
_reading = threading.Lock()


class UnreadObject:
    """Stands where a checkpoint holds an object that is not needed; forgets whatever it is given."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_teacher(path: Path, remedy: str) -> dict[str, object]:
    """The weights in a checkpoint of DINO's trainer: the state-dict under ``teacher``, or one that is the whole file.

    Names come without the trainer's prefixes, values are views of the file of which nobody has checked that they are
    tensors, and DINO's head is left out. Refused is what `read_checkpoint` refuses, what is no state-dict, and one with
    a name twice.
    """
    content = read_checkpoint(path, remedy)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a checkpoint", remedy)
    teacher = content.get("teacher", content)
    if not isinstance(teacher, Mapping):
        raise InputError(f"{path} holds a {type(teacher).__name__} under 'teacher', not named tensors", remedy)
    named: dict[str, object] = {}
    for key, value in cast(Mapping[object, object], teacher).items():
        name = str(key)
        for prefix in TRAINER_PREFIXES:
            name = name.removeprefix(prefix)
        if name in named:
            raise InputError(f"{path} holds two tensors called {name}, with and without a prefix", remedy)
        named[name] = value
    return {name: value for name, value in named.items() if not name.startswith(_HEAD)}


def read_checkpoint(path: Path, remedy: str) -> object:
    """What a ``torch.save`` file holds.

    A file in torch's zip form is mapped into memory, so only what is then used of it is read: its tensors are views of
    the file. One in the form before torch 1.6, and one that was compressed, is read whole. Objects other than
    containers, numbers, strings and tensors are `UnreadObject`.

    Raises
    ------
    InputError
        With ``remedy``, if the file cannot be read, is damaged, is no checkpoint, or names a function or class that
        weights do not need.
    """
    import torch

    mapped = _check_form(path, remedy)
    admitted = [(UnreadObject, name) for name in _OF_A_TRAINER]
    try:
        with _reading, warnings.catch_warnings(), torch.serialization.safe_globals([*admitted]):
            # Torch warns of forms which it then refuses, and the refusal says as much.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        # A damaged or hostile pickle can raise anything: each is a file of no use.
        raise _refusal(path, error, remedy) from error


def _check_form(path: Path, remedy: str) -> bool:
    """Refuse what is plainly no checkpoint, and say whether the file can be mapped: a zip of uncompressed parts."""
    size = file_bytes(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(_ZIP_MAGIC):
            with zipfile.ZipFile(path) as archive:
                return all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
    except OSError as error:
        raise _unreadable(path, error) from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise InputError(
            f"{path} ({size:,} bytes) is cut short or damaged: the directory of its archive cannot be read", remedy
        ) from error
    if not head:
        raise InputError(f"{path} is empty", remedy)
    if head.startswith(_LFS_MAGIC):
        raise InputError(f"{path} ({size:,} bytes) is a Git LFS pointer, not the file that it stands for", remedy)
    if head.lstrip().startswith(b"<"):
        raise InputError(f"{path} ({size:,} bytes) is a web page, not a checkpoint", remedy)
    return False


def _refusal(path: Path, error: Exception, remedy: str) -> InputError:
    named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if named:
        return InputError(
            f"{path} was refused: it refers to {named[1]}, which weights do not need and which could run code. "
            "Nothing of it was run.",
            remedy,
        )
    cause = "it is no pickle of tensors" if isinstance(error, pickle.UnpicklingError) else _first_sentence(error)
    return InputError(f"{path} ({file_bytes(path):,} bytes) is damaged, cut short, or no checkpoint: {cause}", remedy)


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a safetensors file, as views of it, and its metadata; refused if it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except OSError as error:
        raise _unreadable(path, error) from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        size = file_bytes(path)
        raise InputError(
            f"{path} ({size:,} bytes) is cut short or damaged, or no safetensors file: {_first_sentence(error)}", remedy
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, its folder too, so that it is there whole or not at all."""
    from safetensors.torch import save

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not with safetensors' own `save_file`: its files are for their owner alone, and weights are shared.
        with whole_file(path, f".{uuid.uuid4().hex}.part") as beside, beside.open("xb") as file:
            file.write(save(dict(tensors), dict(metadata)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}", "Free space or choose another folder."
        ) from error


def is_plain_tensor(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a dense tensor in memory, whose shape and numbers can be asked for."""
    import torch

    if not isinstance(value, torch.Tensor) or value.is_nested or value.is_quantized:
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


def own(path: Path, name: str, tensor: Tensor, remedy: str) -> Tensor:
    """Float32 copy of a file's tensor, in memory of its own; refused where values are not finite floating point."""
    import torch

    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} is {tensor.dtype}, not floating point", remedy)
    try:
        copy = tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    except RuntimeError as error:
        raise InputError(f"{path}: {name} cannot be read: {_first_sentence(error)}", remedy) from error
    wrong = copy.numel() - int(torch.isfinite(copy).sum())
    if wrong:
        raise InputError(f"{path}: {wrong:,} of {copy.numel():,} values of {name} are NaN or infinite", remedy)
    return copy


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read in blocks."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def file_bytes(path: Path) -> int:
    """Size of a file."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror or error}", "Check the path and its permissions.")


def _first_sentence(error: Exception) -> str:
    """What an exception says, without torch's advice on how to read the file all the same."""
    line = next(iter(str(error).splitlines()), "")
    return line.split(". ")[0].rstrip(".")[:160] or type(error).__name__

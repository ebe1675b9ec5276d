"""Where an export is written: beside its name first, renamed when it is whole; a failure leaves nothing."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iscale.engine.plan import format_bytes
from iscale.errors import InputError, StoreError
from iscale.store.run_store import STORE, RunStore

PART = ".part"
"""What is added to a name until all is there."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_target(target: Path, suffixes: tuple[str, ...], store: RunStore, *, overwrite: bool) -> None:
    """Refuse a target that cannot be, or must not be, written.

    Raises
    ------
    InputError
        It is there and is not to be replaced, is no export, has another format's name, or would harm the run.
    """
    path = target.resolve()
    if suffixes and not target.name.endswith(suffixes):
        raise InputError(f"{target}: the name must end in {' or '.join(suffixes)}.", "Readers go by it.")
    run = store.folder.resolve()
    if not store.url and (path in (run, *run.parents) or (run / STORE) in (path, *path.parents)):
        raise InputError(f"{target} is the run itself, or holds it.", "Choose a place of its own with --out.")
    if not target.exists():
        return
    if not overwrite:
        raise InputError(f"{target} is there already.", "Give --overwrite to replace it, or another place with --out.")
    if target.is_dir() and not _made_by_us(target):
        raise InputError(
            f"{target} is a folder that is no export: it is not replaced.", "Choose another place with --out."
        )


def _made_by_us(folder: Path) -> bool:
    """Whether a folder is a Zarr store, or holds nothing but pickles."""
    files = [path for path in folder.iterdir() if path.is_file()]
    folders = [path.name for path in folder.iterdir() if path.is_dir()]
    pickles = all(path.suffix == ".pickle" for path in files) and folders in ([], ["refined"])
    return (folder / "zarr.json").is_file() or pickles


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a place to write to, and rename it to the target if all went well; else remove what was written.

    Raises
    ------
    StoreError
        The disk is full, or the place cannot be written.
    """
    part = target.with_name(f"{target.name}{PART}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(part)
        yield part
        _rename(part, target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        remove(part)


def _rename(part: Path, target: Path) -> None:
    """Put what is written in place of what is there."""
    if not target.is_dir():
        part.replace(target)
        return
    old = target.with_name(f"{target.name}.old{PART}")
    remove(old)
    target.rename(old)
    part.rename(target)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_room(target: Path, needed: int) -> None:
    """Refuse what the disk has no room for, before hours of writing.

    Raises
    ------
    InputError
        So much is not free there.
    """
    folder = next(folder for folder in target.resolve().parents if folder.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{str(target).removesuffix(PART)} needs {format_bytes(needed)}; {format_bytes(free)} are free there.",
            "Choose fewer genes with --genes, or another place with --out.",
        )


def _unwritable(target: Path, error: OSError) -> StoreError:
    """The error of a disk, as HDF5 tells it too: in words, without a number."""
    full = error.errno in FULL or any(word in str(error) for word in ("No space left", "File too large"))
    what = "there is no room left" if full else error.strerror or str(error).splitlines()[0]
    return StoreError(
        f"{target}: cannot be written: {what}. Nothing is left of it.",
        "Make room, choose fewer genes with --genes, or another place with --out.",
    )

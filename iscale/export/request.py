"""What is exported, of which genes and where to: written beside its name first, renamed when it is whole."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

import numpy as np

from iscale.engine.plan import format_bytes
from iscale.engine.progress import Watcher
from iscale.engine.watchers import counted
from iscale.errors import InputError, StoreError
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import Source
from iscale.results import Run
from iscale.store.layout import SHARD_SUPERPIXELS
from iscale.store.run_store import STORE, RunStore

PART = ".part"
"""What is added to a name until all is there."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_target(target: Path, suffixes: tuple[str, ...], store: RunStore, *, overwrite: bool) -> None:
    """Refuse a target that is not to be replaced, is no export, has another format's name, or would harm the run."""
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

    Raised is a `StoreError` where the disk is full, or the place cannot be written.
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
    """Refuse what the disk has no room for, before hours of writing."""
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


BIN_SIDES = (1, 2, 4, 8, 16)
"""Sides of bins, in superpixels: whole numbers of them lie in a shard, and in a slide that is padded to 256 px."""

Window = tuple[float, float, float, float]
"""x0, y0, x1, y1 in um from the slide's corner."""


@dataclass(frozen=True)
class Request:
    """An export: a run, its genes and grids, which genes of it, and where to write, to be renamed when all is there.

    ``region`` is a window of superpixels, whole bins of ``side`` superpixels a side; ``whole`` says that it is the
    slide.
    """

    run: Run
    source: Source
    grid: SlideGrid
    genes: tuple[str, ...]
    region: Region
    whole: bool
    side: int
    part: Path
    watcher: Watcher

    @property
    def superpixel_um(self) -> float:
        """Side of a superpixel, in um."""
        return self.grid.superpixel_um

    @property
    def bin_um(self) -> float:
        """Side of a bin, in um."""
        return self.grid.superpixel_um * self.side

    def blocks(self, n: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The genes in blocks of ``n``, each with the place of its first."""
        for start in range(0, len(self.genes), n):
            yield start, self.genes[start : start + n]

    def counted(self, total: int, step: str = "export") -> AbstractContextManager[Callable[[], None]]:
        """Tell the watcher of work whose parts are counted by calling what this gives."""
        return counted(self.watcher, step, total)


def check_tissue(request: Request) -> None:
    """Refuse a window of glass: there would be nothing in the file."""
    mask, region, um = request.run.store.array("tissue/mask"), request.region, request.superpixel_um
    x0, x1, y0, y1 = (um * side for side in (region.x0, region.x1, region.y0, region.y1))
    if not any(np.asarray(mask[tile.slices]).any() for tile in tiles(region)):
        raise InputError(
            f"There is no tissue in the window (x {x0:g} to {x1:g}, y {y0:g} to {y1:g} um).",
            "Choose another one; iscale info says how large the slide is.",
        )


def tiles(region: Region, side: int = SHARD_SUPERPIXELS) -> list[Region]:
    """A region cut along the lattice of the slide."""
    return list(region.tiles(side))


def bin_side(bin_um: float | None, superpixel_um: float) -> int:
    """Side of a bin, in superpixels: whole ones, and not too many.

    >>> bin_side(16, 8.0), bin_side(None, 12.0)
    (2, 1)
    """
    if bin_um is None:
        return 1
    side = bin_um / superpixel_um
    if not any(abs(side - n) < 1e-6 for n in BIN_SIDES):
        known = ", ".join(f"{n * superpixel_um:g}" for n in BIN_SIDES)
        raise InputError(
            f"--bin {bin_um:g}: bins are 1, 2, 4, 8 or 16 superpixels wide, which are {superpixel_um:g} um here.",
            f"Choose one of {known} (um).",
        )
    return round(side)


def parse_window(text: str) -> Window:
    """Numbers of ``x0,y0,x1,y1``.

    >>> parse_window("0, 0, 1000, 500.5")
    (0.0, 0.0, 1000.0, 500.5)
    """
    try:
        x0, y0, x1, y1 = (float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--window {text}: four numbers are needed.", "Write x0,y0,x1,y1 in um.") from None
    return x0, y0, x1, y1


def choose_region(window: Window | None, grid: SlideGrid, side: int) -> Region:
    """Superpixels of the bins that a window touches; of the whole slide without one.

    >>> grid = SlideGrid((1024, 2048), 0.5, 0.5)
    >>> str(choose_region((0, 0, 17, 30), grid, 2))
    'y 0:4, x 0:4'
    """
    height, width = grid.superpixel_shape
    if window is None:
        return Region(0, height, 0, width)
    x0, y0, x1, y1 = window
    shown = ",".join(f"{v:g}" for v in window)
    if not np.isfinite(window).all():
        raise InputError(f"--window {shown}: four numbers are needed.", "Write x0,y0,x1,y1 in um.")
    if not (x0 < x1 and y0 < y1):
        raise InputError(f"--window {shown} is empty.", "Write x0,y0,x1,y1 in um, with x0 < x1 and y0 < y1.")
    across, down = width * grid.superpixel_um, height * grid.superpixel_um
    if x1 <= 0 or y1 <= 0 or x0 >= across or y0 >= down:
        raise InputError(
            f"--window {shown} lies outside of the slide, which is {across:g} x {down:g} um.",
            "Write x0,y0,x1,y1 in um from the slide's upper left corner.",
        )
    step = grid.superpixel_um * side
    j0, i0 = max(0, floor(x0 / step)), max(0, floor(y0 / step))
    j1, i1 = min(ceil(x1 / step), width // side), min(ceil(y1 / step), height // side)
    return Region(i0, i1, j0, j1).scaled(side)

"""Open what a run is held against, whatever file or folder holds it; and measured maps in a Zarr store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.trust.truth import MapTruth, Reading, Truth, region_on
from iscale.trust.truth_captures import open_capture_truth
from iscale.trust.truth_files import open_arrays, open_published

TABLES = (".npz", ".npy")
PICKLES = (".pickle", ".pkl")

KINDS = (
    "a map of superpixels (.npz or .npy with genes and (gene, y, x); a Zarr with gene, y, x and expression), the "
    "folder of a capture (Xenium, Visium HD, Visium, cnts.tsv and locs.tsv ...), or the published cnts-truth-agg.pickle"
)

GROUPS = ("", "expression", "run.zarr/expression", "iSCALE_output/run.zarr/expression")
"""Where in a folder the group may lie: itself, a run's store, output or project."""


def open_truth(path: Path, grid: SlideGrid, reading: Reading) -> Truth:
    """Open a truth.

    Parameters
    ----------
    path
        A file or a folder; see the modules of the readers for what they take.
    grid
        Grids of the run's slide.
    reading
        How a capture is to be read.

    Raises
    ------
    InputError
        There is nothing, it is nothing that can be read, or it does not fit the run's superpixels.
    """
    place = path.expanduser()
    if not place.exists():
        raise InputError(f"{place} does not exist.", f"Give {KINDS}.")
    suffix = place.suffix.lower()
    if place.is_file() and suffix in TABLES:
        return open_arrays(place, grid)
    if place.is_file() and suffix in PICKLES:
        return open_published(place, grid)
    if place.is_dir() and not any(place.iterdir()):
        raise InputError(f"{place} is an empty folder.", f"Give {KINDS}.")
    if place.is_dir() and (group := find_group(place)) is not None:
        return open_group(place, group, grid)
    if place.is_dir() or suffix in (".h5ad", ".zarr"):
        return open_capture_truth(place, grid, reading)
    raise InputError(f"{place} is nothing that a run can be held against.", f"Give {KINDS}.")


@dataclass(frozen=True)
class StoredMaps:
    """Maps of a Zarr array (gene, y, x) whose corner lies at ``place``."""

    array: zarr.Array[Any]
    place: Region

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region; NaN beyond the array. Genes of one chunk are read together."""
        values = np.full((len(genes), *region.shape), np.nan, np.float32)
        y0, y1 = max(region.y0, self.place.y0), min(region.y1, self.place.y1)
        x0, x1 = max(region.x0, self.place.x0), min(region.x1, self.place.x1)
        if y0 >= y1 or x0 >= x1:
            return values
        inside = Region(y0, y1, x0, x1)
        per_chunk = self.array.chunks[0]
        order = sorted(range(len(genes)), key=lambda row: genes[row])
        for _, group in groupby(order, key=lambda row: genes[row] // per_chunk):
            rows = list(group)
            first, last = genes[rows[0]], genes[rows[-1]]
            read = np.asarray(self.array[(slice(first, last + 1), *inside.within(self.place))], dtype=np.float32)
            for row in rows:
                values[row][inside.within(region)] = read[genes[row] - first]
        return values


def find_group(folder: Path) -> str | None:
    """Where in a folder the group with maps lies, None where there is none."""
    for path in GROUPS:
        place = folder / path / "expression"
        if (place / "zarr.json").is_file() or (place / ".zarray").is_file():
            try:
                if zarr.open_array(place, mode="r").ndim == 3:
                    return path
            except (ValueError, OSError, KeyError):
                continue  # a group
    return None


def open_group(folder: Path, path: str, grid: SlideGrid) -> MapTruth:
    """Open the maps of a group that `find_group` found.

    Raises
    ------
    InputError
        Coordinates are missing or of other lengths, or the cells are not the run's superpixels.
    """
    source = folder / path
    group = zarr.open_group(source, mode="r")
    array = group["expression"]
    assert isinstance(array, zarr.Array)
    names = tuple(str(n) for n in getattr(array.metadata, "dimension_names", None) or ())
    if names and names != ("gene", "y", "x"):
        raise InputError(f"{source}: expression has the axes {', '.join(names)}.", "They must be gene, y, x.")
    coordinates: dict[str, NDArray[Any]] = {}
    for dim, n in zip(("gene", "y", "x"), array.shape, strict=True):
        found = group.get(dim)
        if not isinstance(found, zarr.Array) or found.shape != (n,):
            told = "is not there" if found is None else "is of another length"
            raise InputError(
                f"{source}: expression has the shape {array.shape}, but its coordinate {dim} {told}.",
                "It needs gene (names), and y and x (um from the slide's corner to the centres of the cells).",
            )
        coordinates[dim] = np.asarray(found[...])
    genes = tuple(str(gene) for gene in coordinates["gene"])
    place = region_on((array.shape[1], array.shape[2]), grid, str(source), (coordinates["y"], coordinates["x"]))
    what = f"{source}: maps of {len(genes)} genes, {place.shape[0]} x {place.shape[1]} superpixels"
    return MapTruth(folder.stem, genes, StoredMaps(array, place), place, what)

"""Measured maps in files of arrays: ``.npz``, ``.npy`` with names beside it, and the published pickle."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.evaluate.pickles import gene_first, maps_of
from iscale.evaluate.truth import MapTruth, region_on
from iscale.geometry import Region, SlideGrid
from iscale.project import read_gene_names

NAMES = ("genes", "gene", "gene_names")
REMEDY = "np.savez(path, genes=names, expected=array) with the array (gene, y, x) writes one that can be read."


@dataclass(frozen=True)
class ArrayMaps:
    """Maps in an array (gene, y, x), on disk or in memory, or in a list of arrays (y, x), at ``place``."""

    arrays: NDArray[Any] | Sequence[NDArray[Any]]
    place: Region

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region; NaN beyond the arrays."""
        values = np.full((len(genes), *region.shape), np.nan, np.float32)
        y0, y1 = max(region.y0, self.place.y0), min(region.y1, self.place.y1)
        x0, x1 = max(region.x0, self.place.x0), min(region.x1, self.place.x1)
        if y0 < y1 and x0 < x1:
            inside = Region(y0, y1, x0, x1)
            for row, gene in enumerate(genes):
                values[row][inside.within(region)] = self.arrays[gene][inside.within(self.place)]
        return values


def open_arrays(path: Path, grid: SlideGrid) -> MapTruth:
    """Open ``.npz`` (``genes``, one array of three axes, maybe ``y`` and ``x``) or ``.npy`` beside ``-genes.txt``.

    Arrays stay on disk; nothing is unpickled.

    Raises
    ------
    InputError
        What is needed is not there, is damaged, or does not fit the run's superpixels.
    """
    try:
        named, array, centres = _from_npz(path) if path.suffix.lower() == ".npz" else _from_npy(path)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}.", REMEDY) from None
    if not named:
        raise InputError(f"{path}: it names no gene.", REMEDY)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: the array is of {array.dtype}, not of numbers.", REMEDY)
    maps = gene_first(array, len(named), str(path))
    place = region_on((maps.shape[1], maps.shape[2]), grid, str(path), centres)
    return _of_maps(path, named, maps, place, held_bytes=0)


def open_published(path: Path, grid: SlideGrid) -> MapTruth:
    """Open the published ``cnts-truth-agg`` pickle; it is held in memory.

    Raises
    ------
    InputError
        It holds anything but maps, or they do not fit the run's superpixels.
    """
    named, maps = maps_of(path)
    if any(m.dtype.kind not in "biuf" for m in maps):
        raise InputError(f"{path}: its maps are of {maps[0].dtype}, not of numbers.", REMEDY)
    height, width = maps[0].shape
    place = region_on((height, width), grid, str(path))
    return _of_maps(path, named, maps, place, held_bytes=path.stat().st_size)


def _of_maps(
    path: Path, named: list[str], maps: NDArray[Any] | list[NDArray[Any]], place: Region, held_bytes: int
) -> MapTruth:
    twice = len(named) - len(set(named))
    if twice:
        raise InputError(f"{path} names {twice} of {len(named)} genes more than once.", "Give every gene one map.")
    what = f"{path}: maps of {len(named)} genes, {place.shape[0]} x {place.shape[1]} superpixels"
    return MapTruth(path.stem, tuple(named), ArrayMaps(maps, place), place, what, held_bytes)


def _from_npz(path: Path) -> tuple[list[str], NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]:
    """Names, the array mapped from a copy of it on disk, and the centres of its cells where they are stated."""
    with zipfile.ZipFile(path) as file:
        shapes = {name.removesuffix(".npy"): _shape(file, name) for name in file.namelist() if name.endswith(".npy")}
        cubes = [name for name, shape in shapes.items() if len(shape) == 3]
        names = [name for name in NAMES if name in shapes]
        if len(cubes) != 1 or not names:
            there = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no arrays"
            raise InputError(f"{path} needs `genes` and one array (gene, y, x); it has {there}.", REMEDY)
        with tempfile.TemporaryDirectory(prefix="iscale-") as folder:
            copy = Path(folder) / "maps.npy"
            with file.open(f"{cubes[0]}.npy") as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            array = np.load(copy, mmap_mode="r", allow_pickle=False)  # the file stays until the array goes
    with np.load(path, allow_pickle=False) as small:
        named = _names(path, names[0], small)
        centres = (small["y"], small["x"]) if {"y", "x"} <= set(shapes) else None
    return named, array, centres


def _names(path: Path, key: str, arrays: Any) -> list[str]:
    """Names of the genes; arrays of Python objects, as ``adata.var_names`` gives, are not unpickled."""
    try:
        return [str(name) for name in arrays[key]]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(
            f"{path}: `{key}` holds Python objects, which are not read, as a file could run anything by them.",
            f"Save them as text: np.savez(path, {key}=np.array(names, dtype=str), expected=array).",
        ) from None


def _shape(file: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Shape of an array of an archive, by its header."""
    with file.open(name) as member:
        major, _ = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, _ = read(member)
    return tuple(int(n) for n in shape)


def _from_npy(path: Path) -> tuple[list[str], NDArray[Any], None]:
    beside = path.with_name(f"{path.stem}-genes.txt")
    if not beside.is_file():
        raise InputError(
            f"{path} has no names of genes: {beside.name} is not beside it.",
            "Write them there, one a line in the order of the array (gene, y, x). Or write .npz, which holds both.",
        )
    return list(read_gene_names(beside)), np.load(path, mmap_mode="r", allow_pickle=False), None

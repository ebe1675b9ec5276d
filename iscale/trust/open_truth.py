"""Open what a run is held against, whatever file or folder holds it: arrays, Zarr, captures, the published pickle."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.project.files import read_gene_names
from iscale.trust.safe_pickle import maps_of
from iscale.trust.truth import MapTruth, PlacedMaps, Reading, Truth, gene_first, region_on
from iscale.trust.truth_captures import open_capture_truth
from iscale.words import by

TABLES = (".npz", ".npy")
PICKLES = (".pickle", ".pkl")

KINDS = (
    "a map of superpixels (.npz or .npy with genes and (gene, y, x); a Zarr with gene, y, x and expression), the "
    "folder of a capture (Xenium, Visium HD, Visium, cnts.tsv and locs.tsv ...), or the published cnts-truth-agg.pickle"
)

GROUPS = ("", "expression", "run.zarr/expression", "iSCALE_output/run.zarr/expression")
"""Where in a folder the group may lie: itself, a run's store, output or project."""

NAMES = ("genes", "gene", "gene_names")
REMEDY = "np.savez(path, genes=names, expected=array) with the array (gene, y, x) writes one that can be read."


def open_truth(path: Path, grid: SlideGrid, reading: Reading) -> Truth:
    """Open a file or a folder as a truth of a slide of these grids.

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
    """Open the maps of a group that `find_group` found; refuse it where coordinates are missing or do not fit."""
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
            problem = "is not there" if found is None else "is of another length"
            raise InputError(
                f"{source}: expression has the shape {by(array.shape)}, but its coordinate {dim} {problem}.",
                "It needs gene (names), and y and x (um from the slide's corner to the centres of the cells).",
            )
        coordinates[dim] = np.asarray(found[...])
    genes = tuple(str(gene) for gene in coordinates["gene"])
    place = region_on((array.shape[1], array.shape[2]), grid, str(source), (coordinates["y"], coordinates["x"]))
    return _of_maps(folder.stem, str(source), genes, array, place)


def open_arrays(path: Path, grid: SlideGrid) -> MapTruth:
    """Open ``.npz`` (``genes``, one array of three axes, maybe ``y`` and ``x``) or ``.npy`` beside ``-genes.txt``.

    Arrays stay on disk; nothing is unpickled.
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
    return _of_maps(path.stem, str(path), _unique(path, named), maps, place)


def open_published(path: Path, grid: SlideGrid) -> MapTruth:
    """Open the published ``cnts-truth-agg`` pickle; it is held in memory."""
    named, maps = maps_of(path)
    if any(m.dtype.kind not in "biuf" for m in maps):
        raise InputError(f"{path}: its maps are of {maps[0].dtype}, not of numbers.", REMEDY)
    height, width = maps[0].shape
    place = region_on((height, width), grid, str(path))
    return _of_maps(path.stem, str(path), _unique(path, named), maps, place, held_bytes=path.stat().st_size)


def _unique(path: Path, named: list[str]) -> tuple[str, ...]:
    twice = len(named) - len(set(named))
    if twice:
        raise InputError(f"{path} names {twice} of {len(named)} genes more than once.", "Give every gene one map.")
    return tuple(named)


def _of_maps(
    name: str,
    source: str,
    genes: tuple[str, ...],
    maps: zarr.Array[Any] | NDArray[Any] | Sequence[NDArray[Any]],
    place: Region,
    held_bytes: int = 0,
) -> MapTruth:
    what = f"{source}: maps of {len(genes)} genes, {place.shape[0]} x {place.shape[1]} superpixels"
    return MapTruth(name, genes, PlacedMaps(maps, place), place, what, held_bytes)


def _from_npz(path: Path) -> tuple[list[str], NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]:
    """Names, the array mapped from a copy of it on disk, and the centres of its cells where they are stated."""
    with zipfile.ZipFile(path) as file:
        shapes = {name.removesuffix(".npy"): _shape(file, name) for name in file.namelist() if name.endswith(".npy")}
        cubes = [name for name, shape in shapes.items() if len(shape) == 3]
        names = [name for name in NAMES if name in shapes]
        if len(cubes) != 1 or not names:
            there = ", ".join(f"{name} of {by(shape)}" for name, shape in shapes.items()) or "no arrays"
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

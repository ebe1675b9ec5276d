"""Files of features that other programs wrote: NumPy, HDF5 and Zarr, opened without reading them.

A file holds either a *grid*, an array with the axes y, x and feature, or a *list*, an array (n, feature) beside the
places ``coords`` (n, 2) of its rows, as CLAM and TRIDENT write. What it says on its own grid, and what a JSON file
beside it says (``features.npy.json``), are `Notes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iscale.errors import InputError
from iscale.slide.base import file_fingerprint
from iscale.words import by

FORMATS = ".npy, .npz, .h5, .hdf5, or a Zarr folder"
ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


class Sliceable(Protocol):
    """What NumPy's memory maps, HDF5's datasets and Zarr's arrays have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of the values."""
        ...

    def __getitem__(self, key: Any) -> Any:
        """A slice, read when it is indexed."""
        ...


class Notes(BaseModel):
    """What is said on the grid of a file of features; each entry is optional.

    Examples
    --------
    >>> Notes.model_validate({"cell_px": 256, "pixel_size_um": 0.5}).origin_px
    (0.0, 0.0)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cell_px: float | None = Field(None, gt=0)
    """Side of the square that a vector stands for, in pixels."""
    patch_px: float | None = Field(None, gt=0)
    """Side of the patch that it was computed from, where patches overlap: the square is in the middle of its patch."""
    pixel_size_um: float | None = Field(None, gt=0)
    """Size of the pixels in which cells, places and the origin are told; ``None``: those of the slide file."""
    origin_px: tuple[float, float] = (0.0, 0.0)
    """x, y on the slide at which the grid begins."""
    axes: str = Field("yxf", pattern="^(yxf|yfx|xyf|xfy|fyx|fxy)$")
    """Order of the axes of a grid."""
    names: tuple[str, ...] | None = None
    """Names of the features."""


@dataclass(frozen=True)
class FeatureFile:
    """An opened file.

    Attributes
    ----------
    features
        Grid (axes in the order of the notes) or list (n, feature).
    places
        (n, 2) x, y of a list's rows, in pixels: the upper left corner of a patch; ``None`` for a grid.
    notes
        What is said on the grid.
    """

    features: Sliceable
    places: NDArray[np.float64] | None
    notes: Notes


def open_feature_file(path: Path) -> FeatureFile:
    """Open a file of features; nothing but a list's places is read, of .npz all.

    Refused is a file that is missing, of no known format, damaged, without features, or whose notes cannot be used.
    """
    if not path.exists():
        raise InputError(f"--encoder precomputed: {path} does not exist", "Check the path: --encoder precomputed:PATH.")
    try:
        arrays, said = _open(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as features ({error})", f"Give {FORMATS}.") from error
    features, places = arrays.get("features"), arrays.get("coords")
    if features is None:
        raise InputError(
            f"{path} has no array `features`; it has {', '.join(sorted(arrays)) or 'none'}", "Name the array so."
        )
    notes = _notes(path, said)
    if features.dtype.kind not in "fiu":
        raise InputError(f"{path}: features are of type {features.dtype}, not numbers", "Save them as float32.")
    if len(features.shape) == 3:
        return FeatureFile(features, None, notes)
    if len(features.shape) == 2 and places is not None:
        return FeatureFile(features, _checked_places(path, places, features.shape[0]), notes)
    raise InputError(
        f"{path}: features have the shape {by(features.shape)}{', and there are no coords' * (places is None)}",
        "Give an array with the axes y, x, feature, or (n, feature) with an array coords (n, 2) of x, y in pixels.",
    )


def identify(path: Path) -> str:
    """Identity of a file, or of a Zarr folder: its metadata, and the names and sizes of its chunks."""
    if path.is_file():
        return file_fingerprint(path)
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n".encode())
        if file.name in ZARR_METADATA:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _open(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Arrays by name, and what the file says on them."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_zarr(path)
    if suffix == ".npy":
        return {"features": np.load(path, mmap_mode="r", allow_pickle=False)}, {}
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, {"names": arrays["names"].tolist()} if "names" in arrays else {}
    if suffix in (".h5", ".hdf5"):
        return _open_hdf5(path)
    raise ValueError(f"the suffix {suffix!r} is of no format that is read")


def _open_hdf5(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    import h5py

    file = h5py.File(path, "r")
    said: dict[str, Any] = {}
    for source in (file, file.get("features"), file.get("coords")):
        said |= dict(source.attrs) if source is not None else {}
    return {name: value for name, value in file.items() if isinstance(value, h5py.Dataset)}, said


def _open_zarr(path: Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    import zarr

    node = zarr.open(path, mode="r")
    if isinstance(node, zarr.Array):
        return {"features": node}, _named_axes(node) | dict(node.attrs)
    arrays = dict(node.arrays())
    said = dict(node.attrs)
    for name in ("features", "coords"):
        said |= _named_axes(arrays[name]) | dict(arrays[name].attrs) if name in arrays else {}
    return arrays, said


def _named_axes(array: Any) -> dict[str, Any]:
    """The order of the axes from their names, as Zarr 3 and xarray store them."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    axes = "".join(str(name)[:1] for name in names)
    return {"axes": axes} if sorted(axes) == ["f", "x", "y"] else {}


def _notes(path: Path, said: Mapping[str, Any]) -> Notes:
    """What the JSON file beside the file says, or else the file itself."""
    known = {key: _plain(said[key]) for key in Notes.model_fields if key in said} | _of_patches(said)
    beside = path.with_name(f"{path.name}.json")
    source = path
    try:
        if beside.is_file():
            source = beside
            known |= json.loads(beside.read_text(encoding="utf-8"))
        return Notes.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{source}: {'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}"
    except (ValueError, TypeError) as error:
        problem = f"{beside} is no JSON object ({error})"
    raise InputError(problem, f"Known entries: {', '.join(Notes.model_fields)}.")


def _of_patches(said: Mapping[str, Any]) -> dict[str, Any]:
    """Side of a cell as TRIDENT (``patch_size_level0``) or CLAM (``patch_size`` at a level) say it.

    TRIDENT's ``overlap`` counts in pixels of the patch as the network saw it, ``patch_size``: where patches overlap, a
    cell is as large as the step from one to the next.
    """
    if "cell_px" in said:
        return {}
    if "patch_size_level0" in said:
        patch, overlap = (float(_plain(said[key])) if key in said else 0.0 for key in ("patch_size_level0", "overlap"))
        if not overlap:
            return {"cell_px": patch}
        seen = float(_plain(said.get("patch_size", patch)))
        step = patch * (1 - overlap / seen) if 0 < overlap < seen else None
        return {"patch_px": patch, "cell_px": step}
    if "patch_size" in said and "patch_level" in said:
        factor = np.ravel(said.get("downsample", 1.0 if _plain(said["patch_level"]) == 0 else np.nan))[0]
        return {"cell_px": float(_plain(said["patch_size"]) * factor)} if np.isfinite(factor) else {}
    return {}


def _plain(value: Any) -> Any:
    """An attribute as JSON would hold it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _checked_places(path: Path, places: Any, n: int) -> NDArray[np.float64]:
    if tuple(places.shape) != (n, 2):
        raise InputError(
            f"{path}: coords have the shape {by(places.shape)}, and there are {n} features",
            "Give one x, y for each row of features.",
        )
    values = np.asarray(places[...], np.float64)
    if not n or not np.isfinite(values).all():
        raise InputError(
            f"{path}: {int((~np.isfinite(values)).any(axis=1).sum())} of {n} coords are not finite numbers",
            "Give at least one place, and finite x, y for each.",
        )
    return values

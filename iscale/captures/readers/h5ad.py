"""AnnData in a ``.h5ad`` file: raw counts, positions of spots or cells, and the image that lies beside the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from iscale.captures.measured import Measured
from iscale.captures.readers.anndata_group import AnnDataTable, anndata_errors, read_table
from iscale.captures.readers.lattice import Lattice, visium_lattice
from iscale.captures.readers.own_image import IMAGE_SETTING, PIXEL_SIZE_SETTING, OwnImage, find_image, open_image
from iscale.errors import InputError
from iscale.words import by


def looks_like(path: Path) -> bool:
    """Whether a path is a ``.h5ad`` file, or a folder with exactly one that is not the counts of a tables' pair."""
    if path.is_dir():
        found = _h5ad_files(path)
        return len(found) == 1 and found[0].stem.lower() != "cnts"
    return path.suffix.lower() == ".h5ad" and path.is_file()


def read(path: Path, *, pixel_size_um: float | None = None) -> Measured:
    """Read a ``.h5ad`` file, or the one in a folder.

    ``pixel_size_um``, of a pixel of the capture's image, is used where positions are um, to bring them into its pixels.

    Raises
    ------
    InputError
        Where the file is damaged, holds no raw counts, no positions, or several samples.
    """
    file_path = _file(path)
    source = str(file_path)
    with anndata_errors(source), h5py.File(file_path, "r") as file:
        factors = _scalefactors(file, source)
        table = read_table(file, source)
        found = positions_of(file, table.obs, source)
    stated_um = factors.get("microns_per_pixel")
    beside, notices = _image_beside(file_path), found.notices
    if found.in_um:
        stated_um = pixel_size_um or stated_um
        found, more = _in_pixels(found, stated_um)
        beside, stated_um = (None, 1.0) if stated_um is None else (beside, stated_um)
        notices += more
    xy, image, more = fit_image(found, beside, factors)
    return assemble(
        "h5ad",
        table,
        xy,
        factors,
        image=image,
        um_per_px=stated_um,
        notices=(*notices, *more),
    )


def assemble(
    platform: str,
    table: AnnDataTable,
    xy: NDArray[np.float64],
    factors: dict[str, float],
    *,
    image: OwnImage | None,
    um_per_px: float | None,
    notices: tuple[str, ...],
) -> Measured:
    """What an AnnData says, with the pixel size from the first that tells it: the file, its image, a Visium lattice.

    ``xy`` (spot, 2) are in full-resolution pixels, those of ``image``; ``factors`` are scale factors as stored.
    """
    lattice = _visium(table.obs, xy)
    if um_per_px is None and image is not None and image.um_per_px is not None:
        um_per_px = image.um_per_px
        notices += (f"The pixel size, {um_per_px:.4g} um, is the one that {image.path.name} states.",)
    elif um_per_px is None and lattice is not None:
        um_per_px = lattice.um_per_px
        notices += (f"The pixel size, {um_per_px:.4g} um, is that of a Visium array, whose spots are 100 um apart.",)
    pitch_um, diameter_um = _spot_size(factors, lattice, um_per_px)
    return Measured(
        platform=platform,
        spot_ids=list(table.obs.index),
        gene_symbols=table.symbols,
        gene_ids=table.ids,
        counts=table.counts,
        xy_px=xy,
        spot_diameter_um=diameter_um,
        um_per_px=um_per_px,
        pitch_um=pitch_um,
        scalefactors=factors,
        image=None if image is None else image.path,
        obs=table.obs,
        notices=(*table.notices, *notices),
    )


def _h5ad_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == ".h5ad" and path.is_file() and not path.name.startswith(".")
    )


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = _h5ad_files(path) if path.is_dir() else []
    if len(found) != 1:
        names = f": {', '.join(p.name for p in found[:5])}" if found else ""
        raise InputError(f"{path} holds {len(found)} .h5ad files{names}.", "Name the .h5ad file itself.")
    return found[0]


def _scalefactors(file: h5py.File, source: str) -> dict[str, float]:
    """Numbers of ``uns['spatial'][library]['scalefactors']``; images stored there are not touched."""
    spatial = file.get("uns/spatial")
    if not isinstance(spatial, h5py.Group):
        return {}
    libraries = [name for name in spatial if isinstance(spatial[name], h5py.Group)]
    if len(libraries) > 1:
        raise InputError(
            f"{source} holds {len(libraries)} samples, each with pixels of its own: {', '.join(libraries[:5])}.",
            "Split it: write every sample, with its own uns['spatial'], to a .h5ad file of its own.",
        )
    stored = spatial.get(f"{libraries[0]}/scalefactors") if libraries else None
    if not isinstance(stored, h5py.Group):
        return {}
    values = {name: read_elem(stored[name]) for name in stored if isinstance(stored[name], h5py.Dataset)}
    numbers = {name: float(value) for name, value in values.items() if np.ndim(value) == 0 and _is_number(value)}
    return {name: value for name, value in numbers.items() if math.isfinite(value) and value > 0}


def _is_number(value: Any) -> bool:
    return bool(np.issubdtype(np.asarray(value).dtype, np.number))


def _in_pixels(found: Positions, um_per_px: float | None) -> tuple[Positions, tuple[str, ...]]:
    """Positions in um as pixels: of the size stated, else of 1 um, with a notice."""
    if um_per_px is not None:
        return replace(found, xy=found.xy / um_per_px, in_um=False), ()
    notice = (
        f"{found.source} is in um and the pixel size of the capture's image is not known: positions are in pixels of "
        f"1 um, and no image is taken. State it ({PIXEL_SIZE_SETTING})."
    )
    return replace(found, in_um=False), (notice,)


def _image_beside(file_path: Path) -> Path | None:
    """The image beside the file, or beside the one that it is a link to."""
    for path in (file_path, file_path.resolve()):
        if found := find_image(path.parent, path.stem, "he"):
            return found
    return None


def _visium(obs: pd.DataFrame, xy: NDArray[np.float64]) -> Lattice | None:
    if not {"array_row", "array_col"} <= set(obs.columns):
        return None
    row, col = (pd.to_numeric(obs[name], errors="coerce").to_numpy(np.float64) for name in ("array_row", "array_col"))
    return visium_lattice(row, col, xy)


def _spot_size(
    factors: dict[str, float], lattice: Lattice | None, um_per_px: float | None
) -> tuple[float | None, float | None]:
    """Distance of spots and their diameter, in um: of a Visium array, of bins, else as stored in pixels."""
    if lattice is not None:
        return lattice.pitch_um, lattice.diameter_um
    if bin_um := factors.get("bin_size_um"):
        return bin_um, bin_um * 2 / math.sqrt(math.pi)
    diameter_px = factors.get("spot_diameter_fullres")
    return None, None if diameter_px is None or um_per_px is None else diameter_px * um_per_px


OBSM_KEYS = ("spatial", "X_spatial", "spatial_fullres")
PIXEL_COLUMNS = (
    ("x_pixel", "y_pixel"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"),
    ("x", "y"),
)
UM_COLUMNS = ("x_centroid", "y_centroid")
"""As Xenium writes them, and what is made of it: um, not pixels."""

UNSURE_COLUMNS = ("x_pixel", "y_pixel")
"""Written by some with x across, by others (DeepSpot) with x down: only the image can tell."""

POSITIONS_REMEDY = (
    "Put x, y in full-resolution pixels of the capture's image, one row per spot, into obsm['spatial'] and write it "
    "again."
)


@dataclass(frozen=True)
class Positions:
    """Where the spots lie: (spot, 2) float64 x, y, finite, in um or what is taken for pixels; from which field."""

    xy: NDArray[np.float64]
    source: str
    in_um: bool
    notices: tuple[str, ...] = ()


def positions_of(group: Any, obs: pd.DataFrame, source: str) -> Positions:
    """Positions from ``obsm`` of an AnnData's root, else from columns of ``obs``; an InputError without any."""
    keys = list(group["obsm"]) if "obsm" in group else []
    key = next((name for name in OBSM_KEYS if name in keys), None)
    in_um = set(UM_COLUMNS) <= set(obs.columns)
    if key is not None:
        field = f"obsm[{key!r}]"
        stored = read_elem(group["obsm"][key])
        if isinstance(stored, pd.DataFrame):
            pair = next((pair for pair in (*PIXEL_COLUMNS, UM_COLUMNS) if set(pair) <= set(stored.columns)), None)
            stored = stored[list(pair)] if pair else stored
        xy, notices = _two_columns(np.asarray(stored), len(obs), field, source)
        is_um = in_um and np.allclose(xy, obs[list(UM_COLUMNS)].to_numpy(np.float64), rtol=1e-4, atol=0.01)
        return Positions(_finite(xy, obs, field, source), field, is_um, notices)
    for pair in (*PIXEL_COLUMNS[:-1], UM_COLUMNS, PIXEL_COLUMNS[-1]):
        if set(pair) <= set(obs.columns):
            field = f"obs {pair[0]}, {pair[1]}"
            xy, _ = _two_columns(obs[list(pair)].to_numpy(), len(obs), field, source)
            more = (f"Positions are {field}, taken for full-resolution pixels.",) if pair == ("x", "y") else ()
            return Positions(_finite(xy, obs, field, source), field, pair == UM_COLUMNS, more)
    columns = ", ".join(str(name) for name in obs.columns[:8]) or "nothing"
    raise InputError(
        f"{source} holds no positions: obsm has {', '.join(keys) or 'nothing'}, obs has {columns}.", POSITIONS_REMEDY
    )


def _two_columns(
    values: NDArray[Any], n_spots: int, field: str, source: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if values.ndim != 2 or values.shape[0] != n_spots or values.shape[1] not in (2, 3):
        raise InputError(f"{source}: {field} is {by(values.shape)}; {n_spots} x 2 is needed.", POSITIONS_REMEDY)
    if values.dtype.kind not in "iuf":
        raise InputError(f"{source}: {field} holds {values.dtype}, not numbers.", POSITIONS_REMEDY)
    notices = (f"The third column of {field}, z, is not used.",) if values.shape[1] == 3 else ()
    return values[:, :2].astype(np.float64), notices


def _finite(xy: NDArray[np.float64], obs: pd.DataFrame, field: str, source: str) -> NDArray[np.float64]:
    bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
    if len(bad):
        raise InputError(
            f"{source}: {len(bad)} of {len(xy)} spots have no finite position in {field}, first "
            f"{obs.index[bad[0]]!r} at ({xy[bad[0], 0]:g}, {xy[bad[0], 1]:g}).",
            "Give every spot a position, or take it out.",
        )
    return xy


def fit_image(
    found: Positions, path: Path | None, factors: dict[str, float]
) -> tuple[NDArray[np.float64], OwnImage | None, tuple[str, ...]]:
    """Positions (spot, 2) and the image beside them, where the one lies on the other; and what was done, and why.

    ``x_pixel``, ``y_pixel`` are turned where only then they lie on the image. No image where there is none, it cannot
    be read, or the positions are not on it.
    """
    unsure = found.source == f"obs {UNSURE_COLUMNS[0]}, {UNSURE_COLUMNS[1]}"
    doubt = (
        f"{found.source} are taken for across and down; some (DeepSpot) write them as down and across, and no image "
        "tells. Where the capture comes out mirrored, put x (across), y (down) into obsm['spatial']."
    )
    if path is None:
        return found.xy, None, (doubt,) if unsure else ()
    try:
        image = open_image(path)
    except InputError as error:
        return found.xy, None, (f"The image {path.name} is not used: {error.problem}",)
    across, down = image.is_of(found.xy), image.is_of(found.xy[:, ::-1])
    if unsure and down and not across:
        turned = f"{found.source} are down and across: only so they lie on {path.name}; they were turned."
        return np.ascontiguousarray(found.xy[:, ::-1]), image, (turned,)
    if not across:
        return found.xy, None, (_not_used(image, found.xy, factors),)
    return found.xy, image, (doubt,) if unsure and down else ()


def _not_used(image: OwnImage, xy: NDArray[np.float64], factors: dict[str, float]) -> str:
    scales = {
        name: factors[f"tissue_{name}_scalef"] for name in ("hires", "lowres") if f"tissue_{name}_scalef" in factors
    }
    fits = next((name for name, scale in scales.items() if image.is_of(xy * scale)), None)
    if fits:
        guess = f"it looks like the {fits} image, the one of full resolution is needed"
    elif image.is_of(xy[:, ::-1]):
        guess = "with x and y swapped they lie on it"
    else:
        guess = "they count in the pixels of another image"
    return f"{image.path.name} is not used: {image.mismatch(xy)}; {guess} ({IMAGE_SETTING})."

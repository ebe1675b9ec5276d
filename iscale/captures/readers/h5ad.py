"""AnnData in a ``.h5ad`` file: raw counts, positions of spots or cells, and the image that lies beside the file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from iscale.captures.measured import Measured
from iscale.captures.readers.anndata_group import AnnDataTable, anndata_errors, check_unique, read_table, rows_of
from iscale.captures.readers.lattice import Lattice, visium_lattice
from iscale.captures.readers.old_anndata import obsm_keys, read_obsm
from iscale.captures.readers.own_image import IMAGE_SETTING, PIXEL_SIZE_SETTING, OwnImage, find_image, open_image
from iscale.captures.readers.sections import take_section
from iscale.errors import InputError
from iscale.words import by


def looks_like(path: Path) -> bool:
    """Whether a path is a ``.h5ad`` file, or a folder with exactly one that is not the counts of a tables' pair."""
    if path.is_dir():
        found = _h5ad_files(path)
        return len(found) == 1 and found[0].stem.lower() != "cnts"
    return path.suffix.lower() == ".h5ad" and path.is_file()


def read(
    path: Path, *, pixel_size_um: float | None = None, section: str | None = None, unit: str | None = None
) -> Measured:
    """Read a ``.h5ad`` file, or the one in a folder.

    ``pixel_size_um``, of a pixel of the capture's image, is used where positions are um, to bring them into its pixels.
    ``section`` is the one to take of several; ``unit`` (px or um) that of the positions, if the file does not say.

    Raises
    ------
    InputError
        Where the file is damaged, holds no raw counts, no positions, or several sections of which none is asked for.
    """
    file_path = _file(path)
    source = str(file_path)
    with anndata_errors(source), h5py.File(file_path, "r") as file, anndata_errors(source, file):
        libraries = _libraries(file)
        table = read_table(file, source)
        found = positions_of(file, table.obs, source, unit)
        rows = take_section(table.obs, found.xy, libraries, section, source)
        if rows is not None:
            table, found = rows_of(table, rows, f"section {section}"), replace(found, xy=found.xy[rows])
        check_unique(table, source)
        factors = _scalefactors(file, section if section in libraries else libraries[0]) if libraries else {}
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
    lattice = visium_of(table.obs, xy)
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


def _libraries(file: h5py.File) -> list[str]:
    """Keys of ``uns['spatial']`` that are samples."""
    spatial = file.get("uns/spatial")
    if not isinstance(spatial, h5py.Group):
        return []
    return [name for name in spatial if isinstance(spatial[name], h5py.Group)]


def _scalefactors(file: h5py.File, library: str) -> dict[str, float]:
    """Numbers of ``uns['spatial'][library]['scalefactors']``; images stored there are not touched."""
    stored = file["uns/spatial"][library].get("scalefactors")
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


def visium_of(obs: pd.DataFrame, xy: NDArray[np.float64]) -> Lattice | None:
    """The lattice of a Visium array, where columns of places on it say so and positions (spot, 2) lie on it."""
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
    ("CenterX_global_px", "CenterY_global_px"),
)
UM_COLUMNS = (("x_centroid", "y_centroid"), ("center_x", "center_y"), ("x_location", "y_location"), ("x_um", "y_um"))
"""As Xenium, MERSCOPE and what is made of them write them: um, not pixels."""

XY_COLUMNS = ("x", "y")
TABLE_COLUMNS = (*PIXEL_COLUMNS, *UM_COLUMNS, XY_COLUMNS, ("col", "row"), ("column", "row"), ("spatial_x", "spatial_y"))
"""Across and down in a table of positions. In ``obs``, ``row`` and ``col`` are places on an array."""

NUMBERED = re.compile(r"(.*?)(\d+)")
UNSURE_COLUMNS = ("x_pixel", "y_pixel")
"""Written by some with x across, by others (DeepSpot) with x down: only the image can tell."""

UNIT_SETTING = "unit in [capture.NAME] of iscale.toml, or unit= in Python"
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


def positions_of(group: Any, obs: pd.DataFrame, source: str, unit: str | None = None) -> Positions:
    """Positions from ``obsm`` of an AnnData's root, else from columns of ``obs``; an InputError without any.

    ``unit``, px or um, is what is stated of it, and wins over what the columns' names say.
    """
    keys = obsm_keys(group)
    key = next((name for name in OBSM_KEYS if name in keys), None)
    found = _of_obs(obs, source) if key is None else _of_obsm(read_obsm(group, key), obs, f"obsm[{key!r}]", source)
    if found is None:
        columns = ", ".join(str(name) for name in obs.columns[:8]) or "nothing"
        raise InputError(
            f"{source} holds no positions: obsm has {', '.join(keys) or 'nothing'}, obs has {columns}.",
            POSITIONS_REMEDY,
        )
    if unit is None or found.in_um == (unit == "um"):
        return found
    known = found.in_um  # of px nothing is known: they are only taken for such
    more = (f"Warning: {found.source} is in {unit} as you state it; its names say um.",) if known else ()
    return replace(found, in_um=unit == "um", notices=(*found.notices, *more))


def _of_obs(obs: pd.DataFrame, source: str) -> Positions | None:
    pair = _named(obs, (*PIXEL_COLUMNS, *UM_COLUMNS, XY_COLUMNS))
    if pair is None:
        return None
    field = f"obs {pair[0]}, {pair[1]}"
    xy, _ = _two_columns(_as_numbers(obs[list(pair)], field, source), len(obs), field, source)
    more = (f"Positions are {field}, taken for full-resolution pixels.",) if _is(pair, (XY_COLUMNS,)) else ()
    return Positions(_finite(xy, obs, field, source), field, _is(pair, UM_COLUMNS), more)


def _of_obsm(stored: Any, obs: pd.DataFrame, field: str, source: str) -> Positions:
    said: tuple[str, ...] = ()
    in_um = False
    if isinstance(stored, pd.DataFrame):
        pair = _named(stored, TABLE_COLUMNS) or _numbered(stored)
        if pair is None:
            names = ", ".join(map(str, stored.columns[:8])) or "none"
            raise InputError(
                f"{source}: {field} is a table whose columns do not say which is across and which is down: {names}.",
                "Name them x and y.",
            )
        in_um = _is(pair, UM_COLUMNS)
        stored, said = stored[list(pair)], (f"Positions are {field}, {pair[0]} across and {pair[1]} down.",)
    values = stored if isinstance(stored, pd.DataFrame) else np.asarray(stored)
    if isinstance(values, pd.DataFrame) or (values.dtype.kind in "OSUT" and values.ndim == 2):
        values = _as_numbers(pd.DataFrame(values), field, source)
    xy, notices = _two_columns(values, len(obs), field, source)
    pair = _named(obs, UM_COLUMNS)
    if pair is not None:
        in_um = in_um or np.allclose(xy, _as_numbers(obs[list(pair)], field, source), rtol=1e-4, atol=0.01)
    return Positions(_finite(xy, obs, field, source), field, in_um, (*said, *notices))


def _named(table: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The first of the pairs that the table has, as it spells them."""
    lower = {str(name).lower(): name for name in reversed(table.columns)}
    return next(((lower[a.lower()], lower[b.lower()]) for a, b in pairs if {a.lower(), b.lower()} <= set(lower)), None)


def _is(pair: tuple[str, str], pairs: Sequence[tuple[str, str]]) -> bool:
    return tuple(str(name).lower() for name in pair) in {(a.lower(), b.lower()) for a, b in pairs}


def _numbered(table: pd.DataFrame) -> tuple[Any, Any] | None:
    """The columns of a table that are only numbered, as those made of an array are: their order is x, y."""
    found = [NUMBERED.fullmatch(str(name)) for name in table.columns]
    if not 2 <= len(found) <= 3 or not all(found):
        return None
    numbers = [int(match[2]) for match in found if match]
    same = len({match[1] for match in found if match}) == 1
    in_order = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return (table.columns[0], table.columns[1]) if same and in_order else None


def _as_numbers(table: pd.DataFrame, field: str, source: str) -> NDArray[np.float64]:
    """Columns of numbers, or of text that is numbers."""
    columns = []
    for name in table.columns:
        stored = table[name].astype(object)
        column = pd.to_numeric(stored, errors="coerce")
        bad = np.flatnonzero((column.isna() & stored.notna()).to_numpy())
        if len(bad):
            raise InputError(
                f"{source}: {field} holds {str(stored.iloc[bad[0]])[:40]!r} in {len(bad)} of {len(table)} rows, "
                "not numbers.",
                POSITIONS_REMEDY,
            )
        columns.append(column.to_numpy(np.float64))
    return np.column_stack(columns)


def by_extent(xy: NDArray[np.float64]) -> str:
    """What positions (spot, 2) span, for messages."""
    (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
    return f"x {x0:.4g} to {x1:.4g}, y {y0:.4g} to {y1:.4g}"


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

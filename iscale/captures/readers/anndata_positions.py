"""Positions of an AnnData's spots, and whether the image beside it is the one in whose pixels they count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata.io import read_elem
from numpy.typing import NDArray

from iscale.captures.readers.own_image import IMAGE_SETTING, OwnImage, open_image
from iscale.errors import InputError

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
            told = (f"Positions are {field}, taken for full-resolution pixels.",) if pair == ("x", "y") else ()
            return Positions(_finite(xy, obs, field, source), field, pair == UM_COLUMNS, told)
    columns = ", ".join(str(name) for name in obs.columns[:8]) or "nothing"
    raise InputError(
        f"{source} holds no positions: obsm has {', '.join(keys) or 'nothing'}, obs has {columns}.", POSITIONS_REMEDY
    )


def _two_columns(
    values: NDArray[Any], n_spots: int, field: str, source: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if values.ndim != 2 or values.shape[0] != n_spots or values.shape[1] not in (2, 3):
        raise InputError(f"{source}: {field} is {values.shape}; ({n_spots}, 2) is needed.", POSITIONS_REMEDY)
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

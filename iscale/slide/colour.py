"""Colour against glass: optical density, how glass looks across the slide, and colours that are ink, not stain.

Optical density (OD) is -log10 of the transmitted share of light, per channel; stains add up in it (Ruifrok and
Johnston, Anal. Quant. Cytol. Histol. 2001). All here is relative to the glass at the same place, so vignetting, a
tinted slide and a smooth shadow are not seen as stain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FILL = 250.0
"""Pixels brighter than this in all channels are fill (padding, or not scanned), or glass without any tint."""

INK_DENSITY = 0.25
"""Ink is looked for where a channel is denser than this: fainter colours have no reliable hue."""

DIM = 80
"""In transmitted light glass, and much of the tissue, is brighter than this in all channels."""

COLOURLESS = 0.04
"""Channels differ in density by less than this where nothing is stained; by 0.1 in the faintest stain that was seen."""

_TRIMS = 4
_SAMPLES = 40_000
_FEWEST = 200


@dataclass(frozen=True)
class Glass:
    """The colour of glass as a smooth field over the slide: per channel, a quadratic of the position.

    Per channel there are the 6 ``coefficients`` of 1, u, v, u^2, uv, v^2; u and v run from -1 to 1 over the slide's
    width and height, values are optical densities against pure white. The field is cut to the range of densities seen
    on glass, ``lowest`` to ``highest`` per channel, so that it does not run away where no glass was seen.
    """

    coefficients: tuple[tuple[float, ...], ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    def density(self, y: npt.ArrayLike, x: npt.ArrayLike) -> Array:
        """Density of glass (y, x, 3) at relative positions: ``y`` (rows) and ``x`` (columns) from 0 to 1."""
        v, u = np.meshgrid(2 * np.asarray(y) - 1, 2 * np.asarray(x) - 1, indexing="ij")
        field = _terms(u, v) @ np.asarray(self.coefficients, np.float64).T
        return np.clip(field, self.lowest, self.highest).astype(np.float32)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Glass:
        """The inverse of `dataclasses.asdict`, also after a way through JSON."""
        return cls(
            tuple(tuple(channel) for channel in values["coefficients"]),
            tuple(values["lowest"]),
            tuple(values["highest"]),
        )


def density(rgb: npt.NDArray[Any]) -> Array:
    """Optical density (..., 3) of RGB values 0 to 255, against pure white."""
    return -np.log10((rgb.astype(np.float32) + 1) / 256)


def strength(relative: Array) -> Array:
    """How much stain (...): the norm of a density (..., 3) relative to glass."""
    return np.asarray(np.sqrt((relative * relative).sum(-1)))


def fit_glass(od: Array, is_glass: Mask) -> Glass:
    """Fit the colour of glass to the pixels (y, x) that look like it, leaving out those that fit badly.

    ``od`` is the density (y, x, 3) against white. With too few pixels glass is taken as pure white.
    """
    rows, columns = np.nonzero(is_glass)
    if len(rows) < _FEWEST:
        return Glass(((0.0,) * 6,) * 3, (0.0,) * 3, (0.0,) * 3)
    picked = np.linspace(0, len(rows) - 1, min(_SAMPLES, len(rows))).astype(int)
    rows, columns = rows[picked], columns[picked]
    values = od[rows, columns].astype(np.float64)
    u = 2 * (columns + 0.5) / od.shape[1] - 1
    v = 2 * (rows + 0.5) / od.shape[0] - 1
    terms = _terms(u, v)
    keep = _near_median(values.sum(1), 6.0)
    coefficients = np.zeros((6, 3))
    for _ in range(_TRIMS):
        coefficients = np.linalg.lstsq(terms[keep], values[keep], rcond=None)[0]
        keep = _near_median((values - terms @ coefficients).sum(1), 3.0)
    lowest, highest = np.percentile(values[keep], [1, 99], axis=0)
    return Glass(tuple(map(tuple, coefficients.T.tolist())), tuple(lowest.tolist()), tuple(highest.tolist()))


def ink(relative: Array, texture: Array) -> Mask:
    """Pixels (y, x) whose colour is that of a pen: ``relative`` is their density (y, x, 3) relative to glass.

    Eosin takes green from the light, haematoxylin red and green alike, DAB blue most of all. So what takes least of
    green is green ink, and what takes most of red and hardly any blue is blue ink. Blue, red and black ink are told
    from counterstain, blood, pigment and folds by being even, too: regions of that colour count where they have an
    even core. ``texture`` (y, x) is the standard deviation of density in a small window.
    """
    red, green, blue = np.moveaxis(relative, -1, 0)
    most, least = relative.max(-1), relative.min(-1)
    dense = most > INK_DENSITY
    green_ink = dense & (green < 0.8 * red) & (green < 0.8 * blue)
    blue_ink = dense & (red > 1.12 * green) & (blue < 0.45 * red)
    red_ink = dense & (red < 0.3 * green) & (blue > 0.75 * green)
    black_ink = (least > 0.5) & (most < 1.35 * least)
    even = texture < 0.1 * strength(relative)
    found: Mask = green_ink
    for kind in (blue_ink, red_ink, black_ink):
        found |= ndimage.binary_propagation(kind & even, mask=kind)
    return found


def why_not_stained(rgb: npt.NDArray[np.uint8], tissue: Mask) -> str:
    """Why an overview (y, x, 3) is no stained tissue in transmitted light; empty where it is, or shows nothing.

    Fluorescence is dark where nothing is. Of a stain the densities of red, green and blue differ on the ``tissue``
    (y, x); noise does not count, as means over a few pixels are taken.
    """
    brightest, darkest = rgb.max(-1), rgb.min(-1)
    seen = np.asarray((brightest >= 255 - FILL) & (darkest <= FILL))
    if seen.sum() < _FEWEST:
        return ""
    dim = np.asarray(brightest < DIM)
    typical, glass = float(np.median(brightest[seen])), float(np.percentile(darkest[seen], 99))
    if typical < DIM or glass < DIM or (dim.mean() > 0.5 and dim[seen].mean() > 0.15):
        return (
            f"it is dark, as fluorescence is: at the median the brightest channel is {typical:.0f} of 255, in 99 % of "
            f"it the darkest is at most {glass:.0f}, and {dim.mean():.0%} are below {DIM} in all channels"
        )
    if tissue.sum() < _FEWEST:
        return ""
    od = density(rgb)
    field = fit_glass(od, seen & ~ndimage.binary_dilation(tissue, iterations=2))
    h, w = tissue.shape
    relative = od - field.density((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w)
    mean = np.stack([ndimage.uniform_filter(relative[..., channel], 5) for channel in range(3)], axis=-1)
    spread = float(np.percentile((mean.max(-1) - mean.min(-1))[tissue], 98))
    if spread < COLOURLESS:
        return (
            f"its tissue has no stain: red, green and blue differ in optical density by less than {spread:.3f}; stains "
            f"make it {COLOURLESS:g} and more"
        )
    return ""


def _terms(u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)


def _near_median(values: npt.NDArray[np.float64], times: float) -> Mask:
    """Values within some standard deviations (estimated from the quartiles' like, robustly) of the median."""
    off = np.abs(values - np.median(values))
    near: Mask = off <= max(times * 1.4826 * float(np.median(off)), 1e-3)
    return near

"""The spots of the captures: where they lie, how large they are, and what they measured of a gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.captures.stage import MOST_READ, dense_genes, on_mother, open_capture
from iscale.view.answers import rounded
from iscale.view.refused import RefusedError
from iscale.view.slide import Slide

MOST_SPOTS = 20_000
"""Spots that are sent at most: of more, evenly many are left out, and the page says so."""

CACHED = 32
"""Genes of captures whose counts are kept."""


@dataclass(frozen=True)
class Placed:
    """Spots of a capture on the slide.

    Attributes
    ----------
    xy_um
        (spot, 2).
    radius_um
        Of every spot.
    scale
        What its counts were multiplied by for the training.
    genes
        The names that it measured.
    """

    xy_um: NDArray[np.float64]
    radius_um: float
    scale: float
    genes: frozenset[str]


class Spots:
    """The captures of a run.

    Parameters
    ----------
    slide
        The slide.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._placed: dict[str, Placed] = {}
        self._counts: dict[tuple[str, str], NDArray[np.float32]] = {}

    def of_gene(self, capture: str, gene: str) -> dict[str, Any]:
        """Spots with their counts of a gene, and these as the map has them.

        The map's unit is expected counts per superpixel, so a spot's measured count, evened between captures as for
        the training, is divided by the superpixels of its disc.

        Raises
        ------
        RefusedError
            Where the capture is not there, has not measured the gene, or is too large to be searched from a page.
        """
        placed = self._place(capture)
        if gene not in placed.genes:
            raise RefusedError(404, f"{capture} has not measured {gene[:40]!r}.")
        counts = self._counted(capture, gene)
        cells = superpixels_of_disc(placed.radius_um / self._slide.superpixel_um)
        values = counts * placed.scale / cells
        kept = np.arange(0, len(counts), -(-len(counts) // MOST_SPOTS) or 1)
        return {
            "capture": capture,
            "gene": gene,
            "spots": len(counts),
            "radius_um": placed.radius_um,
            "superpixels": cells,
            "scale": rounded(placed.scale),
            "x": np.round(placed.xy_um[kept, 0], 2).tolist(),
            "y": np.round(placed.xy_um[kept, 1], 2).tolist(),
            "count": [rounded(float(v)) for v in counts[kept]],
            "value": [rounded(float(v)) for v in values[kept]],
        }

    def _group(self, capture: str) -> zarr.Group:
        if capture not in self._slide.captures():
            known = ", ".join(self._slide.captures()) or "none"
            raise RefusedError(404, f"There is no capture {capture[:40]!r}; this run has: {known}.")
        return zarr.open_group(self._slide.store.root, path=f"captures/{capture}", mode="r")

    def _place(self, capture: str) -> Placed:
        if capture not in self._placed:
            adata = open_capture(self._group(capture), counts=False)
            factors = adata.uns["spatial"][capture]
            training = self._slide.store.attributes("training")
            scales = dict(zip(training["captures"], training.get("capture_scale") or (), strict=False))
            self._placed[capture] = Placed(
                xy_um=on_mother(adata),
                radius_um=float(factors["metadata"]["spot_diameter_um"]) / 2,
                scale=float(scales.get(capture, 1.0)),
                genes=frozenset(str(name) for name in adata.var_names),
            )
        return self._placed[capture]

    def _counted(self, capture: str, gene: str) -> NDArray[np.float32]:
        key = (capture, gene)
        found = self._counts.pop(key, None)
        if found is None:
            group = self._group(capture)
            data = group["X/data"]
            if isinstance(data, zarr.Array) and data.shape[0] > MOST_READ:
                raise RefusedError(
                    413,
                    f"{capture} holds {data.shape[0]:,} counts, too many to be searched from a page: "
                    "iscale.open_run(PROJECT).captures reads them.",
                )
            found = dense_genes(group, [gene])[:, 0]
        self._counts[key] = found
        while len(self._counts) > CACHED:
            self._counts.pop(next(iter(self._counts)), None)
        return found


def superpixels_of_disc(radius: float) -> int:
    """Superpixels of a spot's disc, all (i, j) with i^2 + j^2 <= r^2, its radius in superpixels.

    >>> superpixels_of_disc(0.5), superpixels_of_disc(1.0), superpixels_of_disc(3.4375)
    (1, 5, 37)
    """
    reach = int(radius)
    i, j = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return int(np.count_nonzero(i**2 + j**2 <= radius**2))

"""What the page asks beside tiles: what the run has, genes by name, histograms, values under the cursor, spots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.captures.stage import MOST_READ, dense_genes, on_mother, open_capture
from iscale.geometry import Region
from iscale.plots.draw import COLOURS, SPREAD_COLOURS, colour_range
from iscale.store.lock import holder
from iscale.store.remedies import making
from iscale.store.run_store import RunStore
from iscale.view.planes import Planes
from iscale.view.query import RefusedError
from iscale.view.slide import GROUPS, SUPERPIXEL_LEVEL, Slide
from iscale.view.tiles import COLOUR_MAPS, hexadecimal, palette

MOST_NAMES = 50
"""Genes that a search gives at most."""

BINS = 64
"""Of a histogram."""

DIGITS = 6
"""Significant digits of values: stored ones have four."""


def about(slide: Slide) -> dict[str, Any]:
    """What the page needs to know of a run."""
    source = slide.source
    missing = [] if source else [("genes", "expression")]
    missing += [] if slide.has_cells else [("refined expression", "tissue/cells")]
    missing += [(group, group) for group in ("clusters", "annotation") if not slide.store.has(f"{group}/labels")]
    return {
        "name": _name(slide.store),
        "place": str(slide.store.place),
        "version": slide.version,
        "holder": "" if slide.store.url else holder(slide.store.folder),
        "missing": [f"no {what} yet ({making(slide.store, path)} makes it)" for what, path in missing],
        "outdated": [part for part in GROUPS if slide.store.has(part) and slide.store.outdated(part)],
        "shape_px": list(slide.zooms.shape_px),
        "content_px": list(slide.content_px),
        "pixel_um": slide.pixel_um,
        "superpixel_um": slide.superpixel_um,
        "finest": slide.zooms.finest,
        "finest_of_overlays": slide.zooms.coarsest_of_superpixels,
        "levels_to_superpixel": min(SUPERPIXEL_LEVEL, slide.zooms.finest),
        "genes": len(source.genes) if source else 0,
        "written": source.written if source else 0,
        "imputed": source.imputed if source else 0,
        "first_gene": source.genes[0] if source and source.genes else "",
        "refined": bool(source and slide.has_cells),
        "classes": [
            {"key": c.key, "title": c.title, "names": c.names, "colours": c.colours} for c in slide.classes.values()
        ],
        "captures": slide.captures(),
        "colour_maps": {name: hexadecimal(palette(name)[1:]) for name in COLOUR_MAPS},
        "default_map": {"gene": COLOURS, "refined": COLOURS, "uncertainty": SPREAD_COLOURS},
    }


def _name(store: RunStore) -> str:
    """A short name of the run: its project's folder."""
    if store.url:
        return store.url.rstrip("/").rsplit("/", 1)[-1]
    folder = store.folder.resolve()
    return folder.parent.name if folder.name == "iSCALE_output" else folder.name


class Search:
    """Genes by a part of their names, of which the first ``written`` are stored.

    >>> Search(("KRT5", "CD3E", "KRT14", "PKRT5"), 3).find("krt5")
    {'found': 2, 'genes': [{'name': 'KRT5', 'written': True}, {'name': 'PKRT5', 'written': False}]}
    """

    def __init__(self, genes: tuple[str, ...], written: int) -> None:
        self._genes, self._written = genes, written
        self._upper = [name.upper() for name in genes]

    def find(self, text: str, most: int = 20) -> dict[str, Any]:
        """Genes whose names hold a text, whatever its case: equal ones first, then those that begin with it."""
        sought = text.strip().upper()
        ranked = [
            (name != sought, not name.startswith(sought), i) for i, name in enumerate(self._upper) if sought in name
        ]
        genes = [
            {"name": self._genes[i], "written": i < self._written}
            for _, _, i in sorted(ranked)[: min(most, MOST_NAMES)]
        ]
        return {"found": len(ranked), "genes": genes}


def histogram(planes: Planes, quantity: str, gene: str) -> dict[str, Any]:
    """Distribution of a quantity over the slide's overview, and the range that colours have by default."""
    values = planes.overview(quantity, gene)
    return {"gene": gene, "quantity": quantity, **bins_of(values[np.isfinite(values)])}


def bins_of(there: NDArray[np.float32]) -> dict[str, Any]:
    """A histogram of values, from 0 or the least to the largest, and the quantiles between which colours run."""
    if not there.size:
        return {"n": 0, "counts": [], "low": 0.0, "high": 1.0, "from": 0.0, "to": 1.0, "mean": None}
    first, last = min(0.0, float(there.min())), float(there.max())
    last = last if last > first else first + 1.0
    counts, _ = np.histogram(there, BINS, (first, last))
    low, high = colour_range(there)
    return {
        "n": int(there.size),
        "counts": counts.tolist(),
        "low": rounded(first),
        "high": rounded(last),
        "from": rounded(low),
        "to": rounded(high),
        "mean": rounded(float(there.mean(dtype=np.float64))),
    }


def value_at(slide: Slide, planes: Planes, x_um: float, y_um: float, gene: str, second: str = "") -> dict[str, Any]:
    """What the superpixel at a position in um has of two genes, whose names may be empty, and of classes."""
    side = slide.superpixel_um
    row, column = int(np.floor(y_um / side)), int(np.floor(x_um / side))
    height, width = slide.shape
    if not (0 <= row < height and 0 <= column < width):
        raise RefusedError(
            404,
            f"({x_um:.0f}, {y_um:.0f}) \N{MICRO SIGN}m is off the slide, which is "
            f"{width * side:.0f} x {height * side:.0f} \N{MICRO SIGN}m.",
        )
    cell = Region(row, row + 1, column, column + 1)
    found: dict[str, Any] = {"x": x_um, "y": y_um, "row": row, "column": column}
    for key, name in (("gene", gene), ("second", second)):
        if name:
            quantities = ["gene", "uncertainty", *(["refined"] if slide.has_cells else [])]
            found[key] = {"name": slide.gene(name)} | {
                quantity: rounded(float(planes.values(quantity, name, cell, 1)[0, 0])) for quantity in quantities
            }
    numbers = {key: int(planes.classes(key, cell, 1)[0, 0]) for key in slide.classes}
    found["classes"] = {key: slide.classes[key].names[n - 1] if n else None for key, n in numbers.items()}
    found["tissue"] = bool(planes.array("tissue/mask")[row, column]) if slide.store.has("tissue/mask") else None
    return found


def rounded(value: float) -> float | None:
    """A value with a few significant digits, as JSON can hold it.

    >>> rounded(0.123456789), rounded(float("nan"))
    (0.123457, None)
    """
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


MOST_SPOTS = 20_000
"""Spots that are sent at most: of more, evenly many are left out, and the page says so."""

CACHED = 32
"""Genes of captures whose counts are kept."""


@dataclass(frozen=True)
class Placed:
    """Spots (spot, 2) of a capture on the slide, what its counts were multiplied by for the training, its genes."""

    xy_um: NDArray[np.float64]
    radius_um: float
    scale: float
    genes: frozenset[str]


class Spots:
    """The captures of a run."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self._placed: dict[str, Placed] = {}
        self._counts: dict[tuple[str, str], NDArray[np.float32]] = {}

    def of_gene(self, capture: str, gene: str) -> dict[str, Any]:
        """Spots with their counts of a gene, and these as the map has them; refused where there are too many to search.

        The map's unit is expected counts per superpixel, so a spot's measured count, evened between captures as for the
        training, is divided by the superpixels of its disc.
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

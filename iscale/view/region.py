"""A region drawn with the mouse: means of the run's imputed genes and of the one that is shown, and its histogram."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import Region
from iscale.store.layout import GENES_PER_SHARD, SHARD_SUPERPIXELS
from iscale.view.answers import bins_of, rounded
from iscale.view.planes import Planes
from iscale.view.query import RefusedError
from iscale.view.slide import Slide

MOST_CORNERS = 2000
MOST_VALUES = 1 << 30
"""Genes times superpixels, of whole shards, that are read for one region, and once for the rest of the slide."""

MOST_COMPUTED = 400
"""Shards of the rest of the slide for which a gene is computed that the run has not imputed: some seconds."""

Corners = NDArray[np.float64]
Parts = list[tuple[Region, NDArray[np.bool_]]]
"""Shards, and (y, x) which superpixels of each."""
Sums = tuple[int, NDArray[np.float64]]
"""Number of tissue superpixels, and (gene,) sums over them."""


class Regions:
    """Tables of regions of a slide."""

    def __init__(self, slide: Slide, planes: Planes) -> None:
        self._slide, self._planes = slide, planes
        self._whole: dict[Region, Sums] = {}
        self._last: tuple[bytes, dict[str, Any]] = b"", {}
        self._lock = threading.Lock()

    def table(self, corners: Any, quantity: str, gene: str, gone: Callable[[], bool]) -> dict[str, Any]:
        """Means in a polygon with corners (corner, 2) in um, and over the rest of the slide; the histogram of a gene.

        A superpixel is in it where its centre is. A gene that is not among the imputed is added to them. Refused where
        it is no polygon, holds no tissue, or needs too much to be read; ``gone`` tells whether nobody waits any more.
        """
        source, polygon = self._slide.genes(), checked(corners)
        genes = source.genes[: source.imputed]
        shards = self._shards(polygon)
        values = len(shards) * SHARD_SUPERPIXELS**2 * len(genes)
        if values > MOST_VALUES:
            raise RefusedError(
                413,
                f"The region touches {len(shards)} squares of {SHARD_SUPERPIXELS * self._slide.superpixel_um:,.0f} "
                f"\N{MICRO SIGN}m, with {len(genes):,} genes {values / 1e9:.1f} billion values; at most "
                f"{MOST_VALUES / 1e9:.1f} are read. Draw a smaller one.",
            )
        key = polygon.tobytes()
        last, means = self._last
        if last != key:  # the page asks again when another gene is shown
            means = self._means(shards, gone)
            self._last = key, means
        histogram = None
        if gene:
            shown = [self._planes.values(quantity, gene, shard, 1)[mask] for shard, mask in shards if not gone()]
            histogram = {"gene": gene, "quantity": quantity, **bins_of(_there(shown))}
            if gene not in genes:
                genes, means = (*genes, gene), self._with_one(means, gene, shards, gone)
        return means | {"genes": list(genes), "histogram": histogram}

    def _means(self, shards: Parts, gone: Callable[[], bool]) -> dict[str, Any]:
        """Means of all genes in the parts of shards that make up a region, and over the rest of the slide."""
        inside: dict[Region, Sums] = {}
        for shard, mask in shards:
            _stop(gone)
            inside[shard] = self._sums(shard, mask)
        n = sum(count for count, _ in inside.values())
        if not n:
            raise RefusedError(422, "There is no tissue in this region.")
        means = np.sum([sums for _, sums in inside.values()], axis=0) / n
        rest_n, rest, sampled = self._rest(inside, gone)
        return {
            "superpixels": n,
            "area_um2": rounded(n * self._slide.superpixel_um**2),
            "rest_superpixels": rest_n,
            "rest_is_sample": sampled,
            "mean": [rounded(v) for v in means],
            "rest": [rounded(v) for v in rest],
            "fold": [rounded(a / b) if b > 0 else None for a, b in zip(means, rest, strict=True)],
        }

    def _with_one(self, means: dict[str, Any], gene: str, shards: Parts, gone: Callable[[], bool]) -> dict[str, Any]:
        """The means, and after them those of a gene that is not imputed; pages of it are kept, as for tiles."""
        inside, sample = dict(shards), set(_thinned(self._with_tissue, MOST_COMPUTED))
        sums: dict[bool, list[float]] = {True: [0, 0], False: [0, 0]}
        for shard in {*inside, *sample}:
            _stop(gone)
            values, mask = self._planes.values("gene", gene, shard, 1), inside.get(shard)
            here = np.zeros(shard.shape, bool) if mask is None else mask
            for where, kept in ((True, here), (False, ~here)):
                if where or shard in sample:
                    there = values[kept & np.isfinite(values)]
                    sums[where][0] += there.size
                    sums[where][1] += float(there.sum(dtype=np.float64))
        mean, rest = (sums[where][1] / sums[where][0] if sums[where][0] else np.nan for where in (True, False))
        added = {"mean": rounded(mean), "rest": rounded(rest), "fold": rounded(mean / rest) if rest > 0 else None}
        sampled = means["rest_is_sample"] or len(sample) < len(self._with_tissue)
        return means | {name: [*means[name], value] for name, value in added.items()} | {"rest_is_sample": sampled}

    def _shards(self, polygon: Corners) -> Parts:
        """Shards that hold superpixels of a polygon, and (y, x) which of each."""
        side, (height, width) = self._slide.superpixel_um, self._slide.shape
        (x0, y0), (x1, y1) = np.floor(polygon.min(axis=0) / side), np.ceil(polygon.max(axis=0) / side)
        box = [int(np.clip(v, 0, n)) for v, n in ((y0, height), (y1, height), (x0, width), (x1, width))]
        if box[0] >= box[1] or box[2] >= box[3]:
            raise RefusedError(422, "The region lies off the slide.")
        within = Region(*box)
        found = []
        for shard in self._all_shards:
            if shard.y0 < within.y1 and within.y0 < shard.y1 and shard.x0 < within.x1 and within.x0 < shard.x1:
                mask = inside_of(polygon / side, shard)
                if mask.any():
                    found.append((shard, mask))
        return found

    @functools.cached_property
    def _all_shards(self) -> list[Region]:
        return list(Region(0, self._slide.shape[0], 0, self._slide.shape[1]).tiles(SHARD_SUPERPIXELS))

    @functools.cached_property
    def _with_tissue(self) -> list[Region]:
        tissue = self._planes.array("tissue/mask")
        return [shard for shard in self._all_shards if np.asarray(tissue[shard.slices]).any()]

    def _sums(self, shard: Region, mask: NDArray[np.bool_] | None) -> Sums:
        """Sums of the imputed genes over a shard, or a part of it."""
        source = self._slide.genes()
        tissue = np.asarray(self._planes.array("tissue/mask")[shard.slices])
        kept = tissue if mask is None else tissue & mask
        sums = np.zeros(source.imputed)
        if not kept.any():
            return 0, sums
        rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
        box = Region(
            shard.y0 + int(rows[0]),
            shard.y0 + int(rows[-1]) + 1,
            shard.x0 + int(columns[0]),
            shard.x0 + int(columns[-1]) + 1,
        )
        kept = kept[box.within(shard)]
        n = 0
        for start in range(0, source.imputed, GENES_PER_SHARD):
            names = source.genes[start : min(start + GENES_PER_SHARD, source.imputed)]
            values = source.read(names, box)[:, kept]
            there = np.isfinite(values)
            n = int(there[0].sum())
            sums[start : start + len(names)] = np.where(there, values, 0).sum(axis=1, dtype=np.float64)
        return n, sums

    def _rest(self, inside: dict[Region, Sums], gone: Callable[[], bool]) -> tuple[int, NDArray[np.float64], bool]:
        """Tissue superpixels outside of a region, means over them, and whether they are a sample.

        Sums of shards are kept: of all with tissue, or of evenly many where that is too much to read.
        """
        source = self._slide.genes()
        with self._lock:
            chosen = _thinned(self._with_tissue, MOST_VALUES // (SHARD_SUPERPIXELS**2 * max(1, source.imputed)))
            for shard in chosen:
                if shard not in self._whole:
                    _stop(gone)
                    self._whole[shard] = self._sums(shard, None)
        n, sums = 0, np.zeros(source.imputed)
        for shard in chosen:
            whole_n, whole = self._whole[shard]
            own_n, own = inside.get(shard, (0, np.zeros(source.imputed)))
            n, sums = n + whole_n - own_n, sums + whole - own
        rest = np.maximum(sums, 0) / n if n else np.full(source.imputed, np.nan)
        return n, rest, len(chosen) < len(self._with_tissue)


def checked(corners: Any) -> Corners:
    """Corners of a polygon, (corner, 2) in um; refused where they are none."""
    try:
        polygon = np.asarray(corners, np.float64)
    except (TypeError, ValueError):
        polygon = np.empty(0)
    if polygon.ndim != 2 or polygon.shape[1] != 2 or not np.isfinite(polygon).all():
        raise RefusedError(400, "A region is a list of corners, each [x, y] in um.")
    if not 3 <= len(polygon) <= MOST_CORNERS:
        raise RefusedError(400, f"A region has 3 to {MOST_CORNERS:,} corners; this one has {len(polygon):,}.")
    return polygon


def inside_of(polygon: Corners, window: Region) -> NDArray[np.bool_]:
    """Which cells of a window (y, x) have their centre in a polygon of x, y in cells; even-odd where it crosses itself.

    >>> inside_of(np.array([[0, 0], [2, 0], [2, 1], [0, 1.0]]), Region(0, 2, 0, 3)).astype(int).tolist()
    [[1, 1, 0], [0, 0, 0]]
    """
    x, rows = np.arange(window.x0, window.x1) + 0.5, np.arange(window.y0, window.y1) + 0.5
    inside = np.zeros(window.shape, bool)
    # A centre on the line between two regions is in one of them, which library functions do not promise.
    for (xa, ya), (xb, yb) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crossed = np.flatnonzero((ya > rows) != (yb > rows))
        if crossed.size:
            inside[crossed] ^= x < ((xb - xa) * (rows[crossed] - ya) / (yb - ya) + xa)[:, None]
    return inside


def _thinned(shards: list[Region], most: int) -> list[Region]:
    """At most so many shards, but one, evenly through all."""
    return shards[:: max(1, -(-len(shards) // max(1, most)))]


def _there(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return np.asarray(values[np.isfinite(values)])


def _stop(gone: Callable[[], bool]) -> None:
    if gone():
        raise RefusedError(499, "Nobody waits for this region any more.")

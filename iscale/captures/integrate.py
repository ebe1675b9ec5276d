"""From captures to training spots: shared genes, one depth, the most variable genes, near spots merged (method, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from iscale.captures.agreement import agreements
from iscale.captures.counts import Counts, blocks
from iscale.captures.merge import merge_labels, spatial_subsample
from iscale.captures.spots import MOST_SPOTS, Capture, TrainingSpots
from iscale.captures.stacked import StackedSpots, excess_variance, scaled_variance, stack
from iscale.errors import InputError
from iscale.words import similar_names

CLEAR_DIFFERENCE = 1.5
"""Captures whose median depths differ by less than this factor are left as measured: tissue differs by as much."""


def capture_scales(
    depth: NDArray[np.float64], capture: NDArray[np.int64], radius_um: NDArray[np.float64], n_captures: int
) -> NDArray[np.float64]:
    """(capture,) what the counts of each capture are to be multiplied by; all 1 where depths do not differ clearly.

    ``depth`` (spot,) is that of the genes that captures share. Spots of different radius differ in depth without
    differing in sensitivity. Empty spots do not count, empty captures have 1.
    """
    rate, total = np.full(n_captures, np.nan), np.zeros(n_captures)
    for index in range(n_captures):
        at = (capture == index) & (depth > 0)
        if at.any():
            rate[index], total[index] = np.median(depth[at] / radius_um[at] ** 2), depth[at].sum()
    known = total > 0
    if known.sum() < 2 or np.nanmax(rate) < CLEAR_DIFFERENCE * np.nanmin(rate):
        return np.ones(n_captures)
    common = total.sum() / (total[known] / rate[known]).sum()
    return np.where(known, common / np.where(known, rate, 1.0), 1.0)


def depth_notices(
    names: Sequence[str], scale: NDArray[np.float64], capture: NDArray[np.int64], depth: NDArray[np.float64]
) -> tuple[str, ...]:
    """What to tell the user: nothing, or one sentence with the factors and the (spot,) depths as measured."""
    if (scale == 1).all():
        return ()
    factors = ", ".join(
        f"{name} by {factor:.3g} (median depth {np.median(depth[capture == i]) if (capture == i).any() else 0:,.0f})"
        for i, (name, factor) in enumerate(zip(names, scale, strict=True))
    )
    return (f"The captures differ in depth: counts were multiplied, those of {factors}.",)


LEAST_SPOTS = 16
"""A batch of the published recipe is a sixteenth of the spots: with fewer than 16 there is none."""


def to_one_depth(stacked: StackedSpots) -> StackedSpots:
    """Set the scale of each capture so that median depths are equal, where they differ clearly."""
    scale = capture_scales(stacked.depth, stacked.capture, stacked.radius_um, len(stacked.captures))
    return replace(stacked, scale=scale)


def choose_genes(stacked: StackedSpots, captures: Sequence[Capture], n_genes: int, named: Sequence[str]) -> list[int]:
    """Columns of the ``n_genes`` most variable genes, then of the ones that the user named besides.

    Variance is that of the counts, less what multiplying them added to it. Genes with the same count in every spot are
    never among the most variable, so there may be fewer than ``n_genes``. An InputError where a named gene was not
    measured by all captures, or never varies.
    """
    variance = scaled_variance(stacked.moments, stacked.scale)
    ranked = variance - excess_variance(stacked.moments, stacked.scale)
    order = np.argsort(-ranked, kind="stable")
    chosen = [int(i) for i in order[:n_genes] if variance[i] > 0 and ranked[i] > 0]
    column = {gene: i for i, gene in enumerate(stacked.genes)}
    for gene in named:
        if gene not in column:
            raise _gene_not_shared(gene, captures)
        if variance[column[gene]] == 0:
            raise InputError(
                f"The gene {gene!r} that you named has the same count in all {len(stacked.capture)} spots.",
                "Nothing can be learned of it: take it off the list.",
            )
    return list(dict.fromkeys([*chosen, *(column[gene] for gene in named)]))


def _gene_not_shared(gene: str, captures: Sequence[Capture]) -> InputError:
    without = [capture.name for capture in captures if gene not in capture.genes]
    if len(without) < len(captures):
        return InputError(
            f"The gene {gene!r} that you named was not measured in {', '.join(without)}.",
            "Only genes that all captures measured can be imputed: leave out the gene, or these captures.",
        )
    close = similar_names(gene, (name for capture in captures for name in capture.genes))
    return InputError(
        f"The gene {gene!r} that you named is in none of the {len(captures)} captures.",
        f"Similar names: {', '.join(close)}." if close else "No name in the captures is similar.",
    )


def integrate(
    captures: Sequence[Capture],
    *,
    n_genes: int,
    extra_genes: Sequence[str] = (),
    dist_st_px: float,
    analysis_shape_px: tuple[int, int],
    pixel_size_um: float,
    normalise: bool = True,
) -> TrainingSpots:
    """Stack captures, choose genes and merge spots that are nearer to each other than ``dist_st_px``.

    Captures whose median depths differ clearly are brought to one depth first, by a factor per capture
    (`to_one_depth`); the notices tell it, and ``capture_scale`` keeps it. They also tell how far captures
    agree where they overlap (:mod:`iscale.captures.agreement`).

    A merged spot has the mean location and mean raw counts of its members. The published method takes the mean of
    counts scaled to [0, 1] per gene over all spots; that scaling is affine and the same for all spots, so it commutes
    with the mean, and the model applies it later. Only spots of the same radius are merged: counts of discs of
    different area have no meaningful mean. See ``iscale.captures.merge`` for dense captures. Merged spots nearer to the
    border of the image than their radius are dropped.

    Parameters
    ----------
    captures
        The captures, at least one.
    n_genes
        Number of most variable genes.
    extra_genes
        Genes that the user wants besides.
    dist_st_px
        Distance below which spots are merged, in pixels of the analysis image.
    analysis_shape_px
        Height and width of the analysis image.
    pixel_size_um
        Side of an analysis pixel, in um.
    normalise
        Whether to bring captures to one depth; the published method does not.

    Raises
    ------
    InputError
        Where captures share no gene, a named gene is missing, or fewer than 16 spots are left.
    """
    stacked = stack(captures)
    if normalise:
        stacked = to_one_depth(stacked)
    chosen = choose_genes(stacked, captures, n_genes, extra_genes)
    labels = _labels_by_radius(stacked, dist_st_px)
    merged = _merged_spots(stacked, labels)
    inside = np.flatnonzero(_clear_of_border(merged, analysis_shape_px, pixel_size_um))
    n_measured, n_merged, n_inside = len(labels), len(merged.depth), len(inside)
    if n_inside < LEAST_SPOTS:
        raise InputError(
            f"Only {n_inside} training spots: {n_measured} measured, {n_merged} after merging within {dist_st_px:g} "
            f"px, {n_merged - n_inside} of these nearer to the border than their radius.",
            f"At least {LEAST_SPOTS} are needed to train. Add captures, or merge less (--dist-st).",
        )
    kept = inside[spatial_subsample(merged.xy_px[inside], merged.capture[inside], MOST_SPOTS)]
    agreement = agreements(stacked, stacked.xy_px * pixel_size_um)
    notices: tuple[str, ...] = (
        f"{n_measured} spots of {len(captures)} captures became {n_inside} training spots: {n_merged} after merging "
        f"within {dist_st_px:g} px, {n_merged - n_inside} dropped at the border.",
        *depth_notices(stacked.captures, stacked.scale, stacked.capture, stacked.depth),
        *(pair.sentence for pair in agreement),
    )
    if len(kept) < n_inside:
        notices += (
            f"{len(kept)} of the {n_inside} training spots are trained on, spread evenly over places and captures. "
            f"Merge more with --dist-st, now {dist_st_px:g} px, to use the counts of all.",
        )
    if n_merged < n_measured / len(captures) / 2:
        notices += (
            f"Warning: merging within {dist_st_px:g} px ({dist_st_px * pixel_size_um:g} um) left {n_merged} of "
            f"{n_measured} spots: it is wider than the distance of neighbours. Merge less with --dist-st, in pixels.",
        )
    slot = np.full(n_merged, -1)
    slot[kept] = np.arange(len(kept))
    columns = _chosen_columns(stacked, chosen)
    return TrainingSpots(
        genes=tuple(stacked.genes[i] for i in chosen),
        counts=mean_counts(stacked.tables, columns, stacked.scale.tolist(), slot[labels], len(kept), len(chosen)),
        depth=merged.depth[kept].astype(np.float32),
        xy_px=merged.xy_px[kept],
        radius_um=merged.radius_um[kept],
        capture=merged.capture[kept],
        captures=stacked.captures,
        notices=notices,
        capture_scale=tuple(stacked.scale.tolist()),
        agreement=tuple(pair.as_dict() for pair in agreement),
        shared_genes=stacked.genes,
        slot=slot[labels],
    )


def _labels_by_radius(stacked: StackedSpots, dist_px: float) -> NDArray[np.int64]:
    """Merge labels, those of different radii distinct; in order of the first member."""
    labels = np.empty(len(stacked.xy_px), dtype=np.int64)
    used = 0
    for radius in np.unique(stacked.radius_um):
        same = stacked.radius_um == radius
        labels[same] = merge_labels(stacked.xy_px[same], dist_px) + used
        used = int(labels[same].max()) + 1
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


@dataclass(frozen=True)
class _Merged:
    """Merged spots without their counts: mean depth and place, radius, and capture of origin (-1: several)."""

    depth: NDArray[np.float64]
    xy_px: NDArray[np.float64]
    radius_um: NDArray[np.float64]
    capture: NDArray[np.int64]


def _merged_spots(stacked: StackedSpots, labels: NDArray[np.int64]) -> _Merged:
    size = np.bincount(labels)
    share = (1 / size)[labels]
    depth = stacked.depth * stacked.scale[stacked.capture]
    first = np.full(len(size), len(stacked.captures))
    last = np.full(len(size), -1)
    np.minimum.at(first, labels, stacked.capture)
    np.maximum.at(last, labels, stacked.capture)
    radius = np.empty(len(size))
    radius[labels] = stacked.radius_um
    return _Merged(
        depth=_sums(labels, share * depth),
        xy_px=np.column_stack([_sums(labels, share * at) for at in stacked.xy_px.T]),
        radius_um=radius,
        capture=np.where(first == last, first, -1).astype(np.int64),
    )


def _sums(labels: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.bincount(labels, values), np.float64)


def _chosen_columns(stacked: StackedSpots, genes: list[int]) -> list[NDArray[np.int64]]:
    """Per capture (own gene,) which of the chosen shared genes it is; -1 is none."""
    of_shared = np.full(len(stacked.genes), -1)
    of_shared[genes] = np.arange(len(genes))
    places = []
    for table, columns in zip(stacked.tables, stacked.columns, strict=True):
        place = np.full(table.shape[1], -1)
        place[slice(None) if columns is None else columns] = of_shared
        places.append(place)
    return places


def _clear_of_border(spots: _Merged, shape_px: tuple[int, int], pixel_size_um: float) -> NDArray[np.bool_]:
    radius = (spots.radius_um / pixel_size_um)[:, None]
    return np.asarray(np.all((spots.xy_px >= radius) & (spots.xy_px <= np.array(shape_px[::-1]) - radius), axis=1))


def mean_counts(
    tables: Sequence[Counts],
    places: Sequence[NDArray[np.int64]],
    scales: Sequence[float],
    slot: NDArray[np.int64],
    n_slots: int,
    n_genes: int,
) -> NDArray[np.float32]:
    """(slot, gene) float32 means of the scaled counts of the spots that go into each slot.

    Counts are added one by one in the order of the spots, so the sums do not depend on how these are cut into blocks.

    Parameters
    ----------
    tables, places, scales
        Per capture its (spot, own gene) counts; (own gene,) which of the genes it is, -1 is none; its factor.
    slot
        (spot,) of all captures, one after the other; -1 is none.
    """
    sums = np.zeros(n_slots * n_genes, np.float32)
    first = 0
    for counts, place, scale in zip(tables, places, scales, strict=True):
        own = slot[first : first + counts.shape[0]]
        first += counts.shape[0]
        for spots, block in blocks(counts):
            row, column = np.repeat(own[spots], np.diff(block.indptr)), place[block.indices]
            known = (row >= 0) & (column >= 0)
            values = (block.data[known].astype(np.float64) * scale).astype(np.float32)
            np.add.at(sums, row[known] * n_genes + column[known], values)
    means = sums.reshape(n_slots, n_genes)
    means /= np.bincount(slot[slot >= 0], minlength=n_slots)[:, None].astype(np.float32)
    return means

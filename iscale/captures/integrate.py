"""From captures to training spots: shared genes, one depth, the most variable genes, near spots merged (method, 3)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.agreement import agreements
from iscale.captures.depth import capture_scales, excess_variance, multiplied, told
from iscale.captures.merge import merge_labels
from iscale.captures.spots import Capture, TrainingSpots
from iscale.errors import InputError

LEAST_SPOTS = 16
"""A batch of the published recipe is a sixteenth of the spots: with fewer than 16 there is none."""


@dataclass(frozen=True)
class StackedSpots:
    """Spots of all captures over the genes that they share, one below the other.

    Attributes
    ----------
    genes
        (gene,) names, in the order of the first capture.
    counts
        (spot, gene) float32, CSR.
    xy_px
        (spot, 2) float64: x, y in pixels of the analysis image.
    radius_um
        (spot,) float64.
    capture
        (spot,) int64: index in ``captures``.
    captures
        Names of the captures.
    scale
        (capture,) float64: what the counts of each capture were multiplied by.
    """

    genes: tuple[str, ...]
    counts: sparse.csr_matrix
    xy_px: NDArray[np.float64]
    radius_um: NDArray[np.float64]
    capture: NDArray[np.int64]
    captures: tuple[str, ...]
    scale: NDArray[np.float64]

    @property
    def depth(self) -> NDArray[np.float64]:
        """(spot,) counts of all genes."""
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64)).reshape(-1)


def stack(captures: Sequence[Capture]) -> StackedSpots:
    """Stack captures over the genes that all of them measured.

    Raises
    ------
    InputError
        Where they share no gene.
    """
    shared = set(captures[0].genes).intersection(*(capture.genes for capture in captures[1:]))
    if not shared:
        raise _no_shared_gene(captures)
    genes = tuple(gene for gene in captures[0].genes if gene in shared)
    blocks = []
    for capture in captures:
        column = {gene: i for i, gene in enumerate(capture.genes)}
        blocks.append(sparse.csr_matrix(capture.counts[:, [column[gene] for gene in genes]]))
    sizes = [len(capture.spot_ids) for capture in captures]
    return StackedSpots(
        genes=genes,
        counts=sparse.csr_matrix(sparse.vstack(blocks, format="csr")),
        xy_px=np.concatenate([capture.xy_px for capture in captures]),
        radius_um=np.repeat([capture.radius_um for capture in captures], sizes),
        capture=np.repeat(np.arange(len(captures)), sizes),
        captures=tuple(capture.name for capture in captures),
        scale=np.ones(len(captures)),
    )


def to_one_depth(stacked: StackedSpots) -> StackedSpots:
    """Multiply the counts of each capture so that median depths are equal, where they differ clearly."""
    scale = capture_scales(stacked.counts, stacked.capture, stacked.radius_um, len(stacked.captures))
    if (scale == 1).all():
        return stacked
    return replace(stacked, counts=multiplied(stacked.counts, scale[stacked.capture]), scale=scale)


def _no_shared_gene(captures: Sequence[Capture]) -> InputError:
    shown = "; ".join(f"{c.name} has {len(c.genes)}: {', '.join(c.genes[:3])} ..." for c in captures)
    ensembl = {bool(re.match(r"ENS[A-Z]*G\d+", capture.genes[0])) for capture in captures}
    upper = {capture.genes[0].isupper() for capture in captures}
    hint = "Name genes the same way in all captures"
    if len(ensembl) == 2:
        hint = "Some captures name genes by Ensembl id, others by symbol: use one of the two in all"
    elif len(upper) == 2:
        hint = "Some captures write gene symbols in capitals (human), others not (mouse): use one way in all"
    return InputError(f"The {len(captures)} captures share no gene ({shown}).", f"{hint}.")


def gene_variance(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    """Variance of every gene's raw counts over all spots, without a dense array.

    Parameters
    ----------
    counts
        (spot, gene).

    Returns
    -------
    variance
        (gene,) float64.
    """
    n_spots = counts.shape[0]
    columns, values = counts.indices, counts.data.astype(np.float64)
    n_genes = counts.shape[1]
    mean = np.bincount(columns, values, n_genes) / n_spots
    stored = np.bincount(columns, minlength=n_genes)
    squares = np.bincount(columns, (values - mean[columns]) ** 2, n_genes) + (n_spots - stored) * mean**2
    return np.asarray(squares / n_spots)


def choose_genes(stacked: StackedSpots, captures: Sequence[Capture], n_genes: int, named: Sequence[str]) -> list[int]:
    """Columns of the ``n_genes`` most variable genes, then of the ones that the user named besides.

    Variance is that of the counts, less what multiplying them added to it. Genes with the same count in every spot are
    never among the most variable, so there may be fewer than ``n_genes``.

    Raises
    ------
    InputError
        Where a named gene was not measured by all captures, or never varies.
    """
    variance = gene_variance(stacked.counts)
    ranked = variance - excess_variance(stacked.counts, stacked.scale[stacked.capture])
    order = np.argsort(-ranked, kind="stable")
    chosen = [int(i) for i in order[:n_genes] if variance[i] > 0 and ranked[i] > 0]
    column = {gene: i for i, gene in enumerate(stacked.genes)}
    for gene in named:
        if gene not in column:
            raise _gene_not_shared(gene, captures)
        if variance[column[gene]] == 0:
            raise InputError(
                f"The gene {gene!r} that you named has the same count in all {stacked.counts.shape[0]} spots.",
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
    known = {name.upper(): name for capture in captures for name in capture.genes}
    close = [known[name] for name in difflib.get_close_matches(gene.upper(), known, n=3)]
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
    (:mod:`iscale.captures.depth`); the notices tell it, and ``capture_scale`` keeps it. They also tell how far captures
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
    measured = stack(captures)
    stacked = to_one_depth(measured) if normalise else measured
    chosen = choose_genes(stacked, captures, n_genes, extra_genes)
    labels = _labels_by_radius(stacked, dist_st_px)
    merged = _merge(stacked, chosen, labels)
    inside = _clear_of_border(merged, analysis_shape_px, pixel_size_um)
    n_measured, n_merged, n_inside = len(labels), len(inside), int(inside.sum())
    if n_inside < LEAST_SPOTS:
        raise InputError(
            f"Only {n_inside} training spots: {n_measured} measured, {n_merged} after merging within {dist_st_px:g} "
            f"px, {n_merged - n_inside} of these nearer to the border than their radius.",
            f"At least {LEAST_SPOTS} are needed to train. Add captures, or merge less (--dist-st).",
        )
    agreement = agreements(
        measured.counts, measured.xy_px * pixel_size_um, measured.radius_um, measured.capture, measured.captures
    )
    notices: tuple[str, ...] = (
        f"{n_measured} spots of {len(captures)} captures became {n_inside} training spots: {n_merged} after merging "
        f"within {dist_st_px:g} px, {n_merged - n_inside} dropped at the border.",
        *told(measured.captures, stacked.scale, measured.capture, measured.depth),
        *(pair.sentence for pair in agreement),
    )
    if n_merged < n_measured / len(captures) / 2:
        notices += (
            f"Warning: merging within {dist_st_px:g} px ({dist_st_px * pixel_size_um:g} um) left {n_merged} of "
            f"{n_measured} spots: it is wider than the distance of neighbours. Merge less with --dist-st, in pixels.",
        )
    return TrainingSpots(
        genes=merged.genes,
        counts=merged.counts[inside],
        depth=merged.depth[inside],
        xy_px=merged.xy_px[inside],
        radius_um=merged.radius_um[inside],
        capture=merged.capture[inside],
        captures=merged.captures,
        notices=notices,
        capture_scale=tuple(stacked.scale.tolist()),
        agreement=tuple(pair.as_dict() for pair in agreement),
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


def _merge(stacked: StackedSpots, genes: list[int], labels: NDArray[np.int64]) -> TrainingSpots:
    size = np.bincount(labels)
    share = (1 / size)[labels]
    mean = sparse.csr_matrix((share, (labels, np.arange(len(labels)))), shape=(len(size), len(labels)))
    first = np.full(len(size), len(stacked.captures))
    last = np.full(len(size), -1)
    np.minimum.at(first, labels, stacked.capture)
    np.maximum.at(last, labels, stacked.capture)
    radius = np.empty(len(size))
    radius[labels] = stacked.radius_um
    counts = sparse.csr_matrix(mean @ stacked.counts[:, genes].astype(np.float64))
    return TrainingSpots(
        genes=tuple(stacked.genes[i] for i in genes),
        counts=counts.astype(np.float32).toarray(),
        depth=np.asarray(mean @ stacked.depth, dtype=np.float32),
        xy_px=np.asarray(mean @ stacked.xy_px),
        radius_um=radius,
        capture=np.where(first == last, first, -1).astype(np.int64),
        captures=stacked.captures,
    )


def _clear_of_border(spots: TrainingSpots, shape_px: tuple[int, int], pixel_size_um: float) -> NDArray[np.bool_]:
    radius = (spots.radius_um / pixel_size_um)[:, None]
    return np.asarray(np.all((spots.xy_px >= radius) & (spots.xy_px <= np.array(shape_px[::-1]) - radius), axis=1))

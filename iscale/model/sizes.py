"""What fits and ensembles take, known before there is one: arithmetic for plans, which needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from iscale.model.discs import MOST_ROWS
from iscale.store.layout import FILE_GENES

STATES = 5
"""Independent models of an ensemble."""

HELD_OUT_FRACTION = 0.1
SCORED_GENES = 256
"""Genes of which values are held in float64 several times, and of all rows of a block of spots."""

SPOT_BLOCK = 1024
"""Spots of which all genes, or all columns of the design in float64, are held at a time."""
RANDOM_FEATURES = 128
MAX_ANCHORS = 512
FACTORS = 32
"""Directions of variation of the genes over the spots, at most."""

EVERY_GENE_BYTES = 64 * 2**20
"""Of a block of genes that are regressed on the factors: counts, logarithms, and what is made of them."""

HIDDEN_LAYERS, HIDDEN_WIDTH = 4, 256
"""Of the published network."""
MAX_BATCH = 128


@dataclass(frozen=True)
class FitSize:
    """What the memory of a fit depends on: how many there are of each, and the superpixels of the largest disc."""

    spots: int
    genes: int
    features: int
    states: int
    captures: int
    most_rows: int


@dataclass(frozen=True)
class RecipeSizes:
    """What a recipe takes.

    Attributes
    ----------
    embedding_width
        Components of the gene embedding; where an ensemble has fewer, the last are 0.
    hidden_width
        Numbers per superpixel and state of what an ensemble's ``hidden`` gives, at most.
    factors
        Of these, the factors that every gene can be computed from; 0 where only a training gives a gene.
    fit_bytes
        Peak bytes of training and scoring, without the counts and, of the rows, all but those of a block.
    """

    embedding_width: int
    hidden_width: int
    factors: int
    fit_bytes: Callable[[FitSize], int]

    def hidden_bytes(self, n_states: int = STATES) -> int:
        """Bytes per superpixel of what an ensemble's ``hidden`` gives, at most."""
        return 4 * n_states * self.hidden_width


def batch_size(n_spots: int) -> int:
    """Spots of a batch of the published training, as published."""
    return max(1, min(MAX_BATCH, n_spots // 16))


def _default_fit_bytes(size: FitSize) -> int:
    """Peak bytes of a fit by the default recipe.

    The design and the spots' factors stay; beside them comes the decomposition of genes, that of the design's columns,
    or a block of rows. Without the design, afterwards: a block of the genes that were not trained on.
    """
    anchors = min(MAX_ANCHORS, size.spots)
    columns = size.features + RANDOM_FEATURES + anchors + size.captures
    design = 4 * size.spots * (columns + (size.states - 1) * RANDOM_FEATURES)
    factors = 8 * size.spots * (2 * FACTORS + 4 * size.states)
    side = min(size.spots, size.genes)
    rooted = 4 * size.spots * size.genes if size.spots <= size.genes else 0
    of_genes = rooted + 36 * side**2 + 4 * 4 * min(SPOT_BLOCK, size.spots) * size.genes
    width = 2 * size.features + size.states * (2 * RANDOM_FEATURES + 2 * FACTORS) + anchors
    of_rows = 4 * max(MOST_ROWS, size.most_rows) * width
    of_others = EVERY_GENE_BYTES + 2 * 4 * size.spots * FILE_GENES
    return factors + max(design + max(of_genes, _ridge_bytes(size.spots, columns), of_rows), of_others)


def _ridge_bytes(n_spots: int, n_columns: int) -> int:
    """Peak bytes of :func:`iscale.model.default.fit_ridge`, beside the design, the weights and the targets."""
    square = 8 * n_columns**2  # the decomposition's result is one, its workspace two
    block = 8 * min(SPOT_BLOCK, n_spots) * 4 * (n_columns + FACTORS)
    return max(4 * square, square + block)


def _published_fit_bytes(size: FitSize) -> int:
    """Peak bytes of a fit by the published recipe.

    Weights, gradients and two moments of each; the activations of a batch, of one state at a time.
    """
    outputs = size.genes + 1
    widths = (size.features, *[HIDDEN_WIDTH] * HIDDEN_LAYERS, outputs)
    weights = 4 * size.states * sum((a + 1) * b for a, b in pairwise(widths))
    batch = batch_size(size.spots)
    rows = 4 * batch * size.most_rows * (2 * size.features + (HIDDEN_LAYERS + 2) * HIDDEN_WIDTH + 2 * outputs + batch)
    return 4 * weights + rows + 4 * 3 * batch * outputs


SIZES: Mapping[str, RecipeSizes] = {
    "default": RecipeSizes(FACTORS, FACTORS + 1, FACTORS, _default_fit_bytes),
    "published": RecipeSizes(HIDDEN_WIDTH, HIDDEN_WIDTH, 0, _published_fit_bytes),
}
"""What each recipe takes, by its name."""

"""Shapes of arrays, read chunks and write shards: pure arithmetic.

A *shard* is one file and the unit of writing: a task owns whole shards. A *chunk* is the unit of reading inside a
shard. Shards of all superpixel arrays lie on one lattice, so that a task of any stage owns whole shards of all that it
writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, prod

from iscale.geometry import SUPERPIXEL_PX

SHARD_SUPERPIXELS = 128
"""Side of a write shard of features and expression, in superpixels."""

SHARD_PX = SHARD_SUPERPIXELS * SUPERPIXEL_PX
"""Side of a write shard of the image, in pixels: the same place on the slide."""

MASK_SHARD_SUPERPIXELS = 512
"""Side of a write shard of the tissue mask, whose superpixels are a byte each."""

GENES_PER_SHARD = 512
"""Genes that share a file: keeps a slide with 3,000 genes at tens of thousands of files."""

FILE_GENES = 256
"""Genes of which counts of all spots share a file, which is read whole."""

GENES_PER_CHUNK = 8
"""Genes read together: a compromise between one gene over the slide and all genes in a window (docs/benchmarks.md)."""

COARSE_STEP = 4
"""Superpixels a side of the blocks that factors are averaged over, for overviews."""

SMALLEST_LEVEL_PX = 512
"""The pyramid ends at the first level whose longer side is at most this."""


@dataclass(frozen=True)
class ArrayLayout:
    """An array of the store before it exists.

    Attributes
    ----------
    path
        Inside the store.
    dims, shape, dtype
        Names of the axes, their lengths, and the NumPy type.
    chunks, shards
        Read chunk and write shard, in elements per axis; a shard is whole chunks.
    fill
        Value of what was never written.
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    fill: float = 0

    @property
    def files(self) -> int:
        """Most files the array can have: one per shard."""
        return prod(ceil(n / s) for n, s in zip(self.shape, self.shards, strict=True)) + 1

    @property
    def bytes(self) -> int:
        """Bytes of the array before compression."""
        sizes = {"uint8": 1, "bool": 1, "float16": 2, "float32": 4}
        return prod(self.shape) * sizes[self.dtype]


def level_shapes(shape_px: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Heights and widths of the pyramid's levels, each half of the one before.

    >>> level_shapes((1024, 2304))
    ((1024, 2304), (512, 1152), (256, 576), (128, 288))
    """
    shapes = [shape_px]
    while max(shapes[-1]) > SMALLEST_LEVEL_PX:
        h, w = shapes[-1]
        shapes.append((ceil(h / 2), ceil(w / 2)))
    return tuple(shapes)


def image_level(level: int, shape: tuple[int, int]) -> ArrayLayout:
    """A level of the image pyramid: (c=3, y, x) uint8, white where not written."""
    return _stack(f"image/{level}", "c", 3, shape, chunk=(3, 512), shard=(3, SHARD_PX), dtype="uint8", fill=255)


def mask(path: str, shape: tuple[int, int]) -> ArrayLayout:
    """A yes or no per superpixel: (y, x) bool."""
    side = MASK_SHARD_SUPERPIXELS
    return ArrayLayout(path, ("y", "x"), shape, "bool", (SHARD_SUPERPIXELS, SHARD_SUPERPIXELS), (side, side))


def features(group: str, n_features: int, shape: tuple[int, int], stride: int) -> ArrayLayout:
    """A feature group on its lattice: (feature, y, x) float16, NaN off tissue."""
    side, chunk = SHARD_SUPERPIXELS // stride, min(64, n_features)
    shard = ceil(n_features / chunk) * chunk
    lattice = _lattice(shape, stride)
    return _stack(f"features/{group}", "feature", n_features, lattice, chunk=(chunk, side // 2), shard=(shard, side))


def vectors(width: int, shape: tuple[int, int], step: int) -> ArrayLayout:
    """Vectors of a lattice's patches, in the cell in which each begins: (feature, y, x) float32, NaN where none."""
    side, lattice = SHARD_SUPERPIXELS // step, _lattice(shape, step)
    chunk, shard = (width, side // 2), (width, side)
    return _stack("features/vectors", "feature", width, lattice, chunk=chunk, shard=shard, dtype="float32")


def genes(path: str, n_genes: int, shape: tuple[int, int]) -> ArrayLayout:
    """A value per gene and superpixel: (gene, y, x) float16, NaN off tissue.

    >>> layout = genes("expression/expression", 3000, (6272, 6272))
    >>> layout.chunks, layout.shards, layout.files
    ((8, 128, 128), (512, 128, 128), 14407)
    """
    side, chunk = SHARD_SUPERPIXELS, min(GENES_PER_CHUNK, n_genes)
    shard = min(GENES_PER_SHARD, ceil(n_genes / chunk) * chunk)
    return _stack(path, "gene", n_genes, shape, chunk=(chunk, side), shard=(shard, side))


def genes_by_chunk(numbers: Sequence[int], per_chunk: int = GENES_PER_CHUNK) -> Iterator[list[int]]:
    """Places in a list of genes' numbers, those together whose maps share chunks, by ascending number.

    >>> list(genes_by_chunk([9, 0, 3]))
    [[1, 2], [0]]
    """
    places = sorted(range(len(numbers)), key=numbers.__getitem__)
    for _, together in groupby(places, key=lambda place: numbers[place] // per_chunk):
        yield list(together)


def embedding(n_components: int, shape: tuple[int, int]) -> ArrayLayout:
    """The gene embedding: (component, y, x) float16, NaN off tissue; chunks small, as it is read with a halo.

    >>> layout = embedding(32, (6272, 6272))
    >>> layout.chunks, layout.shards, layout.files
    ((32, 32, 32), (32, 128, 128), 2402)
    """
    chunk, shard = (n_components, SHARD_SUPERPIXELS // 4), (n_components, SHARD_SUPERPIXELS)
    return _stack("embedding/embedding", "component", n_components, shape, chunk=chunk, shard=shard)


def factors(n_components: int, shape: tuple[int, int]) -> tuple[ArrayLayout, ArrayLayout]:
    """What genes are computed from, at superpixels and averaged: (component, y, x) float16 each, NaN off tissue.

    >>> [(layout.chunks, layout.shards, layout.files) for layout in factors(160, (6272, 6272))]
    [((160, 64, 64), (160, 128, 128), 2402), ((160, 32, 32), (160, 32, 32), 2402)]
    """
    n, side, coarse = n_components, SHARD_SUPERPIXELS, (n_components, SHARD_SUPERPIXELS // COARSE_STEP)
    return (
        _stack("basis/factors", "component", n, shape, chunk=(n, side // 2), shard=(n, side)),
        _stack("basis/coarse", "component", n, _lattice(shape, COARSE_STEP), chunk=coarse, shard=coarse),
    )


def labels(path: str, n_maps: int, shape: tuple[int, int]) -> ArrayLayout:
    """Maps of classes, one per number of clusters: (n_clusters, y, x) uint8, 0 where there is none.

    >>> layout = labels("clusters/labels", 2, (6272, 6272))
    >>> layout.chunks, layout.shards, layout.files
    ((1, 128, 128), (2, 512, 512), 170)
    """
    return _maps(path, "n_clusters", n_maps, shape, "uint8", 0)


def annotation(n_labels: int, n_thresholds: int, shape: tuple[int, int]) -> tuple[ArrayLayout, ...]:
    """Scores (label, y, x) and confidence (y, x) float16, NaN off tissue; labels (threshold, y, x) uint8, 0 off tissue.

    >>> [(layout.path, layout.shards, layout.files) for layout in annotation(9, 6, (6272, 6272))]  # doctest: +ELLIPSIS
    [('annotation/score', (9, 512, 512), 170), ('annotation/labels', (6, 512, 512), 170), ...(512, 512), 170)]
    """
    side, chunk, nan = MASK_SHARD_SUPERPIXELS, (SHARD_SUPERPIXELS, SHARD_SUPERPIXELS), float("nan")
    return (
        _maps("annotation/score", "label", n_labels, shape, "float16", nan),
        _maps("annotation/labels", "threshold", n_thresholds, shape, "uint8", 0),
        ArrayLayout("annotation/confidence", ("y", "x"), shape, "float16", chunk, (side, side), nan),
    )


def gene_statistics(path: str, n_genes: int, n_statistics: int, n_clusters: int, genes_per_file: int) -> ArrayLayout:
    """Statistics of every gene in every cluster: (gene, statistic, cluster) float32, a file per block of genes."""
    block = (min(genes_per_file, n_genes), n_statistics, n_clusters)
    shape = (n_genes, n_statistics, n_clusters)
    return ArrayLayout(path, ("gene", "statistic", "cluster"), shape, "float32", block, block, float("nan"))


def plane(path: str, shape: tuple[int, int]) -> ArrayLayout:
    """A value per superpixel: (y, x) float16, NaN off tissue."""
    side = SHARD_SUPERPIXELS
    return ArrayLayout(path, ("y", "x"), shape, "float16", (side, side), (side, side), float("nan"))


def _lattice(shape: tuple[int, int], step: int) -> tuple[int, int]:
    """Cells of ``step`` superpixels a side that cover a grid of superpixels."""
    return ceil(shape[0] / step), ceil(shape[1] / step)


def _stack(
    path: str,
    dim: str,
    n: int,
    shape: tuple[int, int],
    *,
    chunk: tuple[int, int],
    shard: tuple[int, int],
    dtype: str = "float16",
    fill: float = float("nan"),
) -> ArrayLayout:
    """An array (dim, y, x) of ``n`` planes; chunk and shard are planes, and the side of a square of these."""
    chunks, shards = (chunk[0], chunk[1], chunk[1]), (shard[0], shard[1], shard[1])
    return ArrayLayout(path, (dim, "y", "x"), (n, *shape), dtype, chunks, shards, fill)


def _maps(path: str, dim: str, n: int, shape: tuple[int, int], dtype: str, fill: float) -> ArrayLayout:
    """Maps (dim, y, x) of which one is read at a time, and all of a large square share a file."""
    chunk, shard = (1, SHARD_SUPERPIXELS), (n, MASK_SHARD_SUPERPIXELS)
    return _stack(path, dim, n, shape, chunk=chunk, shard=shard, dtype=dtype, fill=fill)

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
    return ArrayLayout(
        f"image/{level}", ("c", "y", "x"), (3, *shape), "uint8", (3, 512, 512), (3, SHARD_PX, SHARD_PX), 255
    )


def mask(path: str, shape: tuple[int, int]) -> ArrayLayout:
    """A yes or no per superpixel: (y, x) bool."""
    side = MASK_SHARD_SUPERPIXELS
    return ArrayLayout(path, ("y", "x"), shape, "bool", (SHARD_SUPERPIXELS, SHARD_SUPERPIXELS), (side, side))


def features(group: str, n_features: int, shape: tuple[int, int], stride: int) -> ArrayLayout:
    """A feature group on its lattice: (feature, y, x) float16, NaN off tissue."""
    side = SHARD_SUPERPIXELS // stride
    lattice = (ceil(shape[0] / stride), ceil(shape[1] / stride))
    chunk = min(64, n_features)
    shard = ceil(n_features / chunk) * chunk
    return ArrayLayout(
        f"features/{group}",
        ("feature", "y", "x"),
        (n_features, *lattice),
        "float16",
        (chunk, side // 2, side // 2),
        (shard, side, side),
        float("nan"),
    )


def vectors(width: int, shape: tuple[int, int], step: int) -> ArrayLayout:
    """Vectors of a lattice's patches, in the cell in which each begins: (feature, y, x) float32, NaN where none."""
    side = SHARD_SUPERPIXELS // step
    lattice = (ceil(shape[0] / step), ceil(shape[1] / step))
    return ArrayLayout(
        "features/vectors",
        ("feature", "y", "x"),
        (width, *lattice),
        "float32",
        (width, side // 2, side // 2),
        (width, side, side),
        float("nan"),
    )


def genes(path: str, n_genes: int, shape: tuple[int, int]) -> ArrayLayout:
    """A value per gene and superpixel: (gene, y, x) float16, NaN off tissue.

    >>> layout = genes("expression/expression", 3000, (6272, 6272))
    >>> layout.chunks, layout.shards, layout.files
    ((8, 128, 128), (512, 128, 128), 14407)
    """
    side = SHARD_SUPERPIXELS
    chunk = min(GENES_PER_CHUNK, n_genes)
    shard = min(GENES_PER_SHARD, ceil(n_genes / chunk) * chunk)
    return ArrayLayout(
        path, ("gene", "y", "x"), (n_genes, *shape), "float16", (chunk, side, side), (shard, side, side), float("nan")
    )


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
    side, chunk = SHARD_SUPERPIXELS, SHARD_SUPERPIXELS // 4
    return ArrayLayout(
        "embedding/embedding",
        ("component", "y", "x"),
        (n_components, *shape),
        "float16",
        (n_components, chunk, chunk),
        (n_components, side, side),
        float("nan"),
    )


def factors(n_components: int, shape: tuple[int, int]) -> tuple[ArrayLayout, ArrayLayout]:
    """What genes are computed from, at superpixels and averaged: (component, y, x) float16 each, NaN off tissue.

    >>> [(layout.chunks, layout.shards, layout.files) for layout in factors(160, (6272, 6272))]
    [((160, 64, 64), (160, 128, 128), 2402), ((160, 32, 32), (160, 32, 32), 2402)]
    """
    side, coarse = SHARD_SUPERPIXELS, SHARD_SUPERPIXELS // COARSE_STEP
    lattice = (ceil(shape[0] / COARSE_STEP), ceil(shape[1] / COARSE_STEP))

    def layout(name: str, shape: tuple[int, int], chunk: int, shard: int) -> ArrayLayout:
        dims, chunks, shards = ("component", "y", "x"), (n_components, chunk, chunk), (n_components, shard, shard)
        return ArrayLayout(f"basis/{name}", dims, (n_components, *shape), "float16", chunks, shards, float("nan"))

    return layout("factors", shape, side // 2, side), layout("coarse", lattice, coarse, coarse)


def labels(path: str, n_maps: int, shape: tuple[int, int]) -> ArrayLayout:
    """Maps of classes, one per number of clusters: (n_clusters, y, x) uint8, 0 where there is none.

    >>> layout = labels("clusters/labels", 2, (6272, 6272))
    >>> layout.chunks, layout.shards, layout.files
    ((1, 128, 128), (2, 512, 512), 170)
    """
    side = MASK_SHARD_SUPERPIXELS
    chunk = (1, SHARD_SUPERPIXELS, SHARD_SUPERPIXELS)
    return ArrayLayout(path, ("n_clusters", "y", "x"), (n_maps, *shape), "uint8", chunk, (n_maps, side, side))


def annotation(n_labels: int, n_thresholds: int, shape: tuple[int, int]) -> tuple[ArrayLayout, ...]:
    """Scores (label, y, x) and confidence (y, x) float16, NaN off tissue; labels (threshold, y, x) uint8, 0 off tissue.

    >>> [(layout.path, layout.shards, layout.files) for layout in annotation(9, 6, (6272, 6272))]  # doctest: +ELLIPSIS
    [('annotation/score', (9, 512, 512), 170), ('annotation/labels', (6, 512, 512), 170), ...(512, 512), 170)]
    """
    side, chunk, nan = MASK_SHARD_SUPERPIXELS, (SHARD_SUPERPIXELS, SHARD_SUPERPIXELS), float("nan")

    def maps(name: str, dim: str, n: int, dtype: str, fill: float) -> ArrayLayout:
        dims = (dim, "y", "x")
        return ArrayLayout(f"annotation/{name}", dims, (n, *shape), dtype, (1, *chunk), (n, side, side), fill)

    return (
        maps("score", "label", n_labels, "float16", nan),
        maps("labels", "threshold", n_thresholds, "uint8", 0),
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

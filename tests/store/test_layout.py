"""Chunks and shards: a snapshot of what the functions choose, and the number of files at full size."""

from __future__ import annotations

from iscale.encoders.texture import TextureEncoder
from iscale.geometry import SlideGrid
from iscale.store import layout

WHOLE_SLIDE = SlideGrid((100_000, 100_000), 0.5, 0.5)


def test_chunks_and_shards_are_those_that_were_chosen() -> None:
    shape = (6272, 6272)
    assert layout.image_level(0, (100_096, 100_096)).shards == (3, 2048, 2048)
    assert layout.mask("tissue/mask", shape).shards == (512, 512)
    features = layout.features("far", 46, shape, 4)
    assert (features.shape, features.chunks, features.shards) == ((46, 1568, 1568), (46, 16, 16), (46, 32, 32))
    wide = layout.features("patch", 384, shape, 1)
    assert (wide.chunks, wide.shards) == ((64, 64, 64), (384, 128, 128))
    few = layout.genes("e", 50, shape)
    assert (few.chunks, few.shards) == ((8, 128, 128), (56, 128, 128))
    assert layout.genes("e", 3, shape).shards == (3, 128, 128)


def test_shards_are_whole_chunks() -> None:
    for n in (1, 3, 5, 63, 65, 130, 511, 513, 3000):
        for array in (layout.genes("e", n, (16, 16)), layout.features("f", n, (16, 16), 1)):
            assert all(s % c == 0 for s, c in zip(array.shards, array.chunks, strict=True))


def test_a_whole_slide_with_3000_genes_stays_under_60000_files() -> None:
    grid = WHOLE_SLIDE
    arrays = [layout.image_level(k, s) for k, s in enumerate(layout.level_shapes(grid.shape_px))]
    arrays += [layout.mask("tissue/mask", grid.superpixel_shape)]
    arrays += [
        layout.features(group.name, len(group.features), grid.superpixel_shape, group.stride)
        for group in TextureEncoder().groups
    ]
    arrays += [layout.genes(name, 3000, grid.superpixel_shape) for name in ("expression", "uncertainty")]
    arrays += [layout.plane("depth", grid.superpixel_shape)]
    assert sum(array.files for array in arrays) == 44_270 < 60_000


def test_the_pyramid_ends_when_a_level_is_small() -> None:
    shapes = layout.level_shapes((100_096, 50_176))
    assert len(shapes) == 9
    assert max(shapes[-1]) <= layout.SMALLEST_LEVEL_PX < max(shapes[-2])

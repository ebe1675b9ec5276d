"""Patch features through the store: what is encoded, what is kept, and that regions do not matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from toy import ToyEncoder

from iscale.encoders import EncoderSpec
from iscale.encoders.base import PatchEncoder
from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.features import by_patch, context, stage
from iscale.features.by_region import as_float16
from iscale.features.patch_lattice import PatchLattice
from iscale.features.read import read_features
from iscale.geometry import Region, SlideGrid
from iscale.store import layout
from iscale.store.run_store import RunStore

SHAPE = (160, 288)
"""Superpixels: two rows and three columns of shards."""
GRID = SlideGrid((SHAPE[0] * 16, SHAPE[1] * 16), 0.5, 0.5)

Encode = Callable[..., tuple[RunStore, list[dict[str, int]]]]


def tissue() -> NDArray[np.bool_]:
    """Two pieces, one across the border of shards, and a single superpixel in a corner."""
    mask = np.zeros(SHAPE, bool)
    mask[100:150, 110:140] = True
    mask[10:20, 200:260] = True
    mask[-1, -1] = True
    return mask


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (3, SHAPE[0] * 16, SHAPE[1] * 16), np.uint8)


@pytest.fixture
def encode(tmp_path: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Encode:
    """Run the steps of an encoder on the image; the store, and what the tasks of the first step returned."""
    whole = Region(0, SHAPE[0], 0, SHAPE[1])

    def run(encoder: ToyEncoder, side: int | None = None) -> tuple[RunStore, list[dict[str, int]]]:
        for module in (by_patch, context, stage):
            monkeypatch.setattr(module, "get_encoder", lambda spec: encoder)
        context.blank_vector.cache_clear()
        store = RunStore(tmp_path / f"{side}-{encoder.step}-{encoder.context.window}")
        store.create()
        for group in ("image", "tissue"):
            store.make_group(group, {})
        store.make(layout.image_level(0, image.shape[1:]))
        store.write("image/0", Region(0, image.shape[1], 0, image.shape[2]), image)
        store.make(layout.mask("tissue/mask", SHAPE))
        store.write("tissue/mask", whole, tissue())
        resources = Resources(4 * 10**9, shards_per_side=side)
        for step in stage.feature_steps(store, GRID, EncoderSpec("toy"), inputs=("i", "t"), resources=resources):
            execute(step, SerialDriver(), Ledger(store.ledgers, step.name), Silence())
            if step.name == "features/patches":
                regions = step.plan.regions
                done = Ledger(store.ledgers, step.name).finished(step.fingerprint, step.plan)
                values = [done[region] for region in regions]
        return store, values

    return run


def test_the_toy_is_a_patch_encoder() -> None:
    assert isinstance(ToyEncoder(), PatchEncoder)


@pytest.mark.parametrize("window", [16, None])
def test_regions_do_not_matter(encode: Encode, window: int | None) -> None:
    first: NDArray[np.float32] | None = None
    for side in (1, 2, 3):
        store, _ = encode(ToyEncoder(window=window), side)
        found = read_features(store, ToyEncoder().groups, Region(0, SHAPE[0], 0, SHAPE[1]))
        first = found if first is None else first
        np.testing.assert_allclose(found, first, rtol=2e-3, equal_nan=True)
        assert (np.isfinite(found).all(axis=0) == tissue()).all()


def test_tokens_are_means_over_all_patches_that_cover(encode: Encode, image: NDArray[np.uint8]) -> None:
    store, _ = encode(ToyEncoder())
    lattice = PatchLattice(SHAPE, 16, 4)
    patch = np.asarray(store.array("features/patch")[:, 100:150, 110:140], np.float64)
    own = image[:, 1600:2400, 1760:2240].reshape(3, 50, 16, 30, 16).mean(axis=(2, 4))
    np.testing.assert_allclose(patch[:3], own, rtol=1e-3)
    places = lattice.covering(Region(120, 121, 120, 121))
    assert places.shape == (4, 4)
    covering = [
        image[:, 64 * i : 64 * i + 256, 64 * j : 64 * j + 256].mean()
        for i in range(places.y0, places.y1)
        for j in range(places.x0, places.x1)
    ]
    assert patch[3, 20, 10] == pytest.approx(np.mean(covering), rel=1e-3)


def test_only_patches_on_tissue_are_encoded_and_few_twice(encode: Encode) -> None:
    lattice = PatchLattice(SHAPE, 16, 4)
    touching = int(lattice.touching(tissue(), Region(0, lattice.places[0], 0, lattice.places[1])).sum())
    encoder = ToyEncoder()
    _, values = encode(encoder, 3)
    assert sum(value["patches"] for value in values) == touching
    assert encoder.seen == touching + 1  # a white patch stands for the others
    _, values = encode(ToyEncoder(), 1)
    assert touching < sum(value["patches"] for value in values) < 1.4 * touching
    assert sum(value["tissue"] for value in values) == tissue().sum()


def test_a_slide_seen_whole_is_encoded_whole_and_kept_whole(encode: Encode) -> None:
    store, values = encode(ToyEncoder(window=None), 3)
    lattice = PatchLattice(SHAPE, 16, 4)
    assert sum(value["patches"] for value in values) == lattice.places[0] * lattice.places[1]
    assert np.isfinite(np.asarray(store.array("features/patch")[...])).all()
    assert np.isfinite(np.asarray(store.array("features/context")[...])).all()


@pytest.mark.parametrize("shifts", [16, 4, 1])
def test_fewer_shifts_encode_fewer_patches_and_leave_no_gap(encode: Encode, shifts: int) -> None:
    encoder = ToyEncoder(shifts=shifts)
    store, values = encode(encoder, 3)
    lattice = PatchLattice(SHAPE, 16, encoder.step)
    mask = tissue()
    assert (
        sum(value["patches"] for value in values)
        == lattice.touching(mask, Region(0, lattice.places[0], 0, lattice.places[1])).sum()
    )
    found = read_features(store, encoder.groups, Region(0, SHAPE[0], 0, SHAPE[1]))
    assert (np.isfinite(found).all(axis=0) == mask).all()


def test_what_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"features/patch: a value of 70000 is too large.*65504"):
        as_float16(np.array([[[1.0, np.nan, -70000.0]]], np.float32), "patch")
    kept = as_float16(np.array([[[1.0, np.nan]]], np.float32), "patch")
    np.testing.assert_array_equal(kept, np.array([[[1.0, np.nan]]], np.float16))

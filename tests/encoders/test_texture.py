from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch

from iscale.encoders.texture import TextureEncoder
from iscale.encoders.texture_parameters import CONTEXT_STRIDE
from iscale.geometry import SUPERPIXEL_PX, Region

SLIDE = (512, 768)


def slide(shape: tuple[int, int] = SLIDE, seed: int = 0) -> np.ndarray:
    """(3, y, x) of blobs in the colours of a stained section, and a border of glass."""
    rng = np.random.default_rng(seed)
    field = np.kron(rng.random((shape[0] // 8, shape[1] // 8)), np.ones((8, 8))) + 0.2 * rng.random(shape)
    colours = np.stack([230 - 130 * field, 200 - 140 * field, 225 - 70 * field])
    colours[:, :128] = 243
    return colours.clip(0, 255).astype(np.uint8)


def padded(image: np.ndarray, core: Region, halo: int) -> np.ndarray:
    """What the features stage hands over: the core and its halo, edge pixels repeated beyond the slide."""
    y = np.clip(np.arange(core.y0 - halo, core.y1 + halo), 0, image.shape[1] - 1)
    x = np.clip(np.arange(core.x0 - halo, core.x1 + halo), 0, image.shape[2] - 1)
    return image[:, y][:, :, x]


def encode(image: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Features of a slide that is cut into cores of a side."""
    encoder = TextureEncoder()
    whole = Region(0, image.shape[1], 0, image.shape[2])
    shape = (image.shape[1] // SUPERPIXEL_PX, image.shape[2] // SUPERPIXEL_PX)
    out = {
        g.name: np.full((len(g.features), *(-(-n // g.stride) for n in shape)), np.nan, np.float32)
        for g in encoder.groups
    }
    for core in whole.tiles(side):
        cells = core.coarsened(SUPERPIXEL_PX)
        values = encoder.encode(padded(image, core, encoder.halo_px), np.ones(cells.shape, bool))
        for group in encoder.groups:
            place = cells.coarsened(group.stride)
            out[group.name][:, *place.slices] = values[group.name]
    return out


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return encode(slide(), 4096)


@pytest.mark.parametrize("side", [256, 512])
def test_values_do_not_depend_on_how_the_slide_is_cut(whole, side) -> None:
    cut = encode(slide(), side)
    for name, values in whole.items():
        np.testing.assert_allclose(cut[name], values, rtol=1e-5, atol=1e-6)


def test_groups_say_what_comes_out(whole) -> None:
    for group in TextureEncoder().groups:
        values = whole[group.name]
        assert values.dtype == np.float32
        assert values.shape == (len(group.features), 32 // group.stride, 48 // group.stride)
        assert np.isfinite(values).all()
        assert len(set(group.features)) == len(group.features)


def test_values_can_be_stored_in_half_precision(whole) -> None:
    white = encode(np.full((3, 256, 256), 255, np.uint8), 256)
    black = encode(np.zeros((3, 256, 256), np.uint8), 256)
    for features in (whole, white, black):
        for values in features.values():
            assert np.isfinite(values).all()
            assert np.abs(values).max() < 100


def test_colour_is_the_mean_of_the_pixels(whole) -> None:
    blocks = slide().reshape(3, 32, 16, 48, 16).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(whole["colour"], blocks, rtol=1e-5)


def test_stains_are_told_apart() -> None:
    def stain(vector: tuple[float, float, float], amount: float) -> dict[str, float]:
        density = np.array(vector) / np.linalg.norm(vector) * amount
        colour = (256 * np.exp(-density) - 1).round().astype(np.uint8)
        image = np.tile(colour[:, None, None], (1, 256, 256))
        names = TextureEncoder().groups[1].features
        values = encode(image, 256)["texture"][:, 8, 8]
        return dict(zip(names, values.tolist(), strict=True))

    haematoxylin, eosin = stain((0.65, 0.70, 0.29), 1.5), stain((0.07, 0.99, 0.11), 1.0)
    assert haematoxylin["haematoxylin"] == pytest.approx(1.5, abs=0.03)
    assert haematoxylin["eosin"] == pytest.approx(0, abs=0.03)
    assert eosin["eosin"] == pytest.approx(1.0, abs=0.03)
    assert eosin["haematoxylin"] == pytest.approx(0, abs=0.03)
    assert haematoxylin["nuclear3"] > 0.8
    assert eosin["nuclear1"] < 0.05


def test_fine_and_coarse_texture_fall_into_their_bands() -> None:
    names = TextureEncoder().groups[1].features

    def bands(period: int) -> list[float]:
        stripes = 120 + 60 * np.sin(2 * np.pi * np.arange(512) / period)
        image = np.tile(stripes.astype(np.uint8), (3, 512, 1))
        values = dict(zip(names, encode(image, 512)["texture"][:, 16, 16].tolist(), strict=True))
        return [values[f"haematoxylin_band{level}"] for level in range(4)]

    assert np.argmax(bands(3)) == 0
    assert np.argmax(bands(32)) == 3


def test_context_ignores_glass() -> None:
    image = slide((512, 512))
    image[:, :, 256:] = 245
    names = TextureEncoder().groups[2].features
    near = dict(zip(names, encode(image, 512)["near"], strict=True))
    inside, edge = near["red_context3"][24, 8], near["red_context3"][24, 15]
    assert abs(edge - inside) < 0.05
    assert near["tissue_context3"][24, 15] < 0.7 < near["tissue_context3"][24, 8]


def test_identity_is_of_plain_values() -> None:
    identity = TextureEncoder().identity()
    assert identity["encoder"] == "texture"
    assert identity == TextureEncoder().identity()
    assert TextureEncoder().halo_px % SUPERPIXEL_PX == 0
    assert TextureEncoder().groups[3].stride == CONTEXT_STRIDE


@pytest.mark.parametrize("core", [(256, 256), (1024, 1280)])
def test_memory_stays_under_what_is_declared(core) -> None:
    encoder = TextureEncoder()
    halo = 2 * encoder.halo_px
    image = slide((core[0] + halo, core[1] + halo))
    tissue = np.ones((core[0] // 16, core[1] // 16), bool)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        encoder.encode(image, tissue)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 0 < image.nbytes + peak < encoder.task_bytes(core)
    assert encoder.task_bytes(core) < psutil.virtual_memory().total

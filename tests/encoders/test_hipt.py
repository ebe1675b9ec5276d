"""HIPT gives the published numbers, for any region, and says what is wrong with what it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.batches import BatchPlan
from iscale.encoders.hipt import HiptEncoder
from iscale.encoders.registry import has_bfloat16
from iscale.errors import InputError
from iscale.features.by_patch import EncodedPatches, encode_patches, mean_colour
from iscale.features.context import mean_over_covering, whole_slide
from iscale.features.patch_lattice import PatchLattice
from iscale.features.read import box_mean
from iscale.geometry import Region

Golden = dict[str, NDArray[np.float32]]


def apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected.astype(np.float64)))


def spec(weights: Path, **settings: Any) -> EncoderSpec:
    return EncoderSpec("hipt", weights=weights, **settings)


@pytest.fixture(scope="session")
def vit(golden_dir: Path) -> Golden:
    with np.load(golden_dir / "vit.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def features(golden_dir: Path) -> Golden:
    with np.load(golden_dir / "features.npz") as arrays:
        return dict(arrays)


def patches_of(image: NDArray[np.uint8]) -> torch.Tensor:
    h, w, _ = (n // 256 for n in image.shape)
    tiles = image[: h * 256, : w * 256].reshape(h, 256, w, 256, 3).transpose(0, 2, 4, 1, 3)
    return torch.from_numpy(np.ascontiguousarray(tiles.reshape(h * w, 3, 256, 256)))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_both_networks_give_the_published_numbers(
    vit: Golden, stand_in_weights: Path, precision: str, tolerance: float, device: str
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    if precision == "bfloat16" and not has_bfloat16(device):
        pytest.skip(f"{device} has no bfloat16")
    encoder = HiptEncoder(spec(stand_in_weights, precision=precision, device=device))
    tokens, vectors = encoder.encode(patches_of(vit["image"].astype(np.uint8)).to(device))
    assert tokens.dtype == vectors.dtype == torch.float32
    assert apart(vectors.reshape(5, 7, -1).cpu().numpy(), vit["cls256"]) < tolerance
    assert apart(tokens[2 * 7 + 3].cpu().numpy(), vit["tokens256_patch_2_3"]) < tolerance
    context = encoder.context(vectors.reshape(1, 5, 7, -1))[0]
    assert apart(context.cpu().numpy(), vit["context"]) < tolerance


@pytest.fixture(scope="session")
def encoder(stand_in_weights: Path) -> HiptEncoder:
    return HiptEncoder(spec(stand_in_weights, context="published"))


def encode(encoder: HiptEncoder, image: NDArray[np.uint8], region: Region, size: int = 4) -> EncodedPatches:
    """Encode a region of a (c, y, x) image whose every superpixel is tissue."""
    lattice = PatchLattice((image.shape[1] // 16, image.shape[2] // 16), encoder.patch, encoder.step)
    wanted = np.ones(lattice.covering(region).shape, bool)
    return encode_patches(
        encoder,
        lattice,
        region,
        wanted,
        lambda box: np.ascontiguousarray(image[(slice(None), *box.slices)]),
        BatchPlan(size, 2),
    )


@pytest.fixture(scope="session")
def whole(features: Golden, encoder: HiptEncoder) -> EncodedPatches:
    image = np.moveaxis(features["image"], -1, 0).astype(np.uint8)
    return encode(encoder, image, Region(0, image.shape[1] // 16, 0, image.shape[2] // 16))


@pytest.mark.full
def test_published_context_gives_the_published_features(
    features: Golden, encoder: HiptEncoder, whole: EncodedPatches
) -> None:
    image = np.moveaxis(features["image"], -1, 0).astype(np.uint8)
    lattice = PatchLattice((image.shape[1] // 16, image.shape[2] // 16), encoder.patch, encoder.step)
    slide = Region(0, lattice.shape[0], 0, lattice.shape[1])
    assert whole.vectors is not None
    vectors = whole_slide(encoder, encoder.context, lattice, whole.vectors, lambda box: image[:, *box.slices])
    context = mean_over_covering(vectors, whole.places, slide.coarsened(encoder.step), lattice.shifts)
    context = np.moveaxis(context, -1, 0).repeat(4, axis=1).repeat(4, axis=2)
    patch = np.moveaxis(whole.tokens, -1, 0)
    found = {
        "context_raw": context,
        "patch_raw": patch,
        "context": box_mean(context, 16),
        "patch": box_mean(patch, 4),
        "colour": mean_colour(image),
    }
    for name, values in found.items():
        assert np.isfinite(values).all(), name
        y0, y1, x0, x1 = features[f"{name}_box"].astype(int)
        assert apart(values[:, y0:y1, x0:x1], features[name]) < 1e-5, name


@pytest.mark.full
@pytest.mark.parametrize("region", [Region(64, 80, 80, 96), Region(16, 48, 32, 64)])
def test_a_region_gives_what_the_whole_gives(
    features: Golden, encoder: HiptEncoder, whole: EncodedPatches, region: Region
) -> None:
    image = np.moveaxis(features["image"], -1, 0).astype(np.uint8)
    part = encode(encoder, image, region, size=3)
    assert apart(part.tokens, whole.tokens[region.slices]) < 1e-5
    assert part.vectors is not None
    assert whole.vectors is not None
    assert apart(part.vectors, whole.vectors[part.places.within(whole.places)]) < 1e-5


@pytest.mark.full
def test_parts_of_a_region_give_the_published_features(features: Golden, encoder: HiptEncoder) -> None:
    """What a superpixel gets of patches, in two regions that overlap; its context is of the whole: see above."""
    image = np.moveaxis(features["image"], -1, 0).astype(np.uint8)
    y0, _, x0, _ = features["patch_raw_box"].astype(int)
    published = np.moveaxis(features["patch_raw"], 0, -1)
    region, corner = Region(20, 32, 24, 36), Region(28, 36, 32, 40)
    larger, smaller = encode(encoder, image, region), encode(encoder, image, corner, size=3)
    for at, found in ((region, larger), (corner, smaller)):
        expected = published[at.y0 - y0 : at.y1 - y0, at.x0 - x0 : at.x1 - x0]
        assert apart(found.tokens, expected) < 1e-5
    a, b = larger.places, smaller.places
    both = Region(max(a.y0, b.y0), min(a.y1, b.y1), max(a.x0, b.x0), min(a.x1, b.x1))
    assert both.area >= 9
    assert larger.vectors is not None
    assert smaller.vectors is not None
    assert apart(smaller.vectors[both.within(b)], larger.vectors[both.within(a)]) < 1e-5
    y0, _, x0, _ = features["patch_box"].astype(int)
    smooth = box_mean(np.moveaxis(larger.tokens, -1, 0), 4)[:, 4:-4, 4:-4]
    at = (slice(region.y0 + 4 - y0, region.y1 - 4 - y0), slice(region.x0 + 4 - x0, region.x1 - 4 - x0))
    assert apart(smooth, features["patch"][:, *at]) < 1e-5
    y0, y1, x0, x1 = features["colour_box"].astype(int)
    assert apart(mean_colour(image)[:, y0:y1, x0:x1], features["colour"]) < 1e-5


@pytest.mark.parametrize(("shifts", "step"), [(16, 4), (4, 8), (1, 16)])
def test_shifts_set_the_lattice(stand_in_weights: Path, shifts: int, step: int) -> None:
    encoder = HiptEncoder(spec(stand_in_weights, shifts=shifts))
    assert encoder.step == step
    assert [(group.name, len(group.features), group.stride, group.smooth) for group in encoder.groups] == [
        ("context", 192, step, 16),
        ("patch", 384, 1, 4),
        ("colour", 3, 1, 1),
    ]


def test_settings_and_weights_are_part_of_the_identity(stand_in_weights: Path) -> None:
    settings: list[dict[str, Any]] = [{}, {"context": "published"}, {"shifts": 4}]
    settings += [{"precision": "bfloat16"}] if has_bfloat16("cpu") else []
    seen = [HiptEncoder(spec(stand_in_weights, **one)).identity() for one in settings]
    assert len({str(identity) for identity in seen}) == len(settings)
    assert all(len(file["tensors_sha256"]) == 64 for file in seen[0]["weights"].values())


def test_bfloat16_is_refused_where_it_would_be_emulated(
    stand_in_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(InputError, match=r"bfloat16.*emulated"):
        get_encoder(spec(stand_in_weights, precision="bfloat16"))
    get_encoder.cache_clear()
    elsewhere = replace(spec(stand_in_weights, precision="bfloat16"), device="auto")
    assert get_encoder(elsewhere).name == "hipt", "workers will look at their own devices"

"""HIPT from the command's side: chosen, run, resumed, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import iscale
from iscale.cli.app import main
from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import PatchEncoder
from iscale.encoders.batches import BatchPlan
from iscale.errors import InputError
from iscale.features.by_patch import encode_patches, mean_colour
from iscale.features.context import mean_over_covering, whole_slide
from iscale.features.patch_lattice import PatchLattice
from iscale.features.read import box_mean
from iscale.geometry import Region
from iscale.pipeline.run import describe_plan

COARSE = {"encoder": "hipt", "shifts": 1}


def test_what_is_stored_is_what_the_encoder_gives(tmp_path: Path, golden_dir: Path, stand_in_weights: Path) -> None:
    mother = tmp_path / "part" / "MotherImage"
    mother.mkdir(parents=True)
    with np.load(golden_dir / "features.npz") as arrays:
        pixels = arrays["image"][256:512, 256:768]
    Image.fromarray(pixels).save(mother / "he.png")
    Image.fromarray(np.full(pixels.shape[:2], 255, np.uint8)).save(mother / "mask-raw.png")
    options = {"encoder": "hipt", "context": "published", "weights": stand_in_weights}
    run = iscale.open_run(iscale.run(mother.parent, stage="features", **options))
    assert run.features.sizes == {"feature": 579, "y": 16, "x": 32}
    assert list(run.features["feature"].values[[0, 192, 578]]) == ["context/context0", "patch/patch0", "colour/blue"]

    encoder = get_encoder(EncoderSpec("hipt", weights=stand_in_weights, context="published"))
    assert isinstance(encoder, PatchEncoder)
    assert encoder.context is not None
    lattice, slide = PatchLattice((16, 32), 16, 4), Region(0, 16, 0, 32)
    image = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    every = np.ones(lattice.covering(slide).shape, bool)
    encoded = encode_patches(encoder, lattice, slide, every, lambda box: image[:, *box.slices], BatchPlan(4, 2))
    assert encoded.vectors is not None
    context = whole_slide(encoder, encoder.context, lattice, encoded.vectors, lambda box: image[:, *box.slices])
    cells = mean_over_covering(context, encoded.places, slide.coarsened(4), 4).repeat(4, axis=0).repeat(4, axis=1)
    features = run.features.to_numpy()
    for rows, values, box in ((slice(192), cells, 16), (slice(192, 576), encoded.tokens, 4)):
        expected = box_mean(np.moveaxis(values, -1, 0), box)
        assert np.linalg.norm(features[rows] - expected) / np.linalg.norm(expected) < 1e-3
    np.testing.assert_array_equal(features[576:], mean_colour(image))


def test_auto_takes_hipt_where_its_weights_are_and_says_so(
    tiny_project: Path, stand_in_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISCALE_WEIGHTS", raising=False)
    assert "encoder: texture (fixed filters), because no weights of HIPT were found" in describe_plan(tiny_project)
    assert "--shifts has no effect with texture" in describe_plan(tiny_project, shifts=4)
    monkeypatch.setenv("ISCALE_WEIGHTS", str(stand_in_weights))
    plan = describe_plan(tiny_project)
    assert f"encoder: hipt, weights in {stand_in_weights}" in plan
    assert "vit256_small_dino.pth: not the published file" in plan
    assert "computed twice" in plan
    monkeypatch.delenv("ISCALE_WEIGHTS")
    (tiny_project / "checkpoints").symlink_to(stand_in_weights)
    assert "encoder: hipt" in describe_plan(tiny_project)


@pytest.mark.full
def test_the_whole_pipeline_runs_on_hipt_and_is_reused(tiny_project: Path, stand_in_weights: Path) -> None:
    options = {"weights": stand_in_weights, "n_plots": 1, "n_clusters": 3, "hold_out": "none", **COARSE}
    out = iscale.run(tiny_project, **options)
    run = iscale.open_run(out)
    assert np.isfinite(run.expression.to_numpy()[:, run.tissue.to_numpy()]).all()
    vectors = (out / "run.zarr" / "features" / "vectors" / "zarr.json").stat().st_mtime_ns
    iscale.run(tiny_project, **options)
    assert (out / "run.zarr" / "features" / "vectors" / "zarr.json").stat().st_mtime_ns == vectors
    identity = run.store.attributes("features")["encoder"]
    assert identity["encoder"] == "hipt"
    assert len(identity["weights"]["vit4k_xs_dino"]["sha256"]) == 64


@pytest.fixture
def two_by_two_shards(tmp_path: Path) -> Path:
    """A slide of 2 x 2 shards with a little tissue across all four."""
    mother = tmp_path / "shards" / "MotherImage"
    mother.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(90, 220, (2304, 2304, 3), np.uint8)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[1800:2250, 1900:2200] = 255
    Image.fromarray(pixels).save(mother / "he.png")
    Image.fromarray(mask).save(mother / "mask-raw.png")
    return mother.parent


@pytest.mark.parametrize(
    "other", [{}, pytest.param({"region_shards": 1, "dask": "local", "workers": 2}, marks=pytest.mark.full)]
)
def test_regions_driver_and_workers_do_not_matter(
    two_by_two_shards: Path, tmp_path: Path, stand_in_weights: Path, other: dict[str, Any]
) -> None:
    found = []
    for i, way in enumerate(({"region_shards": 1}, other)):
        options = {"weights": stand_in_weights, "out": tmp_path / str(i), **way}
        run = iscale.open_run(iscale.run(two_by_two_shards, stage="features", **COARSE, **options))
        found.append(run.features.to_numpy())
        assert (np.isfinite(found[-1]).all(axis=0) == run.tissue.to_numpy()).all()
    # One unit of float16 before the box means.
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4, equal_nan=True)


def test_a_slide_smaller_than_a_patch_is_padded_with_white(tmp_path: Path, stand_in_weights: Path) -> None:
    mother = tmp_path / "small" / "MotherImage"
    mother.mkdir(parents=True)
    pixels = np.random.default_rng(0).normal((170, 110, 170), 25, (200, 130, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(mother / "he.png")
    Image.fromarray(np.full(pixels.shape[:2], 255, np.uint8)).save(mother / "mask-raw.png")
    for context in ("regions", "published"):
        out = tmp_path / context
        iscale.run(mother.parent, stage="features", weights=stand_in_weights, context=context, out=out, **COARSE)
        features = iscale.open_run(out).features.to_numpy()
        assert features.shape == (579, 16, 16)
        assert np.isfinite(features[:, :12, :8]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "hipt"}, r"no weights were found.*--weights DIR"),
        ({"encoder": "hipt", "weights": Path("nowhere")}, "nowhere"),
        ({"encoder": "resnet"}, "resnet"),
        ({"shifts": 3}, "shifts"),
        ({"context": "slide"}, "context"),
        ({"precision": "float16"}, "precision"),
        ({"device": "cuda"}, r"torch sees no CUDA device.*cpu"),
    ],
)
def test_what_cannot_be_had_is_said_before_any_work(
    tiny_project: Path, options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISCALE_WEIGHTS", raising=False)
    with pytest.raises(InputError, match=f"(?s){message}"):
        iscale.run(tiny_project, stage="features", **options)
    assert not (tiny_project / "iSCALE_output").exists()


def test_weights_are_verified_and_converted_on_the_command_line(
    stand_in_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["iscale", "weights", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    assert "ViT-256, usable" in run("verify", str(stand_in_weights))
    assert "97.8 MB" in run("convert", str(stand_in_weights), "--out", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"vit256_small_dino.safetensors", "vit4k_xs_dino.safetensors"}
    assert "ViT-4K, usable" in run("verify", str(tmp_path))

"""HIPT from the command's side: chosen, run, resumed, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import iscale
from iscale.cli import main
from iscale.errors import InputError
from iscale.pipeline import describe_plan

COARSE = {"encoder": "hipt", "shifts": 1}


@pytest.fixture
def golden_project(tmp_path: Path, golden_dir: Path) -> Path:
    """The golden image as a project, all of it tissue."""
    mother = tmp_path / "golden" / "MotherImage"
    mother.mkdir(parents=True)
    with np.load(golden_dir / "features.npz") as arrays:
        image = arrays["image"]
    Image.fromarray(image).save(mother / "he.png")
    Image.fromarray(np.full(image.shape[:2], 255, np.uint8)).save(mother / "mask-raw.png")
    return mother.parent


def test_a_run_gives_the_published_features_to_float16(
    golden_project: Path, golden_dir: Path, stand_in_weights: Path
) -> None:
    options = {"encoder": "hipt", "context": "published", "weights": stand_in_weights}
    run = iscale.open_run(iscale.run(golden_project, stage="features", **options))
    assert run.features.sizes == {"feature": 579, "y": 80, "x": 96}
    features = run.features.to_numpy()
    with np.load(golden_dir / "features.npz") as golden:
        for name, rows in (("context", slice(0, 192)), ("patch", slice(192, 576)), ("colour", slice(576, 579))):
            y0, y1, x0, x1 = golden[f"{name}_box"]
            found, expected = features[rows, y0:y1, x0:x1], golden[name]
            assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3, name


def test_auto_takes_hipt_where_its_weights_are_and_says_so(
    tiny_project: Path, stand_in_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ISCALE_WEIGHTS", raising=False)
    assert "encoder: texture (fixed filters), because no weights of HIPT were found" in describe_plan(tiny_project)
    monkeypatch.setenv("ISCALE_WEIGHTS", str(stand_in_weights))
    plan = describe_plan(tiny_project)
    assert f"encoder: hipt, weights in {stand_in_weights}" in plan
    assert "vit256_small_dino.pth: not the published file" in plan
    assert "computed twice" in plan
    monkeypatch.delenv("ISCALE_WEIGHTS")
    (tiny_project / "checkpoints").symlink_to(stand_in_weights)
    assert "encoder: hipt" in describe_plan(tiny_project)


def test_the_whole_pipeline_runs_on_hipt_and_is_reused(tiny_project: Path, stand_in_weights: Path) -> None:
    out = iscale.run(tiny_project, weights=stand_in_weights, n_plots=1, **COARSE)
    run = iscale.open_run(out)
    assert np.isfinite(run.expression.to_numpy()[:, run.tissue.to_numpy()]).all()
    vectors = (out / "run.zarr" / "features" / "vectors" / "zarr.json").stat().st_mtime_ns
    iscale.run(tiny_project, weights=stand_in_weights, n_plots=1, **COARSE)
    assert (out / "run.zarr" / "features" / "vectors" / "zarr.json").stat().st_mtime_ns == vectors
    identity = run.store.attributes("features")["encoder"]
    assert identity["encoder"] == "hipt"
    assert len(identity["weights"]["vit4k_xs_dino"]["sha256"]) == 64


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

"""The conversion of weight files, and the report on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from weight_files import PTH, State, state, training, written

from iscale.cli.weights import convert_weights, verify_weights
from iscale.encoders.weights import CONTEXT_FILE, NETWORKS, PATCH_FILE, WEIGHT_FILES, digest, load_weights
from iscale.errors import InputError


@pytest.fixture(scope="module")
def context() -> State:
    return state()


@pytest.fixture
def both(tmp_path_factory, context, monkeypatch) -> Path:
    """Folder with two checkpoints; ViT-256 has one block here, for speed."""
    monkeypatch.setitem(NETWORKS, PATCH_FILE, dataclasses.replace(NETWORKS[PATCH_FILE], depth=1))
    folder = tmp_path_factory.mktemp("both")
    written(folder, training(state(PATCH_FILE)), f"{PATCH_FILE}.pth")
    return written(folder, training(context))


def test_conversion_keeps_the_weights_and_names_its_source(both, tmp_path) -> None:
    report = convert_weights(both, tmp_path / "new" / "folder")
    out = tmp_path / "new" / "folder"
    assert sorted(path.name for path in out.iterdir()) == [f"{which}.safetensors" for which in WEIGHT_FILES]
    for which in WEIGHT_FILES:
        before, after = load_weights(both, which), load_weights(out, which)
        assert digest(before.tensors) == digest(after.tensors)
        assert after.source_sha256 == before.sha256
        assert f"({before.path.stat().st_size:,} bytes)" in report
        assert f"({after.path.stat().st_size:,} bytes)" in report
        with safe_open(after.path, "pt") as file:
            assert file.metadata()["source_file"] == f"{which}.pth"
            assert file.metadata()["made_by"].startswith("iscale ")


def test_stand_ins_convert_to_the_same_digest(stand_in_weights, tmp_path) -> None:
    assert "-> 97.8 MB." in convert_weights(stand_in_weights, tmp_path)
    assert 97e6 < sum(path.stat().st_size for path in tmp_path.iterdir()) < 98e6
    for which in WEIGHT_FILES:
        assert digest(load_weights(tmp_path, which).tensors) == digest(load_weights(stand_in_weights, which).tensors)


def test_conversion_never_replaces_other_weights(both, tmp_path) -> None:
    other = tmp_path / f"{CONTEXT_FILE}.safetensors"
    for tensors in (state(seed=1), {"a": torch.zeros(1)}):
        save_file(tensors, other)
        before = other.read_bytes()
        with pytest.raises(InputError, match="is there already and does not hold the weights of"):
            convert_weights(both, tmp_path)
        assert other.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == [other.name]


def test_conversion_is_done_once(both, tmp_path) -> None:
    convert_weights(both, tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.iterdir()}
    assert "there already with the same weights" in convert_weights(both, tmp_path)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in tmp_path.iterdir()}


def test_conversion_goes_beside_the_files_and_is_then_used(both, tmp_path) -> None:
    for which in WEIGHT_FILES:
        (tmp_path / f"{which}.pth").hardlink_to(both / f"{which}.pth")
    convert_weights(tmp_path)
    assert load_weights(tmp_path, CONTEXT_FILE).path == tmp_path / f"{CONTEXT_FILE}.safetensors"
    (tmp_path / PTH).unlink()
    with pytest.raises(InputError, match="nothing to convert") as caught:
        convert_weights(tmp_path)
    assert f"{CONTEXT_FILE}.safetensors is there" in caught.value.remedy


def test_nothing_is_written_if_a_file_cannot_be_used(both, tmp_path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / f"{PATCH_FILE}.pth").hardlink_to(both / f"{PATCH_FILE}.pth")
    (folder / PTH).write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="damaged"):
        convert_weights(folder, out)
    assert not out.exists()


def test_the_report_says_what_the_files_are(both, tmp_path) -> None:
    report = verify_weights(both)
    for which, parameters in ((PATCH_FILE, "2,146,560 in 18"), (CONTEXT_FILE, "2,781,504 in 78")):
        path = both / f"{which}.pth"
        assert f"{path.stat().st_size:,} bytes" in report
        assert load_weights(both, which).sha256 in report
        assert f"{parameters} tensors" in report
        assert f"not the published file, which has {NETWORKS[which].published_bytes:,} bytes" in report
    convert_weights(both, tmp_path)
    assert "by its own word converted from a file that is not the published one" in verify_weights(tmp_path)
    (tmp_path / f"{CONTEXT_FILE}.safetensors").unlink()
    with pytest.raises(InputError, match=f"holds no {CONTEXT_FILE}"):
        verify_weights(tmp_path)

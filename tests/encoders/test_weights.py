"""HIPT's two weight files: what fits, where they are looked for, and whether they are the published ones."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from weight_files import PTH, State, prefixed, refused, state, training, written

from iscale.encoders import checkpoint, weights
from iscale.encoders.weights import (
    CONTEXT_FILE,
    NETWORKS,
    PATCH_FILE,
    WEIGHT_FILES,
    digest,
    find_weights,
    has_weights,
    load_weights,
    notice,
    searched,
)
from iscale.errors import InputError


@pytest.fixture(scope="module")
def context() -> State:
    return state()


def test_stand_ins_in_the_published_form_are_read_exactly(stand_in_weights) -> None:
    for which, parameters in ((PATCH_FILE, 21_665_664), (CONTEXT_FILE, 2_781_504)):
        file = load_weights(stand_in_weights, which)
        raw = torch.load(stand_in_weights / f"{which}.pth", weights_only=False)["teacher"]
        expected = {name.removeprefix("module.backbone."): tensor.float() for name, tensor in raw.items()}
        del expected["module.head.mlp.0.weight"]
        assert file.tensors.keys() == expected.keys()
        assert all(torch.equal(file.tensors[name], tensor) for name, tensor in expected.items())
        assert sum(tensor.numel() for tensor in file.tensors.values()) == parameters
        assert {(t.dtype, t.is_contiguous(), t.requires_grad) for t in file.tensors.values()} == {
            (torch.float32, True, False)
        }
        assert not file.published


def test_the_networks_are_those_of_the_method() -> None:
    patch, over = NETWORKS[PATCH_FILE].shapes, NETWORKS[CONTEXT_FILE].shapes
    assert len(patch) == 6 + 12 * 12
    assert len(over) == 6 + 6 * 12
    assert patch["patch_embed.proj.weight"] == (384, 3, 16, 16)
    assert patch["pos_embed"] == (1, 197, 384)
    assert patch["blocks.11.mlp.fc1.weight"] == (1536, 384)
    assert over["phi.0.weight"] == (192, 384)
    assert over["blocks.5.attn.qkv.weight"] == (576, 192)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("wrap", [lambda s: {"teacher": s}, lambda s: s], ids=["teacher", "bare"])
def test_names_are_read_with_any_prefix(tmp_path, context, prefix, wrap) -> None:
    file = load_weights(written(tmp_path, wrap(prefixed(context, prefix))), CONTEXT_FILE)
    assert list(file.tensors) == list(NETWORKS[CONTEXT_FILE].shapes)
    assert digest(file.tensors) == digest(context)


def test_a_file_is_hashed_once(tmp_path, context, monkeypatch) -> None:
    hashed = []
    real = checkpoint.file_sha256

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(weights, "file_sha256", counted)
    file = load_weights(written(tmp_path, training(context)), CONTEXT_FILE)
    assert hashed == [PTH]
    assert file.sha256 == subprocess.check_output(["sha256sum", tmp_path / PTH], text=True).split()[0]


def test_a_missing_file_says_what_the_folder_holds(tmp_path) -> None:
    (tmp_path / "hipt.ckpt").touch()
    assert f"no {PTH} or .safetensors; it holds hipt.ckpt" in refused(tmp_path)
    assert "holds nothing that can be read" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm.bias": None}, "1 missing: norm.bias of 192"),
        ({"cls": torch.zeros(2, 3)}, "1 unexpected: cls of 2 x 3"),
        ({"pos_embed": torch.zeros(1, 257, 192)}, "pos_embed of 1 x 257 x 192 instead of 1 x 197 x 192"),
        ({f"blocks.{i}.norm1.bias": None for i in range(5)}, "blocks.2.norm1.bias of 192 and 2 more"),
        ({"norm.bias": torch.zeros(192, dtype=torch.int64)}, "norm.bias is torch.int64, not floating point"),
        ({"norm.bias": torch.full((192,), torch.nan)}, "192 of 192 values of norm.bias are NaN"),
        ({"norm.weight": torch.full((192,), 1e300, dtype=torch.float64)}, "192 of 192 values of norm.weight"),
        ({"norm.weight": torch.tensor([torch.inf] + [0.0] * 191)}, "1 of 192 values of norm.weight"),
        ({"norm.weight": [0.0] * 192}, "norm.weight (list)"),
        ({"norm.weight": np.float64(1)}, "norm.weight (UnreadObject)"),
        ({"norm.weight": torch.zeros(192).to_sparse()}, "norm.weight (Tensor)"),
        ({"norm.weight": torch.zeros(192, device="meta")}, "norm.weight (Tensor)"),
        ({"module.backbone.norm.bias": torch.zeros(192)}, "two tensors called norm.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, context, change, says) -> None:
    changed = {name: tensor for name, tensor in {**context, **change}.items() if tensor is not None}
    problem = refused(written(tmp_path, {"teacher": changed}))
    assert says in problem
    assert PTH in problem


def test_files_that_were_swapped_are_told(tmp_path, context) -> None:
    problem = refused(written(tmp_path, training(context), f"{PATCH_FILE}.pth"), PATCH_FILE)
    assert "is not ViT-256" in problem
    assert "It fits ViT-4K: are the two files swapped?" in problem


def test_converted_files_are_held_to_the_same(tmp_path, context) -> None:
    save_file({**context, "cls": torch.zeros(2)}, tmp_path / f"{CONTEXT_FILE}.safetensors")
    assert "1 unexpected: cls of 2" in refused(tmp_path)
    save_file({**context, "norm.bias": torch.full((192,), torch.nan)}, tmp_path / f"{CONTEXT_FILE}.safetensors")
    assert "NaN" in refused(tmp_path)


# Where the files lie


def empty_weights(folder: Path, suffixes: tuple[str, str] = (".pth", ".pth")) -> Path:
    folder.mkdir(parents=True)
    for which, suffix in zip(WEIGHT_FILES, suffixes, strict=True):
        (folder / f"{which}{suffix}").touch()
    return folder


def test_a_folder_has_weights_if_both_are_there_in_either_form(tmp_path) -> None:
    assert has_weights(empty_weights(tmp_path / "a"))
    assert has_weights(empty_weights(tmp_path / "b", (".safetensors", ".pth")))
    assert not has_weights(tmp_path)
    assert not has_weights(tmp_path / "nowhere")
    (tmp_path / "a" / PTH).unlink()
    assert not has_weights(tmp_path / "a")
    (tmp_path / "a" / PTH).mkdir()
    assert not has_weights(tmp_path / "a")


def test_weights_are_looked_for_in_order(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("ISCALE_WEIGHTS", raising=False)
    project = tmp_path / "slides" / "project"
    project.mkdir(parents=True)
    assert find_weights(None, project) is None
    beside = empty_weights(tmp_path / "slides" / "checkpoints")
    assert find_weights(None, project) == beside
    monkeypatch.chdir(project)
    assert find_weights(None, Path()) == beside
    inside = empty_weights(project / "checkpoints")
    assert find_weights(None, project) == inside
    named = empty_weights(tmp_path / "named")
    monkeypatch.setenv("ISCALE_WEIGHTS", str(named))
    assert find_weights(None, project) == named
    given = empty_weights(tmp_path / "given")
    assert find_weights(given, project) == given


def test_a_named_folder_must_hold_both(tmp_path, monkeypatch) -> None:
    folder = empty_weights(tmp_path / "checkpoints")
    (folder / PTH).rename(folder / "other.pth")
    monkeypatch.setenv("ISCALE_WEIGHTS", str(folder))
    for given, what in ((folder, "named for the weights"), (None, "that ISCALE_WEIGHTS names")):
        with pytest.raises(InputError) as caught:
            find_weights(given, tmp_path)
        assert what in caught.value.problem
        assert f"{folder}, does not hold {PTH} " in caught.value.problem
        assert "it holds other.pth, vit256_small_dino.pth" in caught.value.problem
    with pytest.raises(InputError, match=r"vit256_small_dino\.pth and vit4k_xs_dino\.pth .*nothing that can be read"):
        find_weights(tmp_path / "nowhere", tmp_path)


def test_the_places_searched_are_told(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("ISCALE_WEIGHTS", raising=False)
    project = tmp_path / "project"
    places = ("ISCALE_WEIGHTS (not set)", str(project / "checkpoints"), str(tmp_path / "checkpoints"))
    assert searched(project) == places


# Published or not


def test_the_published_file_is_known_by_its_sha256(tmp_path, context, monkeypatch) -> None:
    file = load_weights(written(tmp_path, training(context)), CONTEXT_FILE)
    assert not file.published
    assert notice(file) == (
        f"{PTH}: not the published file (sha256 {file.sha256[:12]}, published 2b0bd9e9a602); used all the same"
    )
    published = dataclasses.replace(NETWORKS[CONTEXT_FILE], published_sha256=file.sha256)
    monkeypatch.setitem(NETWORKS, CONTEXT_FILE, published)
    assert load_weights(tmp_path, CONTEXT_FILE).published
    assert notice(load_weights(tmp_path, CONTEXT_FILE)) is None
    save_file(context, tmp_path / f"{CONTEXT_FILE}.safetensors", {"source_sha256": file.sha256})
    converted = load_weights(tmp_path, CONTEXT_FILE)
    assert converted.path.suffix == ".safetensors"
    assert converted.published
    assert converted.sha256 != file.sha256 == converted.source_sha256
    save_file(context, tmp_path / f"{CONTEXT_FILE}.safetensors")
    assert notice(load_weights(tmp_path, CONTEXT_FILE)) == (
        f"{CONTEXT_FILE}.safetensors: not of the published file (it names no source, published {file.sha256[:12]}); "
        "used all the same"
    )


def test_the_digest_is_of_names_shapes_and_values() -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.arange(6.0).reshape(2, 3)}
    others = [
        {**tensors, "b": torch.tensor([1.0, 1.0000001])},
        {**tensors, "a": torch.arange(6.0).reshape(3, 2)},
        {"a": tensors["a"], "c": tensors["b"]},
        {"a": tensors["a"]},
    ]
    assert digest(tensors) == digest(same)
    assert len({digest(tensors), *map(digest, others)}) == 5

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from iscale.encoders import checkpoint, weights
from iscale.encoders.checkpoint import UnreadObject, read_checkpoint, write_tensors
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
from iscale.weights_command import convert_weights, verify_weights

PTH = f"{CONTEXT_FILE}.pth"
State = dict[str, Any]


def state(which: weights.Which = CONTEXT_FILE, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in NETWORKS[which].shapes.items()}


def prefixed(tensors: State, prefix: str = "module.backbone.") -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def training(tensors: State, **more: Any) -> dict[str, Any]:
    """A checkpoint as DINO's trainer writes it."""
    return {
        "student": {"module.backbone.norm.weight": torch.zeros(192)},
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "steps": np.int64(3)}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "teacher": {**prefixed(tensors), "module.head.mlp.0.weight": torch.zeros(8, 192)},
        **more,
    }


@pytest.fixture(scope="module")
def context() -> State:
    return state()


def written(folder: Path, content: object, name: str = PTH, **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder


def refused(folder: Path, which: weights.Which = CONTEXT_FILE) -> str:
    with pytest.raises(InputError) as caught:
        load_weights(folder, which)
    assert caught.value.remedy
    return caught.value.problem


def rewritten(
    path: Path,
    replace: dict[bytes, bytes],
    compression: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
) -> None:
    """Pack a checkpoint anew, with other bytes in its pickle."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            if name.endswith("data.pkl"):
                for old, new in replace.items():
                    assert old in data
                    data = data.replace(old, new)
            archive.writestr(name, data)
        for name, data in (more or {}).items():
            archive.writestr(name.replace("archive", next(iter(parts)).split("/")[0]), data)


def nothing_stays_admitted() -> bool:
    return "UnreadObject" not in str(torch.serialization.get_safe_globals())


# What is read


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floating_point_becomes_float32(tmp_path, context, dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in context.items()}
    file = load_weights(written(tmp_path, training(stored)), CONTEXT_FILE)
    assert all(torch.equal(file.tensors[name], tensor.float()) for name, tensor in stored.items())


def test_parameters_and_views_are_read_as_tensors(tmp_path, context) -> None:
    changed = {**context, "norm.bias": torch.nn.Parameter(context["norm.bias"])}
    changed["blocks.0.attn.proj.weight"] = context["blocks.0.attn.proj.weight"].T.contiguous().T
    file = load_weights(written(tmp_path, training(changed)), CONTEXT_FILE)
    assert digest(file.tensors) == digest(context)


def test_older_and_other_makers_files_are_read(tmp_path, context) -> None:
    """The form before torch 1.6, pickles of NumPy 1, weights saved on a GPU, archives packed anew with compression."""
    written(tmp_path, training(context), _use_new_zipfile_serialization=False)
    assert digest(load_weights(tmp_path, CONTEXT_FILE).tensors) == digest(context)
    path = written(tmp_path, training(context)) / PTH
    rewritten(path, {b"numpy._core.": b"numpy.core.", b"X\x03\x00\x00\x00cpu": b"X\x06\x00\x00\x00cuda:0"})
    assert digest(load_weights(tmp_path, CONTEXT_FILE).tensors) == digest(context)
    rewritten(path, {}, zipfile.ZIP_DEFLATED)
    assert digest(load_weights(tmp_path, CONTEXT_FILE).tensors) == digest(context)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_tensors_are_not_views_of_the_file(tmp_path, context, form) -> None:
    written(tmp_path, training(context))
    path = tmp_path / PTH
    if form == "safetensors":
        path = tmp_path / f"{CONTEXT_FILE}.safetensors"
        save_file(context, path)
    file = load_weights(tmp_path, CONTEXT_FILE)
    assert file.path == path
    with path.open("r+b") as stored:
        stored.write(bytes(path.stat().st_size))
    assert digest(file.tensors) == digest(context)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_does_not_hold_the_whole_file(tmp_path, context) -> None:
    padding = torch.zeros(200 * 2**20 // 4)
    written(tmp_path, training(context, student={"padding": padding}, optimizer={"state": {0: {"exp": padding}}}))
    assert (tmp_path / PTH).stat().st_size > 200 * 2**20
    measure = (
        "import sys, torch, safetensors\n"
        "from pathlib import Path\n"
        "from iscale.encoders.weights import load_weights\n"
        "def kib(key):\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(status.split(key + ':')[1].split()[0])\n"
        "before = kib('VmRSS')\n"
        "load_weights(Path(sys.argv[1]), 'vit4k_xs_dino')\n"
        "print(kib('VmHWM') - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", measure, tmp_path], check=True, capture_output=True, text=True)
    used = int(done.stdout) * 1024
    weights_bytes = 4 * sum(tensor.numel() for tensor in context.values())
    assert weights_bytes < used < 2 * weights_bytes + 60 * 2**20


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


def test_threads_can_read_at_once_and_nothing_stays_admitted(tmp_path, context, monkeypatch) -> None:
    """Torch's list of admitted names is one for all threads: one that ends must not take them from one that reads."""
    real, delays = torch.load, iter((0.0, 0.1, 0.02, 0.05))

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(next(delays))
        return real(*args, **options)

    monkeypatch.setattr(torch, "load", slow)
    written(tmp_path, training(context))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: load_weights(tmp_path, CONTEXT_FILE), range(4)))
    assert {digest(file.tensors) for file in files} == {digest(context)}
    assert nothing_stays_admitted()


# What is refused


class Call:
    """Has a function called by whoever unpickles it."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def calls(marker: Path) -> dict[str, Call]:
    """Ways to make a marker file or folder, by the name that the message must give."""
    return {
        "exec": Call(exec, f"open({str(marker)!r}, 'w').close()"),
        "posix.mkdir": Call(os.mkdir, str(marker)),
        "torch.serialization.save": Call(torch.save, 0, str(marker)),
        "shutil.copy": Call(shutil.copy, __file__, str(marker)),
    }


CALLS = list(calls(Path()))


@pytest.mark.parametrize("name", CALLS)
def test_the_hostile_calls_of_these_tests_are_able_to_do_harm(tmp_path, name) -> None:
    pickle.loads(pickle.dumps(calls(tmp_path / "marker")[name]))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["args", "teacher", "weight", "whole"])
@pytest.mark.parametrize("name", CALLS)
def test_code_in_a_pickle_never_runs(tmp_path, context, name, where, zipped) -> None:
    marker = tmp_path / "marker"
    call = calls(marker)[name]
    few = {name: context[name] for name in ("norm.weight", "norm.bias")}
    content = {
        "args": training(few, args=call),
        "teacher": {"teacher": call},
        "weight": {"teacher": {**few, "norm.bias": call}},
        "whole": call,
    }[where]
    problem = refused(written(tmp_path, content, _use_new_zipfile_serialization=zipped))
    assert not marker.exists()
    assert PTH in problem
    assert f"refers to {name}," in problem
    assert nothing_stays_admitted()


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_plain_pickles_of_any_protocol_never_runs(tmp_path, protocol) -> None:
    for name, call in calls(tmp_path / "marker").items():
        (tmp_path / PTH).write_bytes(pickle.dumps({"teacher": {}, "args": call}, protocol))
        assert PTH in refused(tmp_path)
        assert not (tmp_path / "marker").exists(), name


def test_what_a_trainer_leaves_is_not_rebuilt(tmp_path, context) -> None:
    written(tmp_path, training(context, best=np.float32(0.5)))
    content = read_checkpoint(tmp_path / PTH, "")
    assert isinstance(content, dict)
    found = [content["args"], content["best"], *content["optimizer"]["param_groups"][0].values()]
    assert [type(value) for value in found] == [UnreadObject] * 4
    assert [vars(value) for value in found] == [{}] * 4


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.99, 0.9999])
def test_a_file_cut_short_is_named(tmp_path, context, form, part) -> None:
    if form == "safetensors":
        path = tmp_path / f"{CONTEXT_FILE}.safetensors"
        save_file(context, path)
    else:
        path = written(tmp_path, training(context), _use_new_zipfile_serialization=form == "zip") / PTH
    kept = int(path.stat().st_size * part)
    os.truncate(path, kept)
    problem = refused(tmp_path)
    assert str(path) in problem
    assert f"{kept:,} bytes" in problem
    assert "cut short" in problem


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:6960\nsize 704238867\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"weights\n", "no checkpoint"),
        (bytes(5000), "no checkpoint"),
        (bytes(range(256)) * 40, "no checkpoint"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "cut short"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path, data, says) -> None:
    (tmp_path / PTH).write_bytes(data)
    problem = refused(tmp_path)
    assert says in problem
    assert PTH in problem
    with pytest.raises(InputError, match="395,710,078 bytes and the sha256 2b0bd9e9a602"):
        load_weights(tmp_path, CONTEXT_FILE)
    (tmp_path / f"{CONTEXT_FILE}.safetensors").write_bytes(data)
    assert "no safetensors file" in refused(tmp_path)


def test_other_forms_of_torch_are_refused_without_its_advice(tmp_path, context) -> None:
    with tarfile.open(tmp_path / PTH, "w") as archive:
        archive.add(__file__, "storages")
    assert refused(tmp_path).endswith("files saved in the legacy .tar format")
    rewritten(written(tmp_path, training(context)) / PTH, {}, more={"archive/constants.pkl": b""})
    assert refused(tmp_path).endswith("TorchScript archives passed to ``torch.load``")
    assert "torch.nn.modules.linear.Linear" in refused(written(tmp_path, torch.nn.Linear(2, 2)))


def test_damage_anywhere_in_a_pickle_is_an_input_error(tmp_path, context) -> None:
    """Whatever the bytes, the reader gives tensors or one clear error."""
    few = {name: context[name] for name in ("norm.weight", "norm.bias")}
    for zipped in (True, False):
        whole = (written(tmp_path, training(few), _use_new_zipfile_serialization=zipped) / PTH).read_bytes()
        rng = np.random.default_rng(1)
        for _ in range(150):
            data = bytearray(whole)
            for at in rng.integers(0, 1500, 3):
                data[at] = rng.integers(256)
            (tmp_path / PTH).write_bytes(data)
            assert PTH in refused(tmp_path)


def test_a_missing_file_says_what_the_folder_holds(tmp_path) -> None:
    (tmp_path / "hipt.ckpt").touch()
    assert f"no {PTH} or .safetensors; it holds hipt.ckpt" in refused(tmp_path)
    assert "holds nothing that can be read" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"norm.bias": None}, "1 missing: norm.bias (192,)"),
        ({"cls": torch.zeros(2, 3)}, "1 unexpected: cls (2, 3)"),
        ({"pos_embed": torch.zeros(1, 257, 192)}, "pos_embed (1, 257, 192) instead of (1, 197, 192)"),
        ({f"blocks.{i}.norm1.bias": None for i in range(5)}, "blocks.2.norm1.bias (192,) and 2 more"),
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "holds a list, not a checkpoint"),
        (torch.zeros(3), "holds a Tensor, not a checkpoint"),
        ({"teacher": [1]}, "holds a list under 'teacher'"),
        ({"teacher": None}, "holds a NoneType under 'teacher'"),
        ({"teacher": torch.zeros(3)}, "holds a Tensor under 'teacher'"),
        ({"teacher": argparse.Namespace()}, "holds a UnreadObject under 'teacher'"),
        ({"teacher": {}}, "it holds nothing"),
        ({"model": {"norm.bias": torch.zeros(192)}, "epoch": 3}, "it holds 'model', 'epoch'"),
        ({1: torch.zeros(192), "x": 3}, "it holds '1', 'x'"),
    ],
)
def test_other_content_is_named(tmp_path, content, says) -> None:
    assert says in refused(written(tmp_path, content))


def test_a_tensor_larger_than_its_numbers_is_refused_before_it_is_made(tmp_path, context) -> None:
    vast = torch.zeros(1).expand(2**40)
    assert "instead of (192,)" in refused(written(tmp_path, {"teacher": {**context, "norm.bias": vast}}))


def test_files_that_were_swapped_are_told(tmp_path, context) -> None:
    problem = refused(written(tmp_path, training(context), f"{PATCH_FILE}.pth"), PATCH_FILE)
    assert "is not ViT-256" in problem
    assert "It fits ViT-4K: are the two files swapped?" in problem


def test_converted_files_are_held_to_the_same(tmp_path, context) -> None:
    save_file({**context, "cls": torch.zeros(2)}, tmp_path / f"{CONTEXT_FILE}.safetensors")
    assert "1 unexpected: cls (2,)" in refused(tmp_path)
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


# Conversion and report


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


def test_a_write_that_fails_leaves_nothing(tmp_path, context, monkeypatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"w\.safetensors cannot be written: No space left on device"):
        write_tensors(tmp_path / "w.safetensors", context, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_tensors(tmp_path / "file" / "w.safetensors", context, {})


def test_written_files_are_readable_as_the_user_wishes(tmp_path) -> None:
    write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {})
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("w.safetensors", "plain")}
    assert len(modes) == 1


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

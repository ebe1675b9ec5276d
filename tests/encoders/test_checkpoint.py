"""Checkpoints of any maker and form: what is read exactly, what is refused without running anything in it."""

from __future__ import annotations

import argparse
import concurrent.futures
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
from safetensors.torch import save_file
from weight_files import PTH, State, refused, state, training, written

from iscale.encoders.checkpoint import UnreadObject, read_checkpoint, write_tensors
from iscale.encoders.weights import CONTEXT_FILE, digest, load_weights
from iscale.errors import InputError


@pytest.fixture(scope="module")
def context() -> State:
    return state()


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
    assert "instead of 192" in refused(written(tmp_path, {"teacher": {**context, "norm.bias": vast}}))


# What is written


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

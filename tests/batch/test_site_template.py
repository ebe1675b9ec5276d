"""The file that `iscale init --scheduler` writes: it is read as it is, and every line of it can be used."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from iscale.batch.clusters import job_script
from iscale.batch.settings import Pool, Site, read_site
from iscale.batch.template import template, write_template
from iscale.cli.app import main
from iscale.errors import InputError

SCHEDULERS = ["slurm", "lsf"]


def read(tmp_path: Path, text: str) -> Site:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return read_site(path)


def with_cards(text: str) -> str:
    """The part about cards as somebody has it who did what the text says."""
    before, mark, after = text.partition("# gpu:\n")
    return before + "".join(line.removeprefix("# ") for line in (mark + after).splitlines(keepends=True))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_it_is_read_as_it_is(tmp_path: Path, scheduler: str) -> None:
    site = read(tmp_path, template(scheduler))
    assert site.scheduler == scheduler
    assert site.gpu is None
    assert site.cpu.worker_bytes > 3e9
    assert "iscale-cpu" in job_script(site, "cpu", tmp_path)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_part_about_cards_needs_its_marks_removed_only(tmp_path: Path, scheduler: str) -> None:
    site = read(tmp_path, with_cards(template(scheduler)))
    assert site.gpu is not None
    assert (site.gpu.gpus, site.gpu.workers) == (1, 1)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_its_examples_can_be_used(tmp_path: Path, scheduler: str) -> None:
    text = with_cards(template(scheduler))
    text = re.sub(r"^( *)#  - ", r"\1 - ", text, flags=re.M)
    example = re.search(r"for instance: (.*)\n( *)gpu_directive:", text)
    assert example is not None
    text = text.replace("gpu_directive:", f"gpu_directive: {example[1]}")
    site = read(tmp_path, text)
    assert len(site.environment) == 2
    assert len(site.cpu.directives) == 1
    assert site.gpu is not None
    assert site.gpu.gpu_directive == example[1]
    script = job_script(site, "gpu", tmp_path)
    assert f" {example[1]}\n" in script


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_key_is_in_it(scheduler: str) -> None:
    text = with_cards(template(scheduler))
    only_lsf = {"memory_unit"}
    for key in set(Site.model_fields) | set(Pool.model_fields):
        assert bool(re.search(rf"^ *{key}:", text, re.M)) == (scheduler == "lsf" or key not in only_lsf), key


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["iscale", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_command_line_writes_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "slurm.yaml"
    assert run(["init", "--scheduler", "slurm", str(path)], monkeypatch) == 0
    told = capsys.readouterr().out
    assert "EDIT" in told
    assert f"--dask {path}" in told
    assert path.read_text() == template("slurm")
    path.write_text("mine")
    assert run(["init", "--scheduler", "slurm", str(path)], monkeypatch) == 2
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("scheduler", "name", "told"),
    [
        ("pbs", "pbs.yaml", "slurm, lsf"),
        ("slurm", "site", "site.yaml"),
        ("slurm", "no/such/folder/site.yaml", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path: Path, scheduler: str, name: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        write_template(scheduler, tmp_path / name)
    assert told in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_clusters_file_has_no_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "slurm.yaml"
    assert run(["init", "--scheduler", "slurm", str(path), "--mother", "he.tif"], monkeypatch) == 2
    assert "--mother" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "missing"), [([], "--mother and --capture"), (["--mother", "he.tif"], "needs --capture")]
)
def test_a_project_without_a_slide_or_captures_says_what_is_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    missing: str,
) -> None:
    assert run(["init", str(tmp_path / "P"), *arguments], monkeypatch) == 2
    assert missing in capsys.readouterr().err
    assert not (tmp_path / "P").exists()

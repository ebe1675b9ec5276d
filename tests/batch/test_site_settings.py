"""A site's YAML file: what it amounts to, and one clear error for whatever is wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from iscale.batch.settings import (
    JOB_OVERHEAD_BYTES,
    SHORTEST_S,
    Pool,
    lifetime,
    lsf_walltime,
    parse_walltime,
    read_site,
    slurm_walltime,
)
from iscale.engine.plan import BASELINE_BYTES
from iscale.errors import InputError

FILE = """\
scheduler: slurm
interface:
environment:
  - module load cuda
cpu:
  queue: long
  account:
  cores: 8
  workers: 4
  memory: 16GB
  walltime: '04:00:00'
  jobs: 3
gpu:
  queue: gpu
  cores: 4
  gpus: 1
  memory: 32GB
  walltime: '1-00:00:00'
  jobs: 2
"""


def written(tmp_path: Path, old: str = "", new: str = "") -> Path:
    assert not old or FILE.count(old) == 1
    path = tmp_path / "slurm.yaml"
    path.write_text(FILE.replace(old, new) if old else FILE)
    return path


def test_what_a_file_amounts_to(tmp_path: Path) -> None:
    site = read_site(written(tmp_path))
    assert site.scheduler == "slurm"
    assert site.interface is None, "a key without a value is as good as none"
    assert site.cpu.threads == 2
    assert site.cpu.walltime_s == 4 * 3600
    assert site.cpu.worker_bytes * 4 + JOB_OVERHEAD_BYTES == pytest.approx(16e9, abs=4)
    assert site.gpu is not None
    assert (site.gpu.workers, site.gpu.threads, site.gpu.walltime_s) == (1, 4, 86400)


def test_a_site_without_cards_has_no_gpu_pool(tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(FILE[: FILE.index("gpu:")])
    with pytest.raises(InputError, match="no gpu pool"):
        read_site(path).pool("gpu")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("cores: 8", "cores: eight", ["cpu.cores = 'eight'", "give a whole number of 1 or more"]),
        ("cores: 8", "cores: 0", ["cpu.cores = 0"]),
        ("cores: 8", "", ["cpu.cores is missing"]),
        ("jobs: 3", "jobs:", ["cpu.jobs is missing"]),
        ("jobs: 3", "jobs: 0", ["cpu.jobs = 0"]),
        ("cores: 8", "cors: 8", ["cpu.cors = 8", "no such key", "cores"]),
        ("interface:", "interfaces: ib0", ["interfaces = 'ib0'", "no such key", "interface"]),
        ("workers: 4", "workers: 9", ["9 workers share 8 cores"]),
        ("memory: 16GB", "memory: 16", ["cpu.memory = 16", "such as 16GB"]),
        ("memory: 16GB", "memory: plenty", ["cpu.memory = 'plenty'", "such as 2GB or 1500MB"]),
        ("memory: 16GB", "memory: 2GB", ["memory 2GB leaves 474 MB to each of 4 workers", "2.62 GB"]),
        ("'04:00:00'", "12:00:00", ["cpu.walltime = 43200", "quotes"]),
        ("'04:00:00'", "'04:00'", ["cpu.walltime = '04:00'", "'04:00:00'"]),
        ("'04:00:00'", "'00:04:59'", ["cpu.walltime = '00:04:59'", "299 seconds", "5 minutes"]),
        ("'04:00:00'", "four hours", ["cpu.walltime = 'four hours'", "'04:00:00'"]),
        ("'04:00:00'", "'04:60:00'", ["cpu.walltime = '04:60:00'"]),
        ("queue: long", "queue: on", ["cpu.queue = True", "quotes"]),
        ("queue: long", "queue: 3", ["cpu.queue = 3", "quotes"]),
        ("queue: long", "queue: long q", ["cpu.queue = 'long q'", "no blanks"]),
        ("  - module load cuda", "  - module: cuda", ["environment.0 = {'module': 'cuda'}", "quotes"]),
        ("  - module load cuda", "  module load cuda", ["environment = 'module load cuda'", "list"]),
        ("jobs: 3", "jobs: 3\n  directives: [constraint=a100]", ["'constraint=a100' is not one option", "dash"]),
        ("jobs: 3", 'jobs: 3\n  directives: ["--a\\n"]', ["cpu.directives", "not one option"]),
        ("jobs: 3", "jobs: 3\n  gpus: 1", ["cpu.gpus = 1", "gpu:"]),
        ("gpus: 1", "gpus: 2\n  workers: 2", ["gpu.gpus = 2, gpu.workers = 2", "raise gpu.jobs"]),
        ("gpus: 1", "", ["gpu.gpus = 0, gpu.workers = 1", "gpus: 1"]),
        ("gpus: 1", "gpus: 1\n  workers: 2", ["gpu.gpus = 1, gpu.workers = 2"]),
        ("scheduler: slurm", "scheduler: pbs", ["scheduler = 'pbs'", "give slurm or lsf"]),
        ("scheduler: slurm\n", "", ["scheduler is missing"]),
        ("scheduler: slurm\n", "scheduler: slurm\nlog_directory: 7\n", ["log_directory = 7", "quotes"]),
        ("scheduler: slurm", "scheduler slurm", ["not valid YAML", "line 2"]),
        ("  cores: 8", "\tcores: 8", ["not valid YAML", "line 8, column 1", "'\\t'", "spaces"]),
        ("account:", "account: 2024-13-45", ["not valid YAML", "quotes"]),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_value(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    path = written(tmp_path, old, new)
    with pytest.raises(InputError) as caught:
        read_site(path)
    message = str(caught.value)
    assert str(path) in message
    assert caught.value.remedy
    for words in told:
        assert words in message


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(FILE.replace("cores: 8", "cores: eight").replace("jobs: 2", "jobs: two").replace("slurm", "sge"))
    with pytest.raises(InputError) as caught:
        read_site(path)
    assert [line.split(" = ")[0].split(": ")[-1] for line in caught.value.problem.splitlines()] == [
        "scheduler",
        "cpu.cores",
        "gpu.jobs",
    ]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"- slurm\n", b"42", b"{", b"\xff\xfe\x00", b"a: \x00"])
def test_what_is_not_keys_and_values(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"slurm\.yaml"):
        read_site(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: No such file.*\n.*iscale init --scheduler"):
        read_site(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="Is a directory"):
        read_site(tmp_path)


def test_lsf_has_walltimes_of_hours_and_minutes(tmp_path: Path) -> None:
    text = FILE.replace("slurm", "lsf").replace("'04:00:00'", "'04:00'")
    path = tmp_path / "lsf.yaml"
    path.write_text(text)
    site = read_site(path)
    assert site.cpu.walltime_s == 4 * 3600
    assert site.gpu is not None
    assert site.gpu.walltime_s == 86400


@given(
    workers=st.integers(1, 64),
    cores=st.integers(1, 64),
    memory=st.integers(1, 2000),
)
def test_workers_never_have_more_than_their_job(workers: int, cores: int, memory: int) -> None:
    fields: dict[str, Any] = {"cores": cores, "workers": workers, "memory": f"{memory}GB", "walltime": "1:00:00"}
    try:
        pool = Pool(jobs=1, **fields)
    except ValidationError:
        assert workers > cores or memory * 10**9 < workers * BASELINE_BYTES + JOB_OVERHEAD_BYTES
        return
    assert 1 <= pool.threads * workers <= cores
    assert pool.worker_bytes >= BASELINE_BYTES
    assert pool.worker_bytes * workers + JOB_OVERHEAD_BYTES <= memory * 10**9


@given(st.integers(SHORTEST_S, 10**6))
def test_a_worker_leaves_between_half_a_minute_after_its_start_and_the_margin(seconds: int) -> None:
    mean, stagger = lifetime(seconds)
    assert seconds - 600 - 1 <= mean + stagger <= seconds - 60
    assert mean + stagger <= 0.9 * seconds + 1 or seconds > 6000
    assert mean - stagger >= 0.5 * seconds


@given(st.integers(SHORTEST_S, 10**6))
def test_walltimes_are_what_the_batch_system_is_told(seconds: int) -> None:
    assert parse_walltime(slurm_walltime(seconds)) == seconds
    assert parse_walltime(lsf_walltime(seconds)) == seconds // 60 * 60

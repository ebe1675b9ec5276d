"""A real SLURM on this machine, for tests that are marked ``cluster``; `make test-cluster` runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iscale.pipeline.run import run

SCRIPT = Path(__file__).with_name("slurm.sh")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("ISCALE_CLUSTER_TESTS") == "1":
        return
    skip = pytest.mark.skip(reason="needs a batch system: `make test-cluster` starts one")
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def demo_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in demo as a project folder, on a slide of 3 x 3 shards."""
    from iscale.demo.synthetic import write_demo

    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, side_px=5120)
    return folder


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """A SLURM of one node that says it has 4 cores: its environment, which is this process' meanwhile."""
    # Not below pytest's folder: sockets' paths are short, and daemons enter it by themselves.
    folder = tempfile.mkdtemp(prefix="iscale-slurm-")
    environment = {"SLURM_TEST_DIR": folder, "SLURM_TEST_CPUS": "4"}
    started = subprocess.run([SCRIPT, "start"], env=os.environ | environment, capture_output=True, text=True)
    if started.returncode == 77:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    environment["SLURM_CONF"] = started.stdout.strip().removeprefix("export SLURM_CONF=")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield environment
        finally:
            subprocess.run([SCRIPT, "stop"], check=True)
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def begun(demo_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder in which all is done that comes before features."""
    return run(demo_project, stage="tissue", out=tmp_path_factory.mktemp("begun"), region_shards=1)


@pytest.fixture(scope="session")
def undisturbed(demo_project: Path, begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    from disturbed import Started

    out = tmp_path_factory.mktemp("undisturbed") / "out"
    shutil.copytree(begun, out)
    Started(demo_project, out).ends()
    return out


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the queue empty, whatever became of the one before."""
    yield
    if "slurm" not in request.fixturenames:
        return
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=False)
    for _ in range(1000):
        if not subprocess.check_output(["squeue", "--noheader"]).strip():
            return
        time.sleep(0.3)
    pytest.fail("jobs do not end: " + subprocess.check_output(["squeue"], text=True))

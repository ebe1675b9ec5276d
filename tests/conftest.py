"""Fixtures shared by all tests: where the real data lie."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

# As a module with doctests it would be imported by the name that conftest.py of tests/services has by then.
collect_ignore = ["conftest.py"]

# Times are of shared machines: no example is judged by its own, nor how long it takes to think of one.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# As the command line does: on a busy machine threads that spin while they wait make everything several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Every testing process stays on a core of its own: threads of several that wait for each other take half as long again.
# What was loaded before counted all cores, and its threads would spin for one.
if (_number := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")) and hasattr(os, "sched_setaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(_number) % len(_cores)]})
    threadpool_limits(1)


LONG = (
    "test_exactness.py",
    "test_command.py",
    "test_results.py",
    "test_bad_input.py",
    "test_worker_deaths.py",
    "test_hipt_run.py",
    "test_check_project.py",
    "test_automatic.py",
    "test_put_aside.py",
    "test_align_command.py",
    "test_report_stage.py",
    "test_cluster_stage.py",
    "test_instrument_to_map.py",
    "test_workers_leave_and_join.py",
    "test_hipt.py",
)
"""Files of tests that take a quarter of a minute or more: begun first, so that no process is left with one at the end.

Of those that share a run (see below) the first makes it while other processes have much else to do.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, all else in its order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: the real data this test reads are not at hand")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"{variable}={value} is not a folder: the real data this test reads are not at hand")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real inputs (slides, captures) that ``ISCALE_DATA`` names."""
    return _folder("ISCALE_DATA")


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of reference outputs that ``ISCALE_GOLDEN`` names."""
    return _folder("ISCALE_GOLDEN")


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the testing processes makes and all of them read: who changes anything takes a copy."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def stand_in_weights(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with HIPT's two weight files in the published form, values drawn: the published may not be handed on."""
    command = [sys.executable, golden_dir / "make_stand_in_weights.py"]
    return _made_once(tmp_path_factory, "weights", lambda folder: subprocess.run([*command, folder], check=True))


@pytest.fixture(scope="module")
def tissue_learnt_once() -> Iterator[None]:
    """What is tissue of an overview is found once: tests of a file look at the same few."""
    import numpy as np

    from iscale.align import structure

    learn, known = structure.learn_tissue, {}

    def once(rgb: np.ndarray, *rest: Any) -> Any:
        key = (rgb.shape, hashlib.sha256(np.ascontiguousarray(rgb)).digest(), rest)
        model, classes = known[key] = known.get(key) or learn(rgb, *rest)
        return model, classes.copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "learn_tissue", once)
        yield


@pytest.fixture(scope="session")
def her2st_few_genes(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three sections of her2st with one gene in fifteen, and a few well-known ones: tables are read fast."""
    import pandas as pd

    def make(folder: Path) -> None:
        for path in (data_dir / "her2st").iterdir():
            if not path.name.endswith(".counts.tsv.gz"):
                (folder / path.name).symlink_to(path.resolve())
        read = {
            path: pd.read_csv(path, sep="\t", index_col=0) for path in (data_dir / "her2st").glob("*.counts.tsv.gz")
        }
        shared = sorted(set.intersection(*(set(table.columns) for table in read.values())))
        genes = sorted({*shared[::15], "GAPDH", "ERBB2", "COL1A1", "FASN"})
        for path, table in read.items():
            table[genes].to_csv(folder / path.name, sep="\t", compression={"method": "gzip", "compresslevel": 1})

    return _made_once(tmp_path_factory, "her2st", make)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo on a slide of 3,072 px, run to its end and held against its truth, clusters in 6 and in 10.

    ``project`` and ``project-truth.npz`` of the folder, and ``said.txt``: what the command says of it.
    """
    from iscale.demo.command import synthetic_demo
    from iscale.demo.synthetic import write_demo
    from iscale.engine.watchers import Silence
    from iscale.trust.evaluate import evaluate_run

    def make(folder: Path) -> None:
        truth = write_demo(folder / "project", side_px=3072)
        (folder / "said.txt").write_text(synthetic_demo(folder, n_plots=2, n_clusters=(6, 10)))
        evaluate_run(folder / "project", truth.path, watcher=Silence())

    return _made_once(tmp_path_factory, "demo", make)


@pytest.fixture(scope="session")
def tiny_original_run(tiny_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_original`, run to its end with figures of three genes. To copy."""
    import iscale

    def make(folder: Path) -> None:
        shutil.copytree(tiny_original, folder / "project")
        iscale.run(folder / "project", n_plots=3)

    return _made_once(tmp_path_factory, "tiny_run", make) / "project"


@pytest.fixture
def tiny_run(tiny_original_run: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_original_run` of the test's own."""
    return Path(shutil.copytree(tiny_original_run, tmp_path / "project"))


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid project that takes no time: 1,024 px of stained noise on glass, two captures of 6 x 6 spots. To copy."""
    import numpy as np
    from PIL import Image

    project = tmp_path_factory.mktemp("tiny") / "project"
    rng = np.random.default_rng(0)
    image = np.full((1024, 1024, 3), 245, np.uint8)
    stain = rng.normal(0, 25, (96, 96, 1)).repeat(8, axis=0).repeat(8, axis=1)
    image[128:896, 128:896] = np.clip(rng.normal((170, 110, 170), 10, (768, 768, 3)) + stain, 0, 255)
    mother = project / "MotherImage"
    mother.mkdir(parents=True)
    Image.fromarray(image).save(mother / "he-raw.png")
    (mother / "pixel-size-raw.txt").write_text("0.5\n")
    (mother / "radius-raw.txt").write_text("40\n")
    for name in ("D1", "D2"):
        folder = project / "DaughterCaptures" / "AllignedToMother" / name
        folder.mkdir(parents=True)
        at = np.linspace(230, 790, 6) + (0 if name == "D1" else 5)
        rows = [f"s{i}{j}" for i in range(6) for j in range(6)]
        counts = rng.poisson(5, (36, 8))
        table = ["\t".join(["spot", *(f"G{g}" for g in range(8))])]
        table += ["\t".join([row, *map(str, values)]) for row, values in zip(rows, counts, strict=True)]
        (folder / "cnts.tsv").write_text("\n".join(table) + "\n")
        places = [f"s{i}{j}\t{at[j]:.0f}\t{at[i] + 40:.0f}" for i in range(6) for j in range(6)]
        (folder / "locs.tsv").write_text("\n".join(["spot\tx\ty", *places]) + "\n")
    return project


@pytest.fixture
def tiny_project(tiny_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `tiny_original` of the test's own; how good its clusters are is no matter."""
    from iscale.regions import centres

    monkeypatch.setattr(centres, "STARTS", 2)
    return Path(shutil.copytree(tiny_original, tmp_path / "project"))


@pytest.fixture
def bare_project(tmp_path: Path) -> Path:
    """The smallest project, by names of files only: captures D1 and D2 are aligned, D3 is not."""
    texts = {"MotherImage/he-raw.svs": "x", "MotherImage/radius-raw.txt": "110\n"}
    for name in ("D2", "D1"):
        texts[f"DaughterCaptures/AllignedToMother/{name}/locs.tsv"] = "x"
        texts[f"DaughterCaptures/AllignedToMother/{name}/cnts.tsv.gz"] = "x"
    texts["DaughterCaptures/UnallignedToMother/D3/locs.tsv"] = "x"
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path

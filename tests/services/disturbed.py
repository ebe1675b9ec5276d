"""Runs of the whole program that a test disturbs, and what must hold of them in the end."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import iscale

OPTIONS = ("--n-genes", "6", "--region-shards", "1")
REGIONS = 9
LOCAL = ("--dask", "local", "--workers", "2")
LIMIT_S = 600.0
"""How long anything is waited for: many times what it takes."""
MARK = "ISCALE_TEST_RUN"
STARTED_BY = "import sys; {}; from iscale.cli.app import main; sys.argv[0] = 'iscale'; main()"


def until(what: Callable[[], Any], say: Callable[[], str] = str) -> float:
    """Wait until something holds; seconds that it took."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() - start < LIMIT_S, f"not within {LIMIT_S} s\n{say()}"
        time.sleep(0.1)
    return time.monotonic() - start


class Started:
    """``iscale predict`` in a process group of its own, as a shell starts it.

    Parameters
    ----------
    project, out
        The project, and the output folder.
    dask
        Options that name the workers.
    told
        Gets what is printed; by default a file beside the output folder.
    patch
        Python to run before the program, where a test cannot wait as long as the program would.
    environment
        Variables besides.
    """

    def __init__(
        self,
        project: Path,
        out: Path,
        dask: tuple[str, ...] = LOCAL,
        *,
        told: Path | None = None,
        patch: str = "",
        **environment: str,
    ) -> None:
        self.out = out
        self.mark = uuid.uuid4().hex
        begin = ["-c", STARTED_BY.format(patch)] if patch else ["-m", "iscale"]
        command = [sys.executable, *begin, "predict", str(project), "--out", str(out), *OPTIONS, *dask]
        self._told = told or out.parent / "told"
        # As a shell in front of a person does: what starts tests (nohup, a job in the background) may ignore signals.
        command = ["env", "--default-signal=INT,HUP,TERM", *command]
        variables = os.environ | {"OMP_NUM_THREADS": "1", MARK: self.mark} | environment
        with self._told.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=variables, start_new_session=True
            )

    @property
    def told(self) -> str:
        """All that was printed."""
        return self._told.read_text(errors="replace")

    def until(self, what: Callable[[], Any]) -> None:
        """Wait for something while the run is at work."""

        def holds() -> Any:
            assert self.process.poll() is None, f"the run ended before\n{self.told}"
            return what()

        until(holds, lambda: self.told)

    def until_regions(self, count: int, step: str = "features") -> int:
        """Wait until so many regions are done; how many are."""
        self.until(lambda: len(recorded(self.out, step)) >= count)
        return len(recorded(self.out, step))

    def ends(self, code: int = 0) -> str:
        """Wait for the end with this exit code; all that was printed."""
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still at work after {LIMIT_S} s\n{self.told}") from None
        assert self.process.returncode == code, self.told
        assert "Traceback" not in self.told
        if code:
            assert self.told.count("Error:") == 1, self.told
        return self.told

    def workers(self) -> list[psutil.Process]:
        """Worker processes of ``--dask local``."""
        return [child for child in psutil.Process(self.process.pid).children() if "spawn_main" in _line(child)]

    def left(self) -> list[str]:
        """Command lines of all processes that the run started and that live."""
        return left(self.mark)


def left(mark: str) -> list[str]:
    """Command lines of living processes whose environment has a mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(_line(process))
        except psutil.Error:
            continue
    return found


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def recorded(out: Path, step: str) -> list[tuple[int, ...]]:
    """Regions in a ledger."""
    ledger = out / ".iscale" / f"{step}.jsonl"
    if not ledger.exists():
        return []
    lines = ledger.read_text().split("\n")
    return [tuple(json.loads(line)["region"]) for line in lines[:-1] if '"region"' in line]


def reused(out: Path, step: str = "features") -> int:
    """Regions of a step that the last run found done."""
    records = json.loads((out / "report.json").read_text())["steps"]
    return next(int(record["reused"]) for record in records if record["step"] == step)


def check_same(out: Path, reference: Path) -> None:
    """Nothing was done twice, nothing is torn or left over, and the arrays are those of an undisturbed run."""
    for ledger in (reference / ".iscale").glob("*.jsonl"):
        regions = Counter(recorded(out, ledger.stem))
        assert regions == Counter(recorded(reference, ledger.stem)), ledger.stem
        assert set(regions.values()) == {1}, ledger.stem
    assert list(out.rglob("*.partial")) == []
    for group in ("tissue", "features"):
        assert _digests(out / "run.zarr" / group) == _digests(reference / "run.zarr" / group)
    one, other = (np.asarray(iscale.open_run(path).expression.values, np.float16) for path in (out, reference))
    assert np.array_equal(np.isnan(one), np.isnan(other))
    units = [np.nan_to_num(values).view(np.int16).astype(np.int32) for values in (one, other)]
    assert int(np.abs(units[0] - units[1]).max()) <= 1, "float16 units"


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

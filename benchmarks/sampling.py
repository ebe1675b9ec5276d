"""Running the program as a user would, and what its processes and its report say of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

WORKER_BYTES = 150e6
"""A child that never grew over this is not a worker (a resource tracker, a decoder that exited)."""

SECONDS_BETWEEN = 0.05
STAGES = ("ingest", "tissue", "features", "fit", "predict", "refine", "cluster", "holdout", "plot", "report")


def peak_of(pid: int) -> int:
    """Peak resident bytes of a process so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


@dataclass(frozen=True)
class Sampled:
    """What the processes of a command took.

    Attributes
    ----------
    seconds
        From its start to its end.
    own_bytes
        Peak resident memory of the command's process.
    worker_bytes
        The highest of its descendants; 0 where none was as large as a worker.
    """

    seconds: float
    own_bytes: int
    worker_bytes: int


def sample(arguments: list[str], environment: dict[str, str] | None = None) -> Sampled:
    """Run ``iscale`` with these arguments, looking at every process of its tree until it ends.

    The peak of a process is the kernel's own count (``VmHWM``), so what happens between two looks is in it too.

    Raises
    ------
    SystemExit
        If the command fails, with the end of what it said.
    """
    command = [sys.executable, "-m", "iscale", *arguments]
    own, children = 0, dict[int, int]()
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        run = subprocess.Popen(
            command, stderr=said, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
        while run.poll() is None:
            own = max(own, peak_of(run.pid))
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(run.pid).children(recursive=True):
                    children[child.pid] = max(children.get(child.pid, 0), peak_of(child.pid))
            time.sleep(SECONDS_BETWEEN)
        seconds = time.perf_counter() - begin
        if run.returncode:
            said.seek(0)
            end = said.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{' '.join(command)}: exit code {run.returncode}\n{end}")
    return Sampled(seconds, own, max((peak for peak in children.values() if peak > WORKER_BYTES), default=0))


@dataclass(frozen=True)
class StageFigures:
    """What a run's report says of its stages.

    Attributes
    ----------
    seconds
        Wall seconds by stage, of `STAGES`; those of its steps together.
    projected_bytes
        The largest projection of a worker's memory, over all steps.
    """

    seconds: dict[str, float]
    projected_bytes: int


def stage_figures(out: Path) -> StageFigures:
    """Read the report of the run in an output folder."""
    steps = json.loads((out / "report.json").read_text())["steps"]
    seconds = dict.fromkeys(STAGES, 0.0)
    for step in steps:
        seconds[stage_of(step["step"])] += step["seconds"]
    return StageFigures(seconds, max(step["projected_bytes"] for step in steps))


def stage_of(step: str) -> str:
    """The stage that a step belongs to.

    >>> stage_of("image/3"), stage_of("features/patches"), stage_of("integrate")
    ('ingest', 'features', 'fit')
    """
    family = step.split("/")[0]
    return {"image": "ingest", "integrate": "fit"}.get(family, family)


def disk_bytes(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

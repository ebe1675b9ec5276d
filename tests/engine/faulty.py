"""A step whose regions fail, die, hang or take long as files of a folder tell, and what is left of a run of it."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
from distributed import LocalCluster

from iscale.engine.dask_workers import SETTINGS
from iscale.engine.drivers import Driver
from iscale.engine.execute import StepReport, execute
from iscale.engine.ledger import Ledger, fingerprint
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.engine.watchers import Silence
from iscale.errors import StoreUnreachableError
from iscale.geometry import Region

REGIONS = 12


def told(folder: Path, what: str, name: str) -> bool:
    """Whether a file tells to do something to a region; it holds how often, and counts down."""
    path = folder / f"{what}-{name}"
    if not path.exists():
        return False
    left = int(path.read_text() or 1)
    if left > 1:
        path.write_text(str(left - 1))
    else:
        path.unlink()
    return True


def work(folder: Path, region: Region) -> int:
    """Leave a trace of every call, with the process that ran it; do as files in the folder tell."""
    name = f"{region.y0}-{region.x0}"
    with (folder / f"calls-{name}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if told(folder, "kill", name):
        os.kill(os.getpid(), signal.SIGKILL)
    if told(folder, "stop", name):
        os.kill(os.getpid(), signal.SIGSTOP)
    if told(folder, "silent", name):
        time.sleep(600)
    if told(folder, "grow", name):
        kept = []
        while True:
            kept.append(bytes(b"x" * (16 * 2**20)))
            time.sleep(0.02)
    if told(folder, "stale", name):
        raise OSError(errno.ESTALE, "Stale file handle", "shard")
    if told(folder, "unreachable", name):
        raise StoreUnreachableError("run.zarr is not there.", "It was removed.")
    pace = folder / "seconds"
    time.sleep(float(pace.read_text()) if pace.exists() else 0)
    return region.area


def a_step(folder: Path) -> Step:
    plan = plan_regions("t", (5, 7), (2, 2), lambda _: 1, Resources(2**31, shards_per_side=1))
    return Step("t", work, folder, plan, fingerprint("t", {}))


def run(step: Step, folder: Path, driver: Driver) -> StepReport:
    return execute(step, driver, Ledger(folder / "ledger", step.name), Silence())


def calls(folder: Path) -> dict[str, list[str]]:
    """Processes that were at a region, by its name, in order."""
    return {path.name.removeprefix("calls-"): path.read_text().split() for path in folder.glob("calls-*")}


def recorded(folder: Path) -> Counter[tuple[int, ...]]:
    """How often each region stands in the ledger."""
    lines = [json.loads(line) for line in (folder / "ledger" / "t.jsonl").read_text().splitlines() if line]
    return Counter(tuple(line["region"]) for line in lines[1:])


def all_once(folder: Path, again: str = "", times: int = 1) -> None:
    """Every region stands once in the ledger and was computed once, but one so many times."""
    assert list(recorded(folder).values()) == [1] * REGIONS
    counts = {name: len(pids) for name, pids in calls(folder).items()}
    assert counts == dict.fromkeys(counts, 1) | ({again: times} if again else {})


def until(what: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def threads_cluster(workers: int, threads_per_worker: int = 1) -> LocalCluster:
    with dask.config.set({**SETTINGS, "distributed.worker.preload": []}):
        return LocalCluster(
            n_workers=workers,
            processes=False,
            threads_per_worker=threads_per_worker,
            memory_limit=0,
            dashboard_address=None,
        )

"""The Dask side of a whole slide without its work: tasks, rate, and memory of the process that drives it.

``make bench-scheduler``. A slide of 100,000 x 100,000 px that has a header and no pixels is planned as any other; then
every step of the plan is run with a kernel that does nothing, by the program's own driver, ledger and all, on local
worker processes. What is measured is what Dask costs: the process that holds client and scheduler, and the time
of a task.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.report import machine, publish, table
from benchmarks.sampling import peak_of
from benchmarks.slides import lay_out_empty
from iscale.engine.drivers import Driver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources, single_task
from iscale.engine.step import Step, nothing
from iscale.engine.watchers import Silence
from iscale.options import load_options
from iscale.plan.job import Job
from iscale.plan.steps import steps
from iscale.plan.workers import open_driver
from iscale.stages import stage_called


def plan(project: Path, genes: int, shards: int | None, plots: int) -> list[Step]:
    """The steps of a whole run."""
    settings = {"encoder": "texture", "n_genes": genes, "n_plots": plots, "region_shards": shards}
    job = Job(project, load_options(project, settings))
    return list(steps(job, stage_called("report")))


def emptied(step: Step) -> Step:
    """The step with its regions and its context, that reads and writes nothing."""
    return replace(step, kernel=nothing, outputs=(), prepare=nothing, finish=nothing)


def megabytes() -> float:
    """Peak resident memory of this process, in MB."""
    return peak_of(os.getpid()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--plots", type=int, default=30)
    parser.add_argument("--region-shards", type=int, default=1, help="1: the most tasks that a plan can have")
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lay_out_empty(Path(name) / "project", options.side, options.genes)
        planned = plan(Path(name) / "project", options.genes, options.region_shards, options.plots)
        after_plan = megabytes()
        rows, tasks, seconds = [], 0, 0.0
        with open_driver("local", options.workers, 2 * 10**9) as driver:
            start(driver)
            after_start = megabytes()
            for step in planned:
                begin = time.perf_counter()
                execute(emptied(step), driver, Ledger(Path(name), step.name), Silence())
                took, regions = time.perf_counter() - begin, len(step.plan.regions)
                tasks, seconds = tasks + regions, seconds + took
                rows.append([step.name, str(regions), f"{took:.1f}", f"{regions / took:.0f}", f"{megabytes():.0f}"])
                print(rows[-1], flush=True)
    rows.append(["all", f"{tasks:,}", f"{seconds:.1f}", f"{tasks / seconds:.0f}", f"{megabytes():.0f}"])
    text = (
        f"{options.side:,} x {options.side:,} px, {options.genes} genes, `--encoder texture --region-shards "
        f"{options.region_shards}`, kernels that do nothing on {options.workers} worker processes; {machine()}. "
        f"Peak of the driving process, scheduler and client in it: {after_plan:.0f} MB when all was planned, "
        f"{after_start:.0f} MB when the workers were there, {megabytes():.0f} MB in the end.\n\n"
    ) + table(["step", "tasks", "s", "tasks/s", "peak so far, MB"], rows)
    if options.no_publish:
        print(text)
    else:
        publish("scheduler", text)


def start(driver: Driver) -> None:
    """Have the workers started, which a driver does with its first region."""
    step = Step("start", nothing, None, single_task("start", 0, Resources(2 * 10**9)), "")
    for _ in driver.map(step, step.plan.regions):
        pass


if __name__ == "__main__":
    main()

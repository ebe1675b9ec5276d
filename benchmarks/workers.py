"""What a second worker gains, and what Dask costs: features and predict, one compute thread per worker.

``make bench-workers``. One slide is prepared once; then the stages are run anew, in turns: without Dask (``serial``),
on one Dask worker, on two, and so again. Every compute library has one thread in each of them. Times are those of the
run's report, from a stage's first task to its last; workers have been started and have imported what kernels need
before. Regions are single shards in all three, so that the tasks are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.report import machine, publish, table
from benchmarks.sampling import stage_figures
from benchmarks.slides import bytes_of_run, check_room, lay_out
from iscale.engine.dask_workers import SETTINGS, thread_variables
from iscale.results import open_run

TIMED = {"features": "features", "predict": "expression"}
"""Stages, and the group of the store that each fills."""

WAYS = ("serial", "1 worker", "2 workers")


@contextlib.contextmanager
def scheduler(workers: int, memory: str) -> Iterator[str]:
    """A scheduler in this process with single-threaded workers in their own; yields its address."""
    import dask
    from distributed import LocalCluster

    with dask.config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": thread_variables(1)}):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory,
            dashboard_address=None,
            host="127.0.0.1",
            silence_logs=40,
        )
    with cluster, cluster.get_client() as client:
        client.run(warm)
        yield cluster.scheduler_address


def warm() -> None:
    """Import what the kernels need, which every worker does once."""
    for module in ("iscale.features.by_region", "iscale.encoders.filter_bank", "iscale.model.predict_stage"):
        importlib.import_module(module)


def run(arguments: list[str], *dask: str) -> None:
    """Run ``iscale`` with one compute thread."""
    command = [sys.executable, "-m", "iscale", *arguments, *dask]
    done = subprocess.run(
        command, env={**os.environ, **thread_variables(1)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")


def timed(way: str, arguments: list[str], out: Path, memory: str) -> dict[str, float]:
    """Run the stages anew in one of the ways; seconds by stage."""
    for group in TIMED.values():
        shutil.rmtree(out / "run.zarr" / group)
    if way == "serial":
        run(arguments)
    else:
        workers = int(way.split()[0])
        with scheduler(workers, memory) as address:
            run(arguments, "--dask", address, "--workers", str(workers))
    seconds = stage_figures(out).seconds
    return {stage: seconds[stage] for stage in TIMED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=28672)
    parser.add_argument("--tissue", type=float, default=0.4)
    parser.add_argument("--genes", type=int, default=400)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    check_room(Path(tempfile.gettempdir()), bytes_of_run(options.side, options.genes, options.tissue))
    with tempfile.TemporaryDirectory() as name:
        project, out = Path(name) / "project", Path(name) / "run"
        lay_out(project, options.side, options.genes, options.tissue, off_tissue=False)
        arguments = ["predict", str(project), "--out", str(out), "--encoder", "texture", "--memory", options.memory]
        arguments += ["--n-genes", str(options.genes), "--region-shards", "1"]
        run(arguments)
        tissue = int(np.count_nonzero(open_run(out).store.array("tissue/mask")[...]))
        rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                rounds[way].append(timed(way, arguments, out, options.memory))
                print(way, {stage: round(s, 1) for stage, s in rounds[way][-1].items()}, flush=True)
    text = (
        f"{options.side} x {options.side} px, {tissue:,} superpixels of tissue, {options.genes} genes, "
        f"`--encoder texture --region-shards 1`, one thread each; {options.rounds} rounds in turns, median "
        f"(least to most); {machine()}\n\n"
    ) + results(rounds)
    if options.no_publish:
        print(text)
    else:
        publish("workers", text)


def results(rounds: dict[str, list[dict[str, float]]]) -> str:
    """The table: a row per stage, and one of both together."""
    rows = []
    for stage in (*TIMED, "both"):
        stages = [stage] if stage in TIMED else list(TIMED)
        seconds = {way: [sum(found[name] for name in stages) for found in rounds[way]] for way in WAYS}
        serial, one, two = (statistics.median(seconds[way]) for way in WAYS)
        told = [f"{statistics.median(s):.1f} ({min(s):.1f} to {max(s):.1f})" for s in seconds.values()]
        rows.append([stage, *told, f"{one / two:.2f}", f"{one / serial - 1:+.1%}"])
    head = ["stage", *(f"{way}, s" for way in WAYS), "speed-up, 2 workers over 1", "1 worker over serial"]
    return table(head, rows)


if __name__ == "__main__":
    main()

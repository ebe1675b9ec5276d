"""Peak memory of the whole pipeline on slides of growing size, serial and on two Dask workers.

``make bench-memory``. Slides are generated in a streaming way. The peak of every process of the run is the kernel's own
(``VmHWM``), sampled while it lives.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.report import machine, publish, table
from iscale.demo.synthetic import write_synthetic_slide

PIXEL_UM, SPOT_RADIUS_PX, SPOTS_PER_SIDE = 0.5, 55.0, 20
WORKER_BYTES = 150e6
"""A child that never grew over this is not a worker (a resource tracker, a decoder that exited)."""


def lay_out(project: Path, side: int, n_genes: int) -> None:
    """A slide of ``side`` px, and a capture of random counts over its middle."""
    mother = project / "MotherImage"
    mother.mkdir(parents=True)
    write_synthetic_slide(mother / "he-raw.tif", (side, side), seed=0, tissue_fraction=0.5, pixel_size_um=PIXEL_UM)
    (mother / "radius-raw.txt").write_text(f"{SPOT_RADIUS_PX}\n")
    folder = project / "DaughterCaptures" / "AllignedToMother" / "D1"
    folder.mkdir(parents=True)
    at = np.linspace(side * 0.2, side * 0.8, SPOTS_PER_SIDE)
    counts = np.random.default_rng(0).poisson(3, (SPOTS_PER_SIDE**2, n_genes))
    with (folder / "cnts.tsv").open("w") as cnts, (folder / "locs.tsv").open("w") as locs:
        cnts.write("\t".join(["spot", *(f"G{i}" for i in range(n_genes))]) + "\n")
        locs.write("spot\tx\ty\n")
        for k, row in enumerate(counts):
            cnts.write("\t".join([f"s{k}", *map(str, row)]) + "\n")
            locs.write(f"s{k}\t{at[k % SPOTS_PER_SIDE]:.1f}\t{at[k // SPOTS_PER_SIDE]:.1f}\n")


def peak_of(pid: int) -> int:
    """Peak resident bytes of a process so far; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def measure(project: Path, out: Path, memory: str, n_genes: int, dask: bool) -> tuple[float, float, float]:
    """Run the pipeline; seconds, peak of the driving process, highest peak of a worker (0 for serial), in bytes."""
    command = [sys.executable, "-m", "iscale", "run", str(project), "--out", str(out), "--memory", memory]
    command += ["--n-genes", str(n_genes), "--n-plots", "4"]
    command += ["--dask", "local", "--workers", "2"] if dask else []
    begin = time.perf_counter()
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    client, workers = 0, dict[int, int]()
    process = psutil.Process(run.pid)
    while run.poll() is None:
        client = max(client, peak_of(run.pid))
        for child in process.children(recursive=True):
            workers[child.pid] = max(workers.get(child.pid, 0), peak_of(child.pid))
        time.sleep(0.05)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {run.returncode}")
    peaks = [peak for peak in workers.values() if peak > WORKER_BYTES]
    return time.perf_counter() - begin, client, max(peaks, default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    rows = []
    for side in options.sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            lay_out(folder / "project", side, options.genes)
            serial = measure(folder / "project", folder / "serial", options.memory, options.genes, dask=False)
            dask = measure(folder / "project", folder / "dask", options.memory, options.genes, dask=True)
        gb = [f"{value / 1e9:.2f}" for value in (serial[1], dask[2], dask[1])]
        rows.append([f"{side} x {side}", *gb, f"{serial[0]:.0f}", f"{dask[0]:.0f}"])
        print(rows[-1], flush=True)
    head = ["slide, px", "serial process, GB", "each of 2 workers, GB", "their client, GB", "serial, s", "2 workers, s"]
    text = f"`--memory {options.memory}`, {options.genes} genes, half of the slide tissue; {machine()}\n\n"
    text += table(head, rows)
    if options.no_publish:
        print(text)
    else:
        publish("memory", text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

"""Peak memory of the whole pipeline on slides of growing size, serial and on two Dask workers.

``make bench-memory``. Slides are generated in a streaming way. The peak of every process of the run is the kernel's own
(``VmHWM``), sampled while it lives.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.report import machine, publish, table
from benchmarks.sampling import Sampled, sample
from benchmarks.slides import lay_out


def measure(project: Path, out: Path, memory: str, n_genes: int, dask: bool) -> Sampled:
    """Run the pipeline, serially or on two local workers."""
    arguments = ["run", str(project), "--out", str(out), "--memory", memory]
    arguments += ["--n-genes", str(n_genes), "--n-plots", "4"]
    return sample(arguments + (["--dask", "local", "--workers", "2"] if dask else []))


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
        gb = [f"{value / 1e9:.2f}" for value in (serial.own_bytes, dask.worker_bytes, dask.own_bytes)]
        rows.append([f"{side} x {side}", *gb, f"{serial.seconds:.0f}", f"{dask.seconds:.0f}"])
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

"""Gigapixels within a memory budget: time per stage and peak memory on two Dask workers, from 5,000 to 40,000 px.

``make bench-scale``. Slides are painted in a streaming way and removed with their runs as it goes. Every process of the
run's tree is sampled; its peak is the kernel's own (``VmHWM``). Each size is published when it is through, and kept in
``.benchmarks/scale.json``: ``python -m benchmarks.scale --resume`` leaves out the sizes that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import machine, publish, table
from benchmarks.sampling import STAGES, disk_bytes, sample, stage_figures
from benchmarks.slides import bytes_of_run, check_room, lay_out
from iscale.results import open_run

KEPT = Path(__file__).parent.parent / ".benchmarks" / "scale.json"
WRITTEN = ("image", "features", "expression")
"""Groups of the store whose sizes are told."""

HEAD = [
    "slide, px",
    "tissue superpixels",
    *(f"{stage}, s" for stage in STAGES),
    "all, s",
    "worker, GB",
    "projected, GB",
    "client, GB",
    *(f"{group} on disk, GB" for group in WRITTEN),
]

Record = dict[str, Any]


def measure(folder: Path, side: int, options: argparse.Namespace) -> Record:
    """Paint a slide, run all stages on it, and say what they took."""
    project, out = folder / "project", folder / "run"
    begin = time.perf_counter()
    lay_out(project, side, options.genes, options.tissue, off_tissue=False)
    print(f"{side} px: painted in {time.perf_counter() - begin:.0f} s", flush=True)
    arguments = ["run", str(project), "--out", str(out), "--memory", options.memory, "--encoder", "texture"]
    arguments += ["--n-genes", str(options.genes), "--n-plots", "4"]
    found = sample([*arguments, "--dask", "local", "--workers", str(options.workers)])
    figures = stage_figures(out)
    mask = open_run(out).store.array("tissue/mask")
    return {
        "side": side,
        "tissue": int(np.count_nonzero(mask[...])),
        "stages": figures.seconds,
        "seconds": found.seconds,
        "worker": found.worker_bytes,
        "projected": figures.projected_bytes,
        "client": found.own_bytes,
        "disk": {group: disk_bytes(out / "run.zarr" / group) for group in WRITTEN},
    }


def row(record: Record) -> list[str]:
    """A record as the table has it."""
    return [
        f"{record['side']} x {record['side']}",
        f"{record['tissue']:,}",
        *(f"{record['stages'][stage]:.1f}" for stage in STAGES),
        f"{record['seconds']:.0f}",
        *(f"{record[which] / 1e9:.2f}" for which in ("worker", "projected", "client")),
        *(f"{record['disk'][group] / 1e9:.3f}" for group in WRITTEN),
    ]


def settings(options: argparse.Namespace) -> str:
    """What the records have in common; those of other settings are not reused."""
    return (
        f"`--encoder texture --memory {options.memory} --dask local --workers {options.workers}`, "
        f"{options.genes} genes, {options.tissue:.0%} of the slide tissue; {machine()}"
    )


def kept(said: str) -> dict[int, Record]:
    """Records of an earlier call with the same settings, by side."""
    try:
        earlier = json.loads(KEPT.read_text())
    except (OSError, ValueError):
        return {}
    return {record["side"]: record for record in earlier["records"]} if earlier["settings"] == said else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10000, 20000, 40000])
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--genes", type=int, default=50)
    parser.add_argument("--tissue", type=float, default=0.3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="leave out what an earlier call measured")
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    check_room(
        Path(tempfile.gettempdir()), max(bytes_of_run(side, options.genes, options.tissue) for side in options.sides)
    )
    said = settings(options)
    records = kept(said) if options.resume else {}
    for side in sorted(options.sides):
        if side not in records:
            with tempfile.TemporaryDirectory() as name:
                records[side] = measure(Path(name), side, options)
        text = f"{said}\n\n" + table(HEAD, [row(records[done]) for done in sorted(records) if done in options.sides])
        if options.no_publish:
            print(text, flush=True)
        else:
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps({"settings": said, "records": list(records.values())}))
            publish("scale", text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

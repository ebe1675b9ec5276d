"""Peak memory of HIPT's features on slides of growing size, beside what was projected.

``make bench-hipt_memory``. One shift and little tissue: memory is the question, not time. The peak is the process' own
(``VmHWM``), over all stages up to the features; the projection is the largest of the plan's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.features import run, stand_ins
from benchmarks.report import machine, publish, table
from iscale.demo.painting import write_synthetic_slide

PIXEL_UM = 0.5


def lay_out(project: Path, side: int, tissue: float) -> None:
    """A slide of ``side`` px with little tissue, as a project without captures."""
    mother = project / "MotherImage"
    mother.mkdir(parents=True)
    write_synthetic_slide(mother / "he-raw.tif", (side, side), seed=0, tissue_fraction=tissue, pixel_size_um=PIXEL_UM)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192, 16384])
    parser.add_argument("--tissue", type=float, default=0.05)
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    rows = []
    for side in options.sides:
        with tempfile.TemporaryDirectory() as name:
            project, weights = Path(name) / "project", Path(name) / "weights"
            lay_out(project, side, options.tissue)
            stand_ins(Path(os.environ["ISCALE_GOLDEN"]), weights)
            settings = ["--pixel-size", str(PIXEL_UM), "--encoder", "hipt", "--weights", str(weights), "--shifts", "1"]
            steps, peak = run(project, *settings)
        projected = max(step["projected_bytes"] for step in steps.values())
        seconds = sum(step["seconds"] for name, step in steps.items() if name.startswith("features"))
        figures = [f"{peak / 1e9:.2f}", f"{projected / 1e9:.2f}", f"{projected / peak:.2f}", f"{seconds:.0f}"]
        rows.append([f"{side} x {side}", *figures])
        print(rows[-1], flush=True)
    head = ["slide, px", "measured, GB", "projected, GB", "projected / measured", "features, s"]
    text = f"`--shifts 1`, `--memory 2GB`, serial, {options.tissue:.0%} of the slide tissue; {machine()}\n\n"
    text += table(head, rows)
    if options.no_publish:
        print(text)
    else:
        publish("hipt_memory", text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

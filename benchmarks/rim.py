"""Whether the rim of the tissue is predicted like what lies inside, with captures where they belong and beside it.

``make bench-rim``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. Each of the sections C3, C4 and C5 is
the mother in turn, at 0.5 um and default options, the other two its captures: as they are aligned, and both moved by
50 um, the first to the right and the second up, so that discs lie partly off the tissue where nothing was measured.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

import iscale
from benchmarks.report import machine, publish, table
from iscale.captures.stage import read_training
from iscale.demo.her2st import SECTIONS, lay_out_her2st
from iscale.model.discs import disc_sizes
from iscale.options import load_options
from iscale.plan.job import Job
from iscale.results import Run

GENES = 100
PIXEL_SIZE_UM = 0.5
MOVED_UM = (0.0, 50.0)
DIRECTIONS = ((1.0, 0.0), (0.0, -1.0))
RING_UM, INSIDE_UM = 8.0, (24.0, 80.0)


@dataclass(frozen=True)
class Rim:
    """Means over the outermost 8 um of the tissue over those 24 to 80 um inside; the largest values over measured.

    ``depth`` and ``gene`` (the median over genes) are ratios of ring and inside. ``highest`` is the largest depth of a
    superpixel over the largest that a spot has per superpixel of its disc; ``highest_gene`` the largest of such ratios.
    """

    depth: float
    gene: float
    highest: float
    highest_gene: float


def rim_of(run: Run, job: Job) -> Rim:
    """Of a run, gene by gene."""
    step = job.grid.superpixel_um
    tissue = run.tissue.to_numpy()
    inwards = ndimage.distance_transform_edt(tissue) * step
    ring = (inwards > 0) & (inwards <= RING_UM)
    inside = (inwards > INSIDE_UM[0]) & (inwards <= INSIDE_UM[1])
    spots = read_training(job.store, job.grid)
    size = disc_sizes(spots.radius_um, job.grid.superpixel_um)

    def ratio(values: NDArray[np.floating]) -> float:
        return float(np.nanmean(values[ring], dtype=np.float64) / np.nanmean(values[inside], dtype=np.float64))

    depth = run.depth.to_numpy()
    ratios, tops = [], []
    for j, gene in enumerate(spots.genes):
        values = run.expression.sel(gene=gene).to_numpy()
        ratios.append(ratio(values))
        tops.append(float(np.nanmax(values)) / max(float((spots.counts[:, j] / size).max()), 1e-9))
    top = float(np.nanmax(depth)) / float((spots.depth / size).max())
    return Rim(ratio(depth), float(np.median(ratios)), top, max(tops))


def case(source: Path, work: Path, mother: str, moved_um: float, **options: Any) -> Rim:
    """Run one mother with its captures moved so far."""
    project = work / f"{mother}-moved-{moved_um:g}"
    if not project.exists():
        lay_out_her2st(source, project, mother, pixel_size_um=PIXEL_SIZE_UM)
        captures = sorted((project / "DaughterCaptures" / "AllignedToMother").iterdir())
        for capture, (x, y) in zip(captures, DIRECTIONS, strict=True):
            places = pd.read_csv(capture / "locs.tsv", sep="\t", index_col=0)
            places += np.array([x, y]) * moved_um / PIXEL_SIZE_UM
            places.to_csv(capture / "locs.tsv", sep="\t")
    chosen = {"n_genes": GENES, "pixel_size": PIXEL_SIZE_UM, "out": work / mother, **options}
    out = iscale.run(project, stage="predict", **chosen)
    return rim_of(iscale.open_run(out), Job(project, load_options(project, chosen)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS, help="mothers")
    parser.add_argument("--work", type=Path, help="keep what is computed here, and use it again")
    parser.add_argument("--print", action="store_true", help="only print the table; docs/benchmarks.md stays")
    arguments = parser.parse_args()
    if "ISCALE_DATA" not in os.environ:
        raise SystemExit("ISCALE_DATA is not set: it names the folder that holds her2st/")
    source = Path(os.environ["ISCALE_DATA"]) / "her2st"
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for mother in arguments.sections:
            for moved in MOVED_UM:
                rim = case(source, arguments.work or Path(folder), mother, moved)
                figures = (rim.depth, rim.gene, rim.highest, rim.highest_gene)
                lines.append([mother, f"{moved:g} um", *(f"{n:.2f}" if math.isfinite(n) else "-" for n in figures)])
    head = ["mother", "moved by", "depth, ring / inside", "median gene", "highest depth / measured", "of a gene"]
    text = (
        f"Outermost {RING_UM:g} um of the tissue over {INSIDE_UM[0]:g} to {INSIDE_UM[1]:g} um inside, {GENES} genes at "
        f"{PIXEL_SIZE_UM} um; largest superpixel over the largest density of a spot ({machine()}).\n\n"
        f"{table(head, lines)}"
    )
    if arguments.print:
        print(text)
    else:
        publish("rim", text)


if __name__ == "__main__":
    main()

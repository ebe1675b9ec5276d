"""``iscale demo``: lay a data set out as a project, run the pipeline on it, and compare with what is known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.arrays import block_mean
from iscale.demo.her2st import (
    GOOD,
    PIXEL_SIZE_UM,
    RADIUS_UM,
    Her2stLayout,
    disc_sums,
    lay_out_her2st,
    pearson,
    score,
    scored_truth,
)
from iscale.demo.synthetic import read_truth, write_demo
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX
from iscale.pipeline.run import run
from iscale.project.layout import MAPS_FOLDER, MOTHER_FOLDER, SPOTS_FOLDER
from iscale.results import Run, open_run

SHOWN_GENES = 12
BLOCK = 4
"""Side, in superpixels, of the blocks over which maps are also compared."""

HER2ST_MARKERS = {
    "tumour": ("ERBB2", "GRB7", "KRT7", "KRT19", "CD24", "FASN"),
    "plasma cells": ("IGKC", "IGHG3", "IGHA1", "IGHM", "IGLC2"),
    "antigen presentation": ("HLA-DRA", "CD74", "HLA-B"),
    "stroma": ("COL1A1", "COL1A2", "COL3A1", "FN1", "MGP"),
}
"""Well-known genes of breast cancer, among the hundred most variable of her2st."""

Table = list[list[str]]


def synthetic_demo(folder: Path, **options: Any) -> str:
    """Write the synthetic demo into a folder unless it is there, run it, and compare each superpixel with the truth."""
    check_folder(folder)
    project = folder / "project"
    if not (project / MOTHER_FOLDER).is_dir():
        write_demo(project)
    found = _run(project, options)
    truth = read_truth(project)
    head = ["gene", "Pearson, per superpixel", f"per {BLOCK} x {BLOCK}", "predicted / true, sum"]
    rows = [_compare(found, gene, truth.expected[i]) for i, gene in enumerate(truth.genes)]
    path, table = found.store.folder / "predicted-vs-true.tsv", [head, *([g, *map(_text, v)] for g, v in rows)]
    path.write_text("".join("\t".join(row) + "\n" for row in table))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        medians = np.nanmedian(np.array([values for _, values in rows]), axis=0)
    shown = [*table[: SHOWN_GENES + 1], ["median of all", *map(_text, medians)]]
    what = f"Predicted against true expression in every tissue superpixel, {len(rows)} genes"
    return _report(f"{what} (first {SHOWN_GENES} shown, all in {path}):", shown, found)


def check_folder(folder: Path) -> None:
    """Refuse a place that a folder cannot be made at, before any work."""
    for place in (folder, *folder.absolute().parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, not a folder.", "Name a folder, or one that is to be made.")


def her2st_demo(folder: Path, source: Path, **options: Any) -> str:
    """Lay her2st out (mother C4, captures C3 and C5), run it, and score it on the mother's own spots."""
    check_folder(folder)
    project = folder / "C4"
    if project.exists():
        raise InputError(f"{project} exists already.", "Name another folder, or `iscale run` that project.")
    laid = lay_out_her2st(source, project)
    markers = [f"{gene},{label}\n" for label, genes in HER2ST_MARKERS.items() for gene in genes]
    (project / MOTHER_FOLDER / "markers.csv").write_text("gene,label\n" + "".join(markers))
    found = _run(project, {"pixel_size": PIXEL_SIZE_UM, "n_genes": 100, **options})
    head = ["score on the mother's own spots", "median Pearson", "genes above 0.3", "genes", "spots"]
    rows = [head, *_score_her2st(found, laid)]
    return _report("her2st, mother C4, captures C3 and C5, never shown C4's counts:", rows, found)


def _run(project: Path, options: dict[str, Any]) -> Run:
    return open_run(run(project, **{"n_plots": SHOWN_GENES, **options}))


def _report(heading: str, rows: Table, found: Run) -> str:
    """What was found and where it lies, as text."""
    return "\n".join([heading, "", _columns(rows), "", _where(found)])


def _score_her2st(found: Run, laid: Her2stLayout) -> Table:
    """Scores of a run on the mother's own spots: a row for counts, one for depth-normalised counts."""
    genes = tuple(str(gene) for gene in found.expression["gene"].values)
    xy_px, measured, depth = scored_truth(laid, genes, found.depth.shape)
    radius = RADIUS_UM / (PIXEL_SIZE_UM * SUPERPIXEL_PX)
    predicted, predicted_depth = (disc_sums(x.values, xy_px, radius) for x in (found.expression, found.depth))
    result = score(measured, depth, predicted, predicted_depth)
    scores = {"counts": result.counts, "depth-normalised": result.depth_normalised}
    return [
        [name, f"{np.nanmedian(values):.3f}", str(int((values > GOOD).sum())), str(len(values)), str(result.n_spots)]
        for name, values in scores.items()
    ]


def _compare(found: Run, gene: str, truth: NDArray[np.float32]) -> tuple[str, list[float]]:
    guess = found.expression.sel(gene=gene).values
    blocks = (block_mean(truth, BLOCK, least=1.0), block_mean(guess, BLOCK, least=1.0))
    both = np.isfinite(truth) & np.isfinite(guess)
    ratio = float(guess[both].sum() / truth[both].sum())
    return gene, [_correlation(truth, guess), _correlation(*blocks), ratio]


def _correlation(truth: NDArray[np.float32], guess: NDArray[np.float32]) -> float:
    both = np.isfinite(truth) & np.isfinite(guess)
    return float(pearson(truth[both][:, None].astype(np.float64), guess[both][:, None].astype(np.float64))[0])


def _where(found: Run) -> str:
    folder = found.store.folder
    clusters = ", ".join(str(path) for path in sorted(folder.glob("clusters-gene_*")))
    return "\n".join(
        [
            f"The report, for a browser: {folder / 'report.html'}",
            f"The store, for `iscale.open_run`, xarray or any Zarr reader: {found.store.place}",
            f"Maps of predicted expression: {folder / MAPS_FOLDER}",
            f"Measured spots over the image: {folder / SPOTS_FOLDER}",
            f"Clusters and their marker genes: {clusters}",
            f"What each step took: {folder / 'report.json'}",
        ]
    )


def _text(value: float) -> str:
    return f"{value:.3f}"


def _columns(rows: Table) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  "
        + row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )

"""Accuracy on real tissue: predicted against measured spots of her2st, beside two simple baselines.

``make bench-accuracy``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. Each of the sections C3, C4 and
C5 is the mother in turn, the other two its daughter captures; its own counts are the truth and reach neither the model
nor the baselines. Ours is what ``iscale.run`` predicts and ``open_run`` reads back, summed over the spots' discs. The
baselines learn from the same training spots: ridge regression on the mean features of their discs, nearest neighbours
in space. Both predict each score's logarithm directly, and choose their parameter by cross-validation over the
training spots. Standard errors are over spots: a bootstrap that draws the spots of each section anew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import iscale
from benchmarks.report import machine, publish, table
from iscale.captures.spots import TrainingSpots
from iscale.captures.stage import read_training
from iscale.demo.her2st import (
    PIXEL_SIZE_UM,
    RADIUS_UM,
    SECTIONS,
    Setting,
    disc_sums,
    lay_out_her2st,
    pearson,
    scored_truth,
)
from iscale.encoders import get_encoder
from iscale.model.baselines import NearestBaseline, RidgeBaseline, disc_mean_features
from iscale.model.fit_stage import gather_discs
from iscale.options import load_options
from iscale.plan.job import Job

GENES = 100
GOOD = 0.3
DRAWS = 200
SCORES = ("counts", "depth-normalised")
METHODS = ("ours", "ridge", "kNN")

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Measured and predicted values, (spot, gene) each, as they are correlated."""


def logs(counts: NDArray[np.float64], depth: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """What the two scores compare, (spot, gene) each."""
    return {SCORES[0]: np.log1p(counts), SCORES[1]: np.log1p(1e4 * counts / depth[:, None])}


def section(source: Path, work: Path, mother: str, setting: Setting, **options: Any) -> dict[tuple[str, str], Pair]:
    """Run one case with these options; measured and predicted values by score and method."""
    layout = lay_out_her2st(source, work / f"{mother}-{setting}", mother, setting)
    chosen = {"n_genes": GENES, "pixel_size": PIXEL_SIZE_UM, "out": work / mother, **options}
    run = iscale.open_run(iscale.run(layout.project, stage="predict", **chosen))
    job = Job(layout.project, load_options(layout.project, chosen))
    grid, spots = job.grid, read_training(job.store, job.grid)

    xy, counts, depth = scored_truth(layout, spots.genes, grid.superpixel_shape)
    radius = RADIUS_UM / grid.superpixel_um
    expression = disc_sums(run.expression.sel(gene=list(spots.genes)).to_numpy(), xy, radius)
    predicted = logs(expression, disc_sums(run.depth.to_numpy(), xy, radius))

    groups = get_encoder(job.encoder).groups
    features = disc_mean_features(gather_discs(job.store, groups, spots, grid), len(spots.depth))
    at = disc_mean_features(gather_discs(job.store, groups, _places(xy), grid), len(xy))
    known = np.isfinite(features).all(axis=1) & (spots.depth > 0)
    learnt = logs(spots.counts[known].astype(np.float64), spots.depth[known].astype(np.float64))
    usable = np.isfinite(at).all(axis=1) & np.isfinite(expression).all(axis=1) & (depth > 0)
    pairs = {}
    for score, truth in logs(counts[usable], depth[usable]).items():
        pairs[score, "ours"] = truth, predicted[score][usable]
        pairs[score, "ridge"] = truth, RidgeBaseline(features[known], at[usable])(learnt[score])
        pairs[score, "kNN"] = truth, NearestBaseline(spots.xy_px[known], xy[usable])(learnt[score])
    return pairs


def _places(xy: NDArray[np.float64]) -> TrainingSpots:
    """Spots of which nothing but the place is known."""
    n = len(xy)
    nothing = np.zeros((n, 0), np.float32), np.zeros(n, np.float32)
    return TrainingSpots((), *nothing, xy, np.full(n, RADIUS_UM), np.zeros(n, np.int64), ("truth",))


def median(pairs: list[Pair], draws: list[NDArray[np.int64]] | None = None) -> float:
    """Median correlation over genes and sections, of all spots or of those drawn in each section."""
    drawn = pairs if draws is None else [(a[d], b[d]) for (a, b), d in zip(pairs, draws, strict=True)]
    return float(np.nanmedian(np.concatenate([pearson(a, b) for a, b in drawn])))


def rows(setting: str, sections: list[dict[tuple[str, str], Pair]]) -> list[list[str]]:
    """Lines of the table for one setting."""
    spots = [len(next(iter(pairs.values()))[0]) for pairs in sections]
    rng = np.random.default_rng(0)
    draws = [[rng.integers(0, n, n) for n in spots] for _ in range(DRAWS)]
    lines = []
    for score in SCORES:
        by_method = {m: [pairs[score, m] for pairs in sections] for m in METHODS}
        found = {m: median(pairs) for m, pairs in by_method.items()}
        redrawn = {m: np.array([median(pairs, d) for d in draws]) for m, pairs in by_method.items()}
        good = sum(int((pearson(*pair) > GOOD).sum()) for pair in by_method["ours"])
        best = max(METHODS[1:], key=found.__getitem__)
        lines.append(
            [
                *(setting, score),
                *(f"{found[m]:.3f} ± {redrawn[m].std():.3f}" for m in METHODS),
                f"{found['ours'] - found[best]:+.3f} ± {(redrawn['ours'] - redrawn[best]).std():.3f}",
                f"{good} of {GENES * len(sections)}",
                " + ".join(map(str, spots)),
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS, help="mothers")
    parser.add_argument("--recipe", default="default", help="recipe to train")
    parser.add_argument("--print", action="store_true", help="only print the table; docs/benchmarks.md stays")
    arguments = parser.parse_args()
    if "ISCALE_DATA" not in os.environ:
        raise SystemExit("ISCALE_DATA is not set: it names the folder that holds her2st/")
    source = Path(os.environ["ISCALE_DATA"]) / "her2st"
    lines: list[list[str]] = []
    settings: tuple[Setting, ...] = ("covered", "uncovered")
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            setting: [section(source, Path(folder), m, setting, recipe=arguments.recipe) for m in arguments.sections]
            for setting in settings
        }
    for setting, sections in cases.items():
        lines += rows(setting, sections)
    head = ["setting", "score", *METHODS, "ours - better baseline", f"genes > {GOOD} (ours)", "spots scored"]
    text = (
        f"Mothers {', '.join(arguments.sections)}, recipe `{arguments.recipe}`: median Pearson over "
        f"{GENES} genes x {len(arguments.sections)} sections ± standard error ({machine()}).\n\n{table(head, lines)}"
    )
    if arguments.print:
        print(text)
    else:
        publish("accuracy", text)


if __name__ == "__main__":
    main()

"""Whether held-out scores tell which genes to believe: ranked beside the scores on the mother's own spots of her2st.

``make bench-trust``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. Each of the sections C3, C4 and C5
is the mother in turn, the other two its daughter captures. Each capture is held out in turn, as ``iscale evaluate
--hold-out capture`` does; the mother's own counts, which no model sees, say how well each gene is predicted indeed.
Beside it the same of plain ridge regression on mean features of discs: its held-out score, on the same folds, ranked
beside its own score on the mother's spots.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.accuracy import GENES, SCORES, logs, section
from benchmarks.report import machine, publish, table
from iscale.config import load_options
from iscale.demo.her2st import PIXEL_SIZE_UM, SECTIONS
from iscale.demo.scoring import pearson
from iscale.encoders import get_encoder
from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.holdout.apart import ApartSpots
from iscale.holdout.folds import Folds, How, cut_folds
from iscale.holdout.predict import LEAST_COVERED
from iscale.holdout.score import blocks_of_tissue, correlation
from iscale.holdout.stage import holdout_steps
from iscale.holdout.table import Trust, read_trust, trust_path
from iscale.holdout.words import WORDS
from iscale.job import Job
from iscale.model.baselines import disc_mean_features, predict_ridge
from iscale.model.discs import disc_sizes
from iscale.model.fit_stage import FitContext
from iscale.model.gather import gather_discs
from iscale.progress import Silence

HOWS: tuple[How, ...] = ("capture", "spots", "region")
MEMORY = 2 * 10**9


@dataclass(frozen=True)
class Case:
    """One mother: per gene what was held out told, and what the mother's spots say."""

    mother: str
    trust: dict[str, list[Trust]]
    ridge: dict[tuple[str, str], NDArray[np.float64]]
    own: dict[tuple[str, str], NDArray[np.float64]]


def case(source: Path, work: Path, mother: str, **options: Any) -> Case:
    """Run one section as mother, and hold out in every way."""
    pairs = section(source, work, mother, "covered", **options)
    own = {(score, method): pearson(*pairs[score, method]) for score in SCORES for method in ("ours", "ridge")}
    project = work / f"{mother}-covered"
    job = Job(project, load_options(project, {"n_genes": GENES, "pixel_size": PIXEL_SIZE_UM, "out": work / mother}))
    spots = job.test_spots
    context = FitContext(job.store, job.grid, get_encoder(job.encoder).groups, "default", 0, "cpu")
    trust, ridge = {}, {}
    for how in HOWS:
        for step in holdout_steps(context, spots, how, inputs=("", ""), resources=Resources(MEMORY)):
            execute(step, SerialDriver(), Ledger(job.store.ledgers, step.name), Silence())
        found = {gene.gene: gene for gene in read_trust(trust_path(job.store.folder, how))}
        trust[how] = [found[gene] for gene in spots.genes]
        scores = ridge_held_out(context, spots, cut_folds(spots, how, seed=0))
        ridge |= {(how, score): values for score, values in scores.items()}
    return Case(mother, trust, ridge, own)


def ridge_held_out(context: FitContext, spots: ApartSpots, folds: Folds) -> dict[str, NDArray[np.float64]]:
    """Plain ridge's held-out scores of both kinds on the spots that ours is scored on, (gene,) each."""
    discs = gather_discs(context.store, context.groups, spots, context.grid)
    features = disc_mean_features(discs, len(spots.depth))
    known = np.isfinite(features).all(axis=1) & (spots.depth > 0)
    rows = np.bincount(discs.spot, minlength=len(known))
    tested = known & (rows >= LEAST_COVERED * disc_sizes(spots.radius_um, context.grid.superpixel_um))
    measured = logs(spots.counts.astype(np.float64), np.maximum(spots.depth, 1).astype(np.float64))
    scores = {}
    for score, values in measured.items():
        guess = np.full_like(values, np.nan)
        for fold in range(len(folds.names)):
            train, test = folds.trained(fold) & known, folds.tested(fold)
            test = test[tested[test]]
            guess[test] = predict_ridge(features[train], values[train], features[test])
        at = np.flatnonzero(np.isfinite(guess).all(axis=1))
        group = spots.capture[at]
        scores[score] = correlation(values[at], guess[at], group, blocks_of_tissue(spots.xy_px[at], group)).value
    return scores


def held_out(case: Case, how: str, score: str) -> NDArray[np.float64]:
    """(gene,) held-out scores of ours."""
    name = "score" if score == SCORES[0] else "score_depth_normalised"
    return np.array([getattr(gene, name) for gene in case.trust[how]])


def ranked(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation over the genes of which both are known."""
    known = np.isfinite(a) & np.isfinite(b)
    return float(spearmanr(a[known], b[known]).statistic)


def rank_rows(cases: list[Case]) -> list[list[str]]:
    """Rank correlations per way to hold out, score and mother."""
    lines = []
    for how in HOWS:
        for score in SCORES:
            ours = [ranked(held_out(c, how, score), c.own[score, "ours"]) for c in cases]
            ridge = [ranked(c.ridge[how, score], c.own[score, "ridge"]) for c in cases]
            pairs = [f"{a:.3f} / {b:.3f}" for a, b in zip(ours, ridge, strict=True)]
            mean = float(np.mean(ours)), float(np.mean(ridge))
            lines.append([how, score, *pairs, f"{mean[0]:.3f} / {mean[1]:.3f}", f"{mean[0] - mean[1]:+.3f}"])
    return lines


def word_rows(cases: list[Case]) -> list[list[str]]:
    """What genes of each word turn out to be on the mother's spots."""
    lines = []
    for how in HOWS:
        for word in WORDS:
            at = [np.array([gene.word == word for gene in c.trust[how]]) for c in cases]
            own = [
                np.concatenate([c.own[score, "ours"][a] for c, a in zip(cases, at, strict=True)]) for score in SCORES
            ]
            if len(own[0]):
                told = [f"{np.median(values):.2f} ({np.quantile(values, 0.1):.2f})" for values in own]
                lines.append([how, word, str(len(own[0])), *told])
    return lines


def interval_rows(cases: list[Case]) -> list[list[str]]:
    """Medians over genes, and how often the mother's score lies in the interval."""
    lines = []
    for how in HOWS:
        genes = [gene for c in cases for gene in c.trust[how]]
        own = np.concatenate([c.own[SCORES[0], "ours"] for c in cases])
        inside = np.mean([g.low <= value <= g.high for g, value in zip(genes, own, strict=True)])
        names = ("score", "low", "high", "knn", "ridge", "ceiling")
        medians = [f"{np.nanmedian([getattr(g, name) for g in genes]):.3f}" for name in names]
        lines.append([how, *medians, f"{np.nanmedian(own):.3f}", f"{inside:.0%}"])
    return lines


def report(cases: list[Case]) -> str:
    """All tables."""
    ranks = ["held out", "score", *(f"{c.mother} (ours / ridge)" for c in cases), "mean (ours / ridge)", "difference"]
    words = ["held out", "word", "genes", *(f"on the mother's spots, {score}: median (10 %)" for score in SCORES)]
    medians = ["held out", "score", "low", "high", "kNN", "ridge", "ceiling", "mother's spots", "in the interval"]
    return "\n\n".join(
        [
            f"Mothers {', '.join(c.mother for c in cases)}, {GENES} genes each ({machine()}). Rank correlation over "
            "genes between the held-out score and the score on the mother's own spots:",
            table(ranks, rank_rows(cases)),
            "What each word was worth:",
            table(words, word_rows(cases)),
            "Medians over genes of the table's columns (counts), beside the score on the mother's spots, and the share "
            "of genes of which that lies between `low` and `high`:",
            table(medians, interval_rows(cases)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS, help="mothers")
    parser.add_argument("--print", action="store_true", help="only print the tables; docs/benchmarks.md stays")
    arguments = parser.parse_args()
    if "ISCALE_DATA" not in os.environ:
        raise SystemExit("ISCALE_DATA is not set: it names the folder that holds her2st/")
    source = Path(os.environ["ISCALE_DATA"]) / "her2st"
    with tempfile.TemporaryDirectory() as folder:
        cases = [case(source, Path(folder), mother) for mother in arguments.sections]
    text = report(cases)
    if arguments.print:
        print(text)
    else:
        publish("trust", text)


if __name__ == "__main__":
    main()

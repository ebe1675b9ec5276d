"""Whether held-out scores tell which genes to believe: ranked beside the scores on the mother's own spots of her2st.

``make bench-trust``, with ``ISCALE_DATA`` naming the folder that holds ``her2st/``. Each of the sections C3, C4 and C5
is the mother in turn, the other two its daughter captures. Each capture is held out in turn, as ``iscale evaluate
--hold-out capture`` does; the mother's own counts, which no model sees, say how well each gene is predicted indeed.
Beside it the same of plain ridge regression on mean features of discs: its held-out score, on the same folds, ranked
beside its own score on the mother's spots.

A section has few spots, so rank correlations of 100 genes are uncertain. Standard errors of the differences are those
of the delete-half jackknife (Shao and Wu 1989) over compact blocks of tissue: both scores of both methods are taken
again on half of the blocks, drawn anew each time, the spots of a block together, whichever section measured them. Half
of the spots, drawn without replacement, make differences vary about as all of them would from one tissue to another:
somewhat more where ranks agree closely, as halves agree less. Models are not trained again. Errors of the mean are as
if the mothers were independent.
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
from iscale.captures.spots import TrainingSpots
from iscale.demo.her2st import PIXEL_SIZE_UM, SECTIONS, Her2stLayout, scored_truth
from iscale.encoders import get_encoder
from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.watchers import Silence
from iscale.model.baselines import RidgeBaseline, disc_mean_features
from iscale.model.fit_stage import FitContext, gather_discs
from iscale.options import load_options
from iscale.plan.job import Job
from iscale.trust.correlation import correlation
from iscale.trust.folds import Folds, How, cut_evenly, cut_folds
from iscale.trust.held_out import HeldOutStore
from iscale.trust.stage import holdout_steps
from iscale.trust.table import WORDS, Trust, read_trust, trust_path

HOWS: tuple[How, ...] = ("capture", "spots", "region")
METHODS = ("ours", "ridge")
MEMORY = 2 * 10**9
BLOCKS, DRAWS = 18, 200
"""Blocks of tissue, and how often half of them are drawn."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """Spots as they are scored: (spot, gene) measured and predicted, (spot,) captures, (spot, 2) places in um."""

    measured: Values
    predicted: dict[str, Values]
    capture: NDArray[np.int64]
    xy_um: Values

    def scores(self, method: str, kept: NDArray[np.bool_] | None = None) -> Values:
        """(gene,) correlations within captures, averaged, of all spots or of those kept."""
        at = np.arange(len(self.measured)) if kept is None else np.flatnonzero(kept)
        capture = self.capture[at]
        return correlation(self.measured[at], self.predicted[method][at], capture, capture).value


@dataclass(frozen=True)
class Case:
    """One mother: what was held out by way and score, the mother's own spots by score, and the tables of trust."""

    mother: str
    trust: dict[str, list[Trust]]
    held: dict[tuple[str, str], Compared]
    own: dict[str, Compared]


def case(source: Path, work: Path, mother: str, **options: Any) -> Case:
    """Run one section as mother, and hold out in every way."""
    pairs = section(source, work, mother, "covered", **options)
    project = work / f"{mother}-covered"
    job = Job(project, load_options(project, {"n_genes": GENES, "pixel_size": PIXEL_SIZE_UM, "out": work / mother}))
    spots = job.test_spots
    context = FitContext(job.store, job.grid, get_encoder(job.encoder).groups, "default", 0, "cpu")
    trust: dict[str, list[Trust]] = {}
    held: dict[tuple[str, str], Compared] = {}
    for how in HOWS:
        for step in holdout_steps(context, spots, how, inputs=("", ""), resources=Resources(MEMORY)):
            execute(step, SerialDriver(), Ledger(job.store.ledgers, step.name), Silence())
        found = {gene.gene: gene for gene in read_trust(trust_path(job.store.folder, how))}
        trust[how] = [found[gene] for gene in spots.genes]
        held |= {(how, score): compared for score, compared in held_out(context, spots, how).items()}
    layout = Her2stLayout(project, project.with_name(f"{project.name}-truth"), {}, {})
    xy_px, counts, _ = scored_truth(layout, spots.genes, job.grid.superpixel_shape)
    # Spots that no prediction reaches are in no pair: those that are, are known by their counts.
    scored = (np.log1p(counts)[:, None] == pairs[SCORES[0], "ours"][0]).all(axis=2).any(axis=1)
    xy_um = xy_px[scored] * job.grid.pixel_size_um
    own = {}
    for score in SCORES:
        predicted = {method: pairs[score, method][1] for method in METHODS}
        own[score] = Compared(pairs[score, "ours"][0], predicted, np.zeros(len(xy_um), np.int64), xy_um)
    return Case(mother, trust, held, own)


def held_out(context: FitContext, spots: TrainingSpots, how: How) -> dict[str, Compared]:
    """The held-out spots of both scores, as ours and plain ridge predict them."""
    stored = HeldOutStore(context.store, how)
    rows = stored.read_rows()
    measured = logs(stored.read("counts", rows, slice(None)), rows.depth)
    ours = logs(stored.read("expression", rows, slice(None)), rows.predicted_depth)
    ridge = ridge_held_out(context, spots, cut_folds(spots, how, seed=0))
    return {
        score: Compared(
            measured[score], {"ours": ours[score], "ridge": ridge[score][rows.spots]}, rows.capture, rows.xy_um
        )
        for score in SCORES
    }


def ridge_held_out(context: FitContext, spots: TrainingSpots, folds: Folds) -> dict[str, Values]:
    """What plain ridge predicts for held-out spots, (spot, gene) of each score; NaN where it cannot."""
    discs = gather_discs(context.store, context.groups, spots, context.grid)
    features = disc_mean_features(discs, len(spots.depth))
    known = np.isfinite(features).all(axis=1) & (spots.depth > 0)
    guesses = {}
    for score, values in logs(spots.counts.astype(np.float64), np.maximum(spots.depth, 1).astype(np.float64)).items():
        guesses[score] = np.full_like(values, np.nan)
        for fold in range(len(folds.names)):
            train, test = folds.trained(fold) & known, folds.tested(fold)
            test = test[known[test]]
            guesses[score][test] = RidgeBaseline(features[train], features[test])(values[train])
    return guesses


def ranked(a: Values, b: Values) -> float:
    """Rank correlation over the genes of which both are known."""
    known = np.isfinite(a) & np.isfinite(b)
    return float(spearmanr(a[known], b[known]).statistic)


def difference(
    held: Compared, own: Compared, kept: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
) -> tuple[float, float]:
    """How genes rank by held-out scores as by own scores: ours, and ours less ridge's; of all spots or those kept."""
    of_held, of_own = kept or (None, None)
    ours, ridge = (ranked(held.scores(method, of_held), own.scores(method, of_own)) for method in METHODS)
    return ours, ours - ridge


def standard_error(held: Compared, own: Compared) -> float:
    """Of ours less ridge's: how it varies with the half of the tissue that it is judged on."""
    block = cut_evenly(np.concatenate([held.xy_um, own.xy_um]), BLOCKS)
    of_held, of_own = np.split(block, [len(held.xy_um)])
    rng = np.random.default_rng(0)
    halves = [rng.permutation(BLOCKS) < BLOCKS // 2 for _ in range(DRAWS)]
    return float(np.std([difference(held, own, (half[of_held], half[of_own]))[1] for half in halves], ddof=1))


def rank_rows(cases: list[Case]) -> list[list[str]]:
    """Rank correlations per way to hold out, score and mother, and ours less ridge's with its standard error."""
    lines = []
    for how in HOWS:
        for score in SCORES:
            pairs = [(c.held[how, score], c.own[score]) for c in cases]
            ours, less = np.array([difference(*pair) for pair in pairs]).T
            errors = np.array([standard_error(*pair) for pair in pairs])
            cells = [f"{a:.3f} / {a - d:.3f} ({d:+.3f} ± {e:.3f})" for a, d, e in zip(ours, less, errors, strict=True)]
            mean = f"{ours.mean():.3f} / {(ours - less).mean():.3f}"
            error = np.sqrt((errors**2).sum()) / len(errors)
            lines.append([how, score, *cells, mean, f"{less.mean():+.3f} ± {error:.3f}"])
    return lines


def word_rows(cases: list[Case]) -> list[list[str]]:
    """What genes of each word turn out to be on the mother's spots."""
    lines = []
    for how in HOWS:
        for word in WORDS:
            at = [np.array([gene.word == word for gene in c.trust[how]]) for c in cases]
            own = [
                np.concatenate([c.own[score].scores("ours")[a] for c, a in zip(cases, at, strict=True)])
                for score in SCORES
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
        own = np.concatenate([c.own[SCORES[0]].scores("ours") for c in cases])
        inside = np.mean([g.low <= value <= g.high for g, value in zip(genes, own, strict=True)])
        names = ("score", "low", "high", "knn", "ridge", "ceiling")
        medians = [f"{np.nanmedian([getattr(g, name) for g in genes]):.3f}" for name in names]
        lines.append([how, *medians, f"{np.nanmedian(own):.3f}", f"{inside:.0%}"])
    return lines


def report(cases: list[Case]) -> str:
    """All tables."""
    ranks = ["held out", "score", *(f"{c.mother}: ours / ridge (difference)" for c in cases), "mean", "difference"]
    words = ["held out", "word", "genes", *(f"on the mother's spots, {score}: median (10 %)" for score in SCORES)]
    medians = ["held out", "score", "low", "high", "kNN", "ridge", "ceiling", "mother's spots", "in the interval"]
    return "\n\n".join(
        [
            f"Mothers {', '.join(c.mother for c in cases)}, {GENES} genes each ({machine()}). Rank correlation over "
            "genes between the held-out score and the score on the mother's own spots, and ours less ridge's ± "
            f"standard error (halves of {BLOCKS} blocks of tissue, {DRAWS} draws):",
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

"""The trust table: per gene, how well held-out spots were predicted, and what to make of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.holdout.words import MEANINGS, WORDS, Word, word_of
from iscale.wording import plural

FOLDER = "evaluation"
COLUMNS = ("gene", "score", "low", "high", "score_depth_normalised", "knn", "ridge", "ceiling", "word")
HOW_SAID = {
    "capture": "each capture held out in turn",
    "region": "a fifth of the tissue held out at a time",
    "spots": "a fifth of the spots held out at a time, by chance",
}


@dataclass(frozen=True)
class Trust:
    """What is known of one gene.

    Attributes
    ----------
    gene
        Its name.
    score, low, high
        Correlation over held-out spots between ``log1p`` of the measured and of the predicted counts, and the ends of
        its 95 % interval.
    score_depth_normalised
        The same of counts per 10,000.
    knn, ridge
        The same as ``score`` of the baselines.
    ceiling
        What ``score`` a perfect prediction would have.
    """

    gene: str
    score: float
    low: float
    high: float
    score_depth_normalised: float
    knn: float
    ridge: float
    ceiling: float

    @property
    def word(self) -> Word:
        """One of :data:`iscale.holdout.words.WORDS`."""
        return word_of(self.score, self.low, self.high, self.ceiling)

    @property
    def numbers(self) -> tuple[float, ...]:
        """All numbers, in the order of :data:`COLUMNS`."""
        return tuple(getattr(self, name) for name in COLUMNS[1:-1])


def trust_path(folder: Path, how: str) -> Path:
    """Where the table lies in an output folder."""
    return folder / FOLDER / f"trust-{how}.tsv"


def write_trust(path: Path, genes: Iterable[Trust]) -> None:
    """Write the table, the best score first, genes without a score last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(COLUMNS)
        for gene in sorted(genes, key=lambda g: -g.score if np.isfinite(g.score) else np.inf):
            rows.writerow([gene.gene, *(f"{value:.4f}" for value in gene.numbers), gene.word])
    part.replace(path)


def read_trust(path: Path) -> list[Trust]:
    """Read a table back.

    Raises
    ------
    InputError
        If it is not there.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there: nothing was held out.", "Make it: iscale evaluate PROJECT --hold-out.")
    with path.open(newline="") as file:
        return [
            Trust(row["gene"], *(float(row[name]) for name in COLUMNS[1:-1]))
            for row in csv.DictReader(file, delimiter="\t")
        ]


def describe_trust(folder: Path, how: str = "auto") -> str:
    """The table of an output folder in a few lines, for the terminal.

    Parameters
    ----------
    folder
        The output folder of a run.
    how
        What was held out; ``auto`` for the hardest way that was tried: whole captures, regions, single spots.

    Raises
    ------
    InputError
        If there is no such table.
    """
    if how == "auto":
        how = next((way for way in HOW_SAID if trust_path(folder, way).is_file()), "capture")
    path = trust_path(folder, how)
    return f"{summary(read_trust(path), how)}\n{path}"


def summary(genes: list[Trust], how: str) -> str:
    """A table in a few lines: genes per word, and medians."""
    lines = [f"Trust in {plural(len(genes), 'gene')} ({HOW_SAID[how]}):"]
    for word in WORDS:
        n = sum(gene.word == word for gene in genes)
        lines.append(f"  {n:6d}  {word:<14}  {MEANINGS[word]}")
    medians = {name: _median([getattr(gene, name) for gene in genes]) for name in COLUMNS[1:-1]}
    lines.append(
        "Median correlation on held-out spots: {score:.2f} (of counts per 10,000: {score_depth_normalised:.2f}); "
        "nearest spots {knn:.2f}, ridge regression {ridge:.2f}; a perfect prediction {ceiling:.2f}.".format(**medians)
    )
    lines.append(
        "The word is of counts, which also follow how much RNA there is at a place; score_depth_normalised is of a "
        "gene's share of it."
    )
    return "\n".join(lines)


def _median(values: list[float]) -> float:
    known: NDArray[np.float64] = np.array([v for v in values if np.isfinite(v)])
    return float(np.median(known)) if len(known) else float("nan")

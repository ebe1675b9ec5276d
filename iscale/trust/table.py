"""The trust table: per gene, how well held-out spots were predicted, and a word for how far its map can be believed."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from iscale.engine.whole_file import whole_file
from iscale.errors import InputError
from iscale.words import plural

Word = Literal["reliable", "usable", "weak", "not predicted", "cannot be told"]

WORDS: tuple[Word, ...] = get_args(Word)
"""Best first; the last is of genes of which nothing can be told."""

MEANINGS: dict[Word, str] = {
    "reliable": "the map follows the gene's expression; differences between places can be read from it",
    "usable": "the map has the gene's large pattern; look at the measured spots too before you rely on a detail",
    "weak": "something of the pattern is right, most of it is not",
    "not predicted": "on spots that the model had not seen, the map was no better than chance",
    "cannot be told": "too few molecules were counted, or too few spots, to tell a right map from a wrong one",
}
"""What to tell a reader."""

LEAST_CEILING = 0.4
"""A gene whose ceiling is lower is not judged: estimated on few spots, noise alone has a ceiling of as much."""
RELIABLE, SURE = 0.7, 0.5
"""Shares of the ceiling that the score, and the lower end of its interval, of a reliable gene reach."""
USABLE = 0.5
"""Share of the ceiling that the score of a usable gene reaches."""


def word_of(score: float, low: float, high: float, ceiling: float) -> Word:
    """Judge a gene by its held-out score, as a share of the best score that counting noise leaves possible.

    The share, ``score / ceiling``, is about the correlation of the map with what the spots would measure without
    counting noise: squared, the part of its variation that the map has. 0.7 is half of it, 0.5 a quarter.

    - *cannot be told*: the ceiling is unknown or under 0.4, or the score's interval is so wide that it holds both 0 and
      the share of a usable gene;
    - *not predicted*: else, if 0 is in the interval or above it;
    - *reliable*: else, if the share is at least 0.7, and at least 0.5 at the lower end of the interval;
    - *usable*: else, if the share is at least 0.5;
    - *weak*: else.

    Parameters
    ----------
    score, low, high
        Held-out correlation and the ends of its 95 % interval; NaN where there is none.
    ceiling
        Correlation that a perfect prediction would have.

    Examples
    --------
    >>> word_of(0.6, 0.5, 0.7, 0.8), word_of(0.6, 0.3, 0.8, 0.8), word_of(0.3, 0.1, 0.5, 0.8)
    ('reliable', 'usable', 'weak')
    >>> word_of(0.1, -0.1, 0.3, 0.8)
    'not predicted'
    >>> word_of(0.3, 0.1, 0.5, 0.2), word_of(0.6, -0.1, 0.9, 0.8)
    ('cannot be told', 'cannot be told')
    """
    if not ceiling >= LEAST_CEILING:
        return "cannot be told"
    if not low > 0:
        return "not predicted" if high < USABLE * ceiling else "cannot be told"
    if score >= RELIABLE * ceiling and low >= SURE * ceiling:
        return "reliable"
    return "usable" if score >= USABLE * ceiling else "weak"


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
        """One of :data:`iscale.trust.table.WORDS`."""
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
    with whole_file(path) as part, part.open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(COLUMNS)
        for gene in sorted(genes, key=lambda g: -g.score if np.isfinite(g.score) else np.inf):
            rows.writerow([gene.gene, *(f"{value:.4f}" for value in gene.numbers), gene.word])


def read_trust(path: Path) -> list[Trust]:
    """Read a table back; an `InputError` where it is not there."""
    if not path.is_file():
        raise InputError(f"{path} is not there: nothing was held out.", "Make it: iscale evaluate PROJECT --hold-out.")
    with path.open(newline="") as file:
        return [
            Trust(row["gene"], *(float(row[name]) for name in COLUMNS[1:-1]))
            for row in csv.DictReader(file, delimiter="\t")
        ]


def describe_trust(folder: Path, how: str = "auto") -> str:
    """The table of an output folder in a few lines, for the terminal.

    ``auto`` is the hardest way to hold out that was tried: whole captures, regions, single spots.
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

"""A word per gene that says how far its map can be believed."""

from __future__ import annotations

from typing import Literal, get_args

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

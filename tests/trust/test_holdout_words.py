from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iscale.trust.table import LEAST_CEILING, MEANINGS, WORDS, word_of

share = st.floats(-1, 1)


def test_every_word_has_a_meaning() -> None:
    assert list(MEANINGS) == list(WORDS)


@given(share, st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 0.5))
def test_a_better_score_never_has_a_worse_word(score: float, width: float, ceiling: float, more: float) -> None:
    one, better = (WORDS.index(word_of(s, s - width, s + width, ceiling)) for s in (score, score + more))
    assert better <= one or WORDS[better] == "cannot be told"


@given(share, st.floats(0, 0.5))
def test_nothing_is_said_of_genes_whose_noise_hides_everything(score: float, width: float) -> None:
    for ceiling in (0.0, LEAST_CEILING - 0.01, np.nan):
        assert word_of(score, score - width, score + width, ceiling) == "cannot be told"


def test_a_score_without_an_interval_is_not_believed() -> None:
    assert word_of(0.9, np.nan, np.nan, 0.9) == "cannot be told"
    assert word_of(np.nan, np.nan, np.nan, 0.9) == "cannot be told"


def test_a_high_score_of_few_spots_is_not_called_worthless() -> None:
    assert word_of(0.95, -0.2, 0.999, 0.97) == "cannot be told"
    assert word_of(0.05, -0.2, 0.3, 0.97) == "not predicted"

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from iscale.errors import InputError
from iscale.trust.table import COLUMNS, Trust, describe_trust, read_trust, trust_path, write_trust

GENES = [
    Trust("GAPDH", 0.2, 0.1, 0.3, 0.1, 0.1, 0.2, 0.9),
    Trust("NA", np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan),
    Trust("ERBB2", 0.8, 0.7, 0.9, 0.6, 0.5, 0.6, 0.95),
]


def test_the_best_gene_comes_first_and_those_of_which_nothing_is_known_last(tmp_path) -> None:
    path = trust_path(tmp_path, "capture")
    write_trust(path, GENES)
    found = read_trust(path)
    assert [gene.gene for gene in found] == ["ERBB2", "GAPDH", "NA"]
    np.testing.assert_array_equal(found[2].numbers, GENES[1].numbers)
    assert found[0] == GENES[2]
    assert not list(path.parent.glob("*.part"))


def test_other_programs_can_read_it(tmp_path) -> None:
    write_trust(trust_path(tmp_path, "region"), GENES)
    table = pd.read_csv(tmp_path / "evaluation" / "trust-region.tsv", sep="\t", keep_default_na=False, na_values="nan")
    assert tuple(table.columns) == COLUMNS
    assert table["word"].tolist() == ["reliable", "weak", "cannot be told"]
    assert table["score"].tolist()[:2] == [0.8, 0.2]


def test_the_terminal_says_how_many_genes_to_believe(tmp_path) -> None:
    write_trust(trust_path(tmp_path, "region"), GENES)
    text = describe_trust(tmp_path)
    assert "Trust in 3 genes (a fifth of the tissue held out at a time)" in text
    assert "     1  reliable " in text
    assert "     0  usable " in text
    assert "held-out spots: 0.50 (of counts per 10,000: 0.35); nearest spots 0.30, ridge regression 0.40" in text
    assert "a perfect prediction 0.93" in text
    write_trust(trust_path(tmp_path, "capture"), GENES)
    assert "each capture held out in turn" in describe_trust(tmp_path)


def test_what_was_not_held_out_has_no_table(tmp_path) -> None:
    with pytest.raises(InputError, match=r"trust-region\.tsv is not there"):
        describe_trust(tmp_path, "region")

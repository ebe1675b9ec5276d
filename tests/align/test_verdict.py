"""What was measured is good, doubtful or bad, says why, and reads well in both tables."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import pytest

from iscale.align.quality import BAD, DOUBTFUL, GOOD, Quality, quality_table, quality_text, verdict

RIGHT = Quality(0.98, 0.97, 0.48, 0.16, 180, 0.99, 0.99, 0.0, 0.44, 0.3, 42.0)


@pytest.mark.parametrize(
    ("change", "word", "reason"),
    [
        ({}, GOOD, ""),
        ({"overlap": 0.85}, DOUBTFUL, "85% of the capture's tissue"),
        ({"overlap": 0.6}, BAD, "60% of the capture's tissue"),
        ({"iou": 0.3}, DOUBTFUL, "intersection over union"),
        ({"iou": 0.8, "stain_correlation": 0.15, "residual_um": None}, BAD, "0.15 only"),
        ({"iou": 0.8, "stain_correlation": 0.15}, DOUBTFUL, "0.15 only"),
        ({"stain_correlation": 0.3, "stain_elsewhere": 0.28}, DOUBTFUL, "wrong for sure"),
        ({"stain_correlation": 0.3, "stain_elsewhere": 0.6}, BAD, "better at another place"),
        ({"stain_correlation": None, "stain_elsewhere": None}, DOUBTFUL, "could not be compared"),
        ({"counts_correlation": -0.3}, GOOD, ""),
        ({"spots_on_tissue": 0.5}, BAD, "50% of the spots"),
        ({"spots_outside": 0.1}, DOUBTFUL, "outside of the mother image"),
        ({"spots_outside": 0.4}, BAD, "outside of the mother image"),
        ({"residual_um": 180.0}, DOUBTFUL, "180 um"),
        ({"residual_um": 900.0}, BAD, "900 um"),
    ],
)
def test_verdicts(change: dict[str, Any], word: str, reason: str) -> None:
    found, reasons = verdict(replace(RIGHT, **change))
    assert found == word
    assert reason in " ".join(reasons)
    assert bool(reasons) == (word != GOOD)


def test_spots_beside_the_tissue_are_excused_by_counts_where_there_is_no_image() -> None:
    alone = replace(RIGHT, overlap=None, iou=None, stain_correlation=None, stain_elsewhere=None, spots_on_tissue=0.2)
    assert verdict(alone)[0] == DOUBTFUL
    assert verdict(replace(alone, counts_correlation=0.1))[0] == BAD


def test_the_table_has_a_row_per_capture_and_reads_back() -> None:
    rows = [("D1", RIGHT), ("D2", replace(RIGHT, overlap=None, iou=0.8, residual_um=None))]
    text = quality_table(rows)
    assert text.endswith("\n")
    table = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    assert [(row["capture"], row["verdict"]) for row in table] == [("D1", GOOD), ("D2", DOUBTFUL)]
    assert float(table[0]["stain_correlation"]) == 0.48
    assert table[0]["spots"] == "180"
    assert table[1]["overlap"] == table[1]["residual_um"] == ""
    assert "80%" in table[1]["reasons"]


def test_the_text_is_aligned() -> None:
    lines = quality_text([("a", RIGHT), ("a long name", replace(RIGHT, stain_elsewhere=None))]).splitlines()
    assert len(lines) == 3
    assert {line.index("98%") for line in lines[1:]} == {lines[0].index("overlap")}
    assert "0.48 (else 0.16)" in lines[1]
    assert "42 um" in lines[2]


def test_spots_off_their_own_tissue_are_bad_where_counts_fit_elsewhere() -> None:
    off = replace(RIGHT, spots_on_own=0.58, counts_correlation=0.2, counts_elsewhere=0.39)
    word, reasons = verdict(off)
    assert word == BAD
    assert "swapped" in " ".join(reasons)
    assert verdict(replace(RIGHT, spots_on_own=0.58))[0] == GOOD

"""What a check says of captures beside each other: twice the same, overlapping, disagreeing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

from iscale.check.finding import Finding
from iscale.check.overlap import Placed, agreement, overlap_share, same_counts, same_places
from iscale.check.positions import Verdict
from iscale.check.sample import Sample

ABOVE_CHANCE = 2.5
"""Standard deviations. Sections of one block, laid rightly, have 14 and more, 4.5 with 40 spots in common."""

TOLD = 0.05
"""Captures that share less of their spots than this do not overlap."""


def shared_placed(
    samples: Sequence[Sample], verdicts: Mapping[str, Verdict], doubted: Collection[str | None]
) -> list[tuple[Placed, bool]]:
    """Captures on the mother image over the genes that they share, and whether each can be compared with others.

    Parameters
    ----------
    samples
        The captures.
    verdicts
        Of those that are placed, by name.
    doubted
        Names of captures of which something is told already that would make them disagree with others.
    """
    placed = [sample for sample in samples if sample.name in verdicts and sample.xy_px is not None]
    if not placed:
        return []
    genes = sorted(set.intersection(*(set(sample.genes) for sample in placed)))
    result = []
    for sample in placed:
        assert sample.xy_px is not None
        column = {gene: i for i, gene in enumerate(sample.genes)}
        columns = np.array([column[gene] for gene in genes], dtype=np.int64)
        pitch = verdicts[sample.name].placement.pitch.px
        result.append((Placed(sample.name, sample.xy_px, sample.counts, columns, pitch), sample.name not in doubted))
    return result


def capture_findings(placed: Sequence[tuple[Placed, bool]]) -> tuple[list[Finding], dict[str, str]]:
    """Compare captures two by two.

    Returns
    -------
    findings, facts
        A fact for every two that overlap.
    """
    findings: list[Finding] = []
    facts: dict[str, str] = {}
    for (a, a_sound), (b, b_sound) in combinations(placed, 2):
        if twice := _twice(a, b):
            findings.append(twice)
        elif a_sound and b_sound:
            found, fact = _overlapping(a, b)
            findings += found
            facts |= fact
    return findings, facts


def _twice(a: Placed, b: Placed) -> Finding | None:
    remedy = "Take one of the two out, or put its own measurement there: spots that count twice weigh twice."
    if same_counts(a, b):
        message = f"{a.name} and {b.name} have the same counts in all {len(a.xy_px)} spots: one is a copy of the other."
        return Finding("capture-twice", message, remedy)
    if same_places(a.xy_px, b.xy_px, a.pitch_px):
        message = f"{a.name} and {b.name} have all {len(a.xy_px)} spots at the same places, with other counts."
        return Finding("capture-twice", message, remedy)
    return None


def _overlapping(a: Placed, b: Placed) -> tuple[list[Finding], dict[str, str]]:
    shares = overlap_share(a, b), overlap_share(b, a)
    if max(shares) < TOLD:
        return [], {}
    key = f"{a.name} and {b.name}"
    said = f"overlap: {shares[0]:.0%} of the spots of {a.name}, {shares[1]:.0%} of {b.name}"
    found = agreement(a, b)
    if found is None:
        return [], {key: said}
    told = f"profiles of {found.pairs} paired spots correlate by {found.correlation:.2f}"
    chance = f"{found.shuffled:.2f} ± {found.spread:.2f} for pairs drawn at random"
    fact = {key: f"{said}; {told} ({chance})"}
    if found.above_chance >= ABOVE_CHANCE:
        return [], fact
    message = f"{key} {said}, but they disagree there: {told}, no more than chance ({chance})."
    remedy = "Check that the spots' ids belong to their positions, and the alignment of both; leave the wrong one out."
    return [Finding("captures-disagree", message, remedy)], fact

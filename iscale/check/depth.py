"""Whether there is enough in the counts, and whether they are counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iscale.check.finding import Finding

LEAST = 100.0
"""Median counts of a spot below which little but noise is seen ..."""

FULL_PANEL = 1000
"""... of as many genes; of fewer, so many fewer."""

MOST_UNEVEN = 10.0
FINE_UM = 20.0
"""Bins and cells are small: what counts for spots does not for them."""


@dataclass(frozen=True)
class Depth:
    """Depth of a capture.

    Attributes
    ----------
    median
        Counts of all genes in the median spot.
    whole_numbers
        Whether the counts are whole numbers.
    genes
        How many genes it measured.
    spots
        Whether it is made of spots, not of small bins or cells.
    """

    median: float
    whole_numbers: bool
    genes: int
    spots: bool

    @property
    def least(self) -> float:
        """Median counts that are wanted of so many genes."""
        return LEAST * min(1.0, self.genes / FULL_PANEL)


def check_depth(depths: Mapping[str, Depth]) -> list[Finding]:
    """Captures that are no counts, that are shallow, or much shallower than another of as many genes."""
    findings = []
    for name, depth in depths.items():
        if not depth.whole_numbers:
            message = (
                "The counts are not whole numbers: they look normalised. Of such values the predictions are no counts."
            )
            findings.append(Finding("counts-not-whole", message, "Give raw counts.", name))
    sound = {name: depth for name, depth in depths.items() if depth.whole_numbers and depth.spots}
    low = {name for name, depth in sound.items() if depth.median < depth.least}
    for name in sorted(low):
        has, least = sound[name], sound[name].least
        message = (
            f"The median spot has {has.median:.0f} counts of {has.genes} genes; fewer than {least:.0f} tell little."
        )
        remedy = (
            "Check that all reads and genes are in the counts; if they are, expect little, or leave the capture out."
        )
        findings.append(Finding("depth-low", message, remedy, name))
    rest = {name: depth for name, depth in sound.items() if name not in low}
    if len(rest) > 1:
        shallow, deep = (pick(rest, key=lambda name: rest[name].median) for pick in (min, max))
        if rest[deep].median > MOST_UNEVEN * rest[shallow].median:
            message = (
                f"The median spot of {shallow} has {rest[shallow].median:.0f} counts, that of {deep} "
                f"{rest[deep].median:.0f}, {rest[deep].median / rest[shallow].median:.0f} times as many."
            )
            remedy = "Check that both hold raw counts of all genes; if they do, expect the deeper one to prevail."
            findings.append(Finding("depth-uneven", message, remedy, shallow))
    return findings

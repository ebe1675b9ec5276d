"""Whether there is enough in the counts, whether they are counts, and whether captures speak of the same genes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from iscale.check.finding import Finding
from iscale.words import plural, similar_names

LEAST = 100.0
"""Median counts of a spot below which little but noise is seen ..."""

FULL_PANEL = 1000
"""... of as many genes; of fewer, so many fewer."""

MOST_UNEVEN = 10.0
MOST_PER_SUPERPIXEL = 65504.0
"""The largest number of a map, which is of half precision."""
FINE_UM = 20.0
"""Bins and cells are small: what counts for spots does not for them."""


@dataclass(frozen=True)
class Depth:
    """Counts of the median spot over so many genes; whether they are whole, and of spots, not of bins or cells."""

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


def check_largest(name: str, depth: NDArray[np.float64], disc: int) -> list[Finding]:
    """Counts (spot,) of all genes, of a disc of so many superpixels, that no map can hold."""
    most = float(depth.max(initial=0.0))
    if most <= MOST_PER_SUPERPIXEL / 2 * disc:
        return []
    message = (
        f"A spot has {most:.4g} counts in {plural(disc, 'superpixel')}; "
        f"a map holds {MOST_PER_SUPERPIXEL:,.0f} per superpixel at most, and is kept below half of that."
    )
    return [Finding("counts-too-large", message, "Check that the table holds counts, and of spots, not sums.", name)]


def check_places(name: str, xy_px: NDArray[np.float64]) -> list[Finding]:
    """Spots (spot, 2) in pixels of which several lie at one place, to a hundredth of a pixel."""
    _, times = np.unique(np.round(xy_px, 2), axis=0, return_counts=True)
    shared = int(times[times > 1].sum())
    if not shared:
        return []
    message = (
        f"{shared:,} of {len(xy_px):,} spots share {plural(int((times > 1).sum()), 'place')}, "
        f"up to {times.max():,} of them one: what they measured cannot be of one disc."
    )
    remedy = "Give each spot its own place; a wrong join of counts and places looks like this."
    return [Finding("spots-at-one-place", message, remedy, name)]


ENSEMBL = re.compile(r"ENS([A-Z]*)G\d{6,}(\.\d+)?")
FEW = 0.5
"""Captures that share less of the smallest panel than this lose most of what that one measured."""

MOSTLY = 0.5
SHOWN = 5
HUMAN, MOUSE = "human", "mouse"


def kind_of_names(genes: Sequence[str]) -> str:
    """How genes are named, by most of them: ``ids`` or ``symbols``.

    >>> kind_of_names(["ENSG00000141510", "ENSG00000012048.2"]), kind_of_names(["TP53", "BRCA1"])
    ('ids', 'symbols')
    """
    ids = sum(ENSEMBL.fullmatch(gene) is not None for gene in genes)
    return "ids" if ids > MOSTLY * len(genes) else "symbols"


def species_of(genes: Sequence[str]) -> str | None:
    """The species that gene names are written for, ``human`` or ``mouse``; None where they do not tell.

    >>> species_of(["ENSMUSG00000059552"]), species_of(["TP53", "BRCA1"]), species_of(["Trp53", "Brca1"])
    ('mouse', 'human', 'mouse')
    """
    votes = {HUMAN: 0, MOUSE: 0}
    for gene in genes:
        found = ENSEMBL.fullmatch(gene)
        letters = re.sub(r"[^A-Za-z]", "", gene)
        if found:
            species = {"": HUMAN, "MUS": MOUSE}.get(found[1])
        elif len(letters) < 3:
            species = None
        elif letters.isupper():
            species = HUMAN
        else:
            species = MOUSE if letters[0].isupper() and letters[1:].islower() else None
        if species:
            votes[species] += 1
    best = max(votes, key=lambda name: votes[name])
    return best if votes[best] > 0.7 * sum(votes.values()) and sum(votes.values()) > 0.3 * len(genes) else None


def check_genes(genes: Mapping[str, Sequence[str]]) -> tuple[list[Finding], int]:
    """Compare the genes of captures: at most one finding, and how many genes all share."""
    if not genes:
        return [], 0
    shared = set.intersection(*(set(names) for names in genes.values()))
    smallest = min(len(set(names)) for names in genes.values())
    if len(genes) == 1 or len(shared) >= FEW * smallest:
        return [], len(shared)
    shown = "; ".join(f"{name} has {len(names)}: {', '.join(names[:3])} ..." for name, names in genes.items())
    numbers = f"The {len(genes)} captures share {len(shared)} genes ({shown})"
    kinds = {name: kind_of_names(names) for name, names in genes.items()}
    if len(set(kinds.values())) > 1:
        ids = ", ".join(name for name, kind in kinds.items() if kind == "ids")
        message = f"{numbers}: {ids} name genes by Ensembl id, the others by symbol."
        return [Finding("genes-ids-and-symbols", message, "Use one of the two in all captures.")], len(shared)
    species = {name: found for name, names in genes.items() if (found := species_of(names))}
    if len(set(species.values())) > 1:
        said = ", ".join(f"{name} {found}" for name, found in species.items())
        message = f"{numbers}, whose names are those of different species: {said}."
        remedy = "Use captures of one species; if they are, write its gene names in the same way in all."
        return [Finding("genes-species-mixed", message, remedy)], len(shared)
    remedy = f"Name genes the same way in all captures, or leave one out.{_versions(genes)}"
    code = "genes-few-shared" if shared else "genes-none-shared"
    return [Finding(code, f"{numbers}; only shared genes are imputed.", remedy)], len(shared)


def check_named(code: str, source: str, named: Sequence[str], genes: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Genes that a file of the project names and that not all captures have."""
    if not genes:
        return []
    shared = set.intersection(*(set(names) for names in genes.values()))
    missing = [gene for gene in dict.fromkeys(named) if gene not in shared]
    if not missing:
        return []
    said = []
    for gene in missing[:SHOWN]:
        close = similar_names(gene, shared, n=1)
        without = [name for name, names in genes.items() if gene not in set(names)]
        where = "no capture has it" if len(without) == len(genes) else f"not in {', '.join(without)}"
        said.append(f"{gene} ({where}{f'; similar: {close[0]}' if close else ''})")
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    message = (
        f"{source} names {len(missing)} of {len(set(named))} genes that not all captures have: {', '.join(said)}{more}."
    )
    return [Finding(code, message, "Correct their names, or take them out of the file.")]


def _versions(genes: Mapping[str, Sequence[str]]) -> str:
    """A hint where names differ only by what follows a dot, as versions of Ensembl ids do."""
    bare = [{re.sub(r"\.\d+$", "", gene) for gene in names} for names in genes.values()]
    if all(len(a & b) > FEW * min(len(a), len(b)) for a, b in combinations(bare, 2)):
        return " They match without the version after the dot."
    return ""

"""Which genes a run and a truth have in common, and why others are not found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iscale.errors import InputError

SHOWN = 8


@dataclass(frozen=True)
class Common:
    """Genes that both have, in the run's order.

    Attributes
    ----------
    names
        (gene,).
    run, truth
        (gene,) their numbers in the run and in the truth.
    notices
        What is missing, one sentence each.
    """

    names: tuple[str, ...]
    run: tuple[int, ...]
    truth: tuple[int, ...]
    notices: tuple[str, ...]


def genes_in_common(
    run: Sequence[str], truth: Sequence[str], source: str, all_genes: Sequence[str] | None = None
) -> Common:
    """Match genes by name.

    Parameters
    ----------
    run, truth
        Names of the genes of each.
    source
        The truth, for messages.
    all_genes
        All names that the truth has, for hints, where ``truth`` are but some.

    Raises
    ------
    InputError
        There is none in common, or the truth names one twice, or none at all.

    Examples
    --------
    >>> found = genes_in_common(["A", "B", "C"], ["C", "A", "b"], "truth.npz")
    >>> found.names, found.truth
    (('A', 'C'), (1, 0))
    >>> found.notices
    ("1 of the run's 3 genes are not in truth.npz: B. 1 are there in another case: B as b.",)
    """
    if not truth and not all_genes:
        raise InputError(f"{source}: it names no gene.", "Is it what you meant? A truth has a map or counts per gene.")
    place = {gene: i for i, gene in enumerate(truth)}
    if len(place) < len(truth):
        raise InputError(f"{source} names {len(truth) - len(place)} of {len(truth)} genes twice.", "Keep one of each.")
    both = [(gene, i, place[gene]) for i, gene in enumerate(run) if gene in place]
    missing = [gene for gene in run if gene not in place]
    hint = _case_hint(missing, all_genes or truth)
    if not both:
        raise InputError(
            f"{source} and the run have no gene in common: it has {_some(all_genes or truth)}, the run {_some(run)}."
            f"{hint}",
            "Names must be the same: symbols and ids do not match each other, nor do mouse and human genes.",
        )
    notices = (
        (f"{len(missing)} of the run's {len(run)} genes are not in {source}: {_some(missing)}.{hint}",)
        if missing
        else ()
    )
    names, rows, theirs = zip(*both, strict=True)
    return Common(names, rows, theirs, notices)


def _case_hint(missing: Sequence[str], names: Sequence[str]) -> str:
    """Which of the missing names are there but for their case."""
    folded = {name.casefold(): name for name in names}
    found = [(gene, folded[gene.casefold()]) for gene in missing if gene.casefold() in folded]
    if not found:
        return ""
    return f" {len(found)} are there in another case: {_some([f'{ours} as {theirs}' for ours, theirs in found])}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" ... ({len(names)})" if len(names) > SHOWN else "")

"""``markers.csv``: which genes speak for which label."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iscale.errors import InputError
from iscale.project.layout import file_name
from iscale.words import plural

UNCLASSIFIED = "Unclassified"
"""What a superpixel is whose best score is below the threshold; no label may be called so."""

NOTHING = "#d9d9d9"
"""Its colour."""

MOST_LABELS = 254
"""Labels are stored as a byte, with two values for what has none."""

SHOWN = 5
EXAMPLE = "Write a header and a gene a line:\n    gene,label\n    ERBB2,tumour\n    CD3E,lymphoid"

REMEDY = (
    "Correct their names; a run tells the genes that all its captures measured, with --recipe published only those "
    "that it imputes (--n-genes, MotherImage/gene-names.txt)."
)

Row = tuple[int, str, str]
"""Line of the file, gene, label."""


@dataclass(frozen=True)
class Markers:
    """Labels, and the genes of the run that speak for each.

    Attributes
    ----------
    labels
        Names in the order of the file, without those that have no gene in the run.
    genes
        Per label its markers, each once.
    missing
        Genes that the file names and the run lacks.
    notices
        What the user should be told: markers and labels that are left out.
    """

    labels: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def read_markers(path: Path, genes: Sequence[str]) -> Markers:
    """Read a table of markers, with a header that names the columns ``gene`` and ``label``.

    Commas, semicolons and tabs separate; further columns, blank lines and repeated lines are passed over. A gene may
    speak for several labels. Markers that are not among the run's ``genes``, written or not, are left out, and so are
    labels without any other: a run with few genes should not fail for one rare cell type. Notices tell both.

    Raises
    ------
    InputError
        If the file is not such a table, names no marker, or none that the run has.
    """
    of_label, known, named = _by_label(path), set(genes), named_markers(path)
    missing = tuple(gene for gene in named if gene not in known)
    if len(missing) == len(named):
        raise InputError(f"{path}: the run has none of the {len(named)} markers: {_listed(missing, genes)}.", REMEDY)
    there = {label: tuple(gene for gene in markers if gene in known) for label, markers in of_label.items()}
    lost = [label for label, markers in there.items() if not markers]
    kept = {label: markers for label, markers in there.items() if markers}
    notices = (*_notices(path, len(named), missing, lost, genes), *_alike(path, kept))
    return Markers(tuple(kept), tuple(kept.values()), missing, notices)


def named_markers(path: Path) -> tuple[str, ...]:
    """Genes that the table names, each once; raises as :func:`read_markers` does where it is not one."""
    return tuple(dict.fromkeys(gene for markers in _by_label(path).values() for gene in markers))


def _by_label(path: Path) -> dict[str, dict[str, None]]:
    """Genes of every label, in the order of the file."""
    of_label: dict[str, dict[str, None]] = {}
    for line, gene, label in _rows(path):
        _check_label(path, line, label, of_label)
        of_label.setdefault(label, {})[gene] = None
    if not of_label:
        raise InputError(f"{path} names no markers.", EXAMPLE)
    return of_label


def _notices(path: Path, named: int, missing: Sequence[str], lost: list[str], genes: Sequence[str]) -> Iterator[str]:
    if missing:
        yield (
            f"{path.name}: left out, as not among the {plural(len(genes), 'gene')} of the run, {len(missing)} of "
            f"{plural(named, 'marker')}: {_listed(missing, genes)}. {REMEDY}"
        )
    if lost:
        yield (
            f"{path.name}: not annotated, as without any marker in the run, {plural(len(lost), 'label')}: "
            f"{', '.join(lost[:SHOWN])}{_more(len(lost))}."
        )


def _alike(path: Path, kept: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Labels that have the same markers as an earlier one: of equal scores the first label is taken."""
    first: dict[frozenset[str], str] = {}
    for label, markers in kept.items():
        other = first.setdefault(frozenset(markers), label)
        if other != label:
            yield (
                f"{path.name}: {label} has the same markers in the run as {other}, {', '.join(markers[:SHOWN])}: no "
                f"superpixel gets it, as {other} comes first. Give it a marker of its own."
            )


def _listed(missing: Sequence[str], genes: Sequence[str]) -> str:
    """Some missing genes, with those of the run that differ in case alone."""
    by_case = {gene.casefold(): gene for gene in genes}
    shown = []
    for gene in missing[:SHOWN]:
        other = by_case.get(gene.casefold())
        shown.append(f"{gene} (there is {other})" if other else gene)
    return ", ".join(shown) + _more(len(missing))


def _more(n: int) -> str:
    return f" and {n - SHOWN} more" if n > SHOWN else ""


def _check_label(path: Path, line: int, label: str, others: dict[str, dict[str, None]]) -> None:
    """Refuse labels that could not be told from another in a file's name."""
    if label.casefold() == UNCLASSIFIED.casefold():
        raise InputError(
            f"{path}: line {line} has the label {label!r}, which is what superpixels without a label are called.",
            "Choose another name.",
        )
    if label in others:
        return
    if len(others) == MOST_LABELS:
        raise InputError(f"{path} has more than {MOST_LABELS} labels: line {line} is one more.", "Use fewer labels.")
    for other in others:
        if file_name(other).casefold() == file_name(label).casefold():
            raise InputError(
                f"{path}: line {line} has the label {label!r}, an earlier line {other!r}: they differ only in what "
                "files of their names cannot tell apart.",
                "Write a label alike on all its lines, or choose names that differ in letters or figures.",
            )


def _rows(path: Path) -> Iterator[Row]:
    """Lines of the table that are not blank, checked."""
    lines = [(n, line) for n, line in enumerate(_text(path).splitlines(), start=1) if line.strip(" \t,;")]
    if not lines:
        raise InputError(f"{path} is empty.", EXAMPLE)
    first, header = lines[0]
    delimiter = max(",;\t", key=header.count)
    names = [cell.casefold() for cell in _cells(header, delimiter)]
    if not {"gene", "label"} <= set(names):
        raise InputError(f"{path}: line {first} is {header[:60]!r}, not a header with `gene` and `label`.", EXAMPLE)
    at_gene, at_label = names.index("gene"), names.index("label")
    for number, line in lines[1:]:
        cells = _cells(line, delimiter)
        gene, label = (cells[at] if at < len(cells) else "" for at in (at_gene, at_label))
        if not gene or not label:
            lacks = "gene" if not gene else "label"
            raise InputError(f"{path}: line {number} is {line[:60]!r}: it has no {lacks}.", EXAMPLE)
        yield number, gene, label


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file.", "Save the table as CSV (UTF-8).") from None

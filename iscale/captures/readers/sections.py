"""Several sections in one table: told by what names them, and one of them taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from iscale.errors import InputError

SECTION_SETTING = "section in [capture.NAME] of iscale.toml, or section= in Python"
SECTION_COLUMNS = ("section", "section_id", "sample", "sample_id", "slide", "slide_id", "batch", "fov")
"""Columns that may name sections: they do where the spots of their values lie among each other."""

LIBRARY = "library_id"
BARCODE = re.compile(r"(.*?)([ACGTN]{14,}|s_\d{3}um_\d+_\d+|[a-p]{8})(-.*|_.*|)")
"""What stands before a barcode of Visium or Visium HD, or a cell's id of Xenium; it; and what follows."""

REPEATED = 0.01
"""Share of barcodes that two sections of one kind of array have in common at least."""

AMONG = 0.35
"""Share of spots whose nearest is of another section, where sections lie over each other."""

MOST_ASKED = 20_000


@dataclass(frozen=True)
class Sections:
    """Sections of a table: what names them, their names, and which each spot (spot,) is of."""

    by: str
    names: tuple[str, ...]
    of_spot: NDArray[np.int64]


def take_section(
    obs: pd.DataFrame, xy: NDArray[np.float64], libraries: Sequence[str], section: str | None, source: str
) -> NDArray[np.intp] | None:
    """Rows of the section that is asked for; None where the table is of one section, and is meant as a whole.

    ``libraries`` are the keys of ``uns["spatial"]``, ``xy`` (spot, 2) positions as stored.

    Raises
    ------
    InputError
        Where there are several and none is asked for, or that is not there.
    """
    found = list(_groupings(obs, libraries))
    if section is not None:
        for sections in found:
            if section in sections.names:
                return np.flatnonzero(sections.of_spot == sections.names.index(section))
        if list(libraries) == [section]:
            return None
        there = "; ".join(f"{_shown(s.names)} (by {s.by})" for s in found) or _shown(libraries) or "nothing names any"
        raise InputError(f"{source} has no section {section!r}: {there}.", f"Name one of these ({SECTION_SETTING}).")
    for sections in found:
        if sections.by == LIBRARY_BY or _repeats(obs, sections) or _among(xy, sections.of_spot):
            raise several(source, sections.names, f"by {sections.by}")
    if len(libraries) > 1:
        raise InputError(
            f"{source} holds {len(libraries)} sections, by uns['spatial']: {_shown(libraries)}; no column of obs says "
            "which spot is of which.",
            "Write every section, with its own uns['spatial'], to a .h5ad file of its own.",
        )
    return None


def several(source: str, names: Sequence[str], how: str) -> InputError:
    """What to say of a table that holds several sections."""
    return InputError(
        f"{source} holds {len(names)} sections, each with pixels of its own: {_shown(names)} ({how}).",
        f"Take one of them ({SECTION_SETTING}: section = {names[0]!r}), each as a capture of its own.",
    )


LIBRARY_BY = f"obs {LIBRARY}"


def _groupings(obs: pd.DataFrame, libraries: Sequence[str]) -> Iterator[Sections]:
    """Whatever may name sections: columns whose values are libraries, those of such names, what is beside barcodes."""
    if len(libraries) > 1:
        for column in obs.columns:
            if set(map(str, obs[column].unique())) == set(libraries):
                yield _sections(LIBRARY_BY, obs[column])
                break
    for column in (LIBRARY, *SECTION_COLUMNS):
        named = next((name for name in obs.columns if str(name).lower() == column), None)
        if named is not None:
            by = LIBRARY_BY if column == LIBRARY else f"obs {named}"
            sections = _sections(by, obs[named])
            if 1 < len(sections.names) <= max(2, len(obs) // 3):
                yield sections
    matched = [BARCODE.fullmatch(str(name)) for name in obs.index]
    if matched and all(matched):
        around = [(match[1], match[3]) for match in matched if match]
        sections = _sections("what their barcodes begin or end with", pd.Series(_shortest(around)))
        if 1 < len(sections.names) <= max(2, len(obs) // 3):
            yield sections


def _shortest(around: Sequence[tuple[str, str]]) -> list[str]:
    """Names of what stands around barcodes: of what differs only, without separators at its ends."""
    before, after = ({part[i] for part in around} for i in (0, 1))
    names = [(a if len(before) > 1 else "") + (b if len(after) > 1 else "") for a, b in around]
    last = {name: name.strip("-_").removeprefix("1-") if len(before) == 1 else name.strip("-_") for name in set(names)}
    unique = len(set(last.values())) == len(last) and all(last.values())
    return [last[name] if unique else name for name in names]


def _sections(by: str, column: pd.Series) -> Sections:
    codes, names = pd.factorize(column.astype(str), sort=True)
    return Sections(by, tuple(map(str, names)), np.asarray(codes, np.int64))


def _repeats(obs: pd.DataFrame, sections: Sections) -> bool:
    """Whether the sections share barcodes, as arrays of one kind do."""
    matched = [BARCODE.fullmatch(str(name)) for name in obs.index]
    if not all(matched):
        return False
    codes = pd.factorize(pd.Series([match[2] for match in matched if match]))[0]
    pairs = pd.DataFrame({"code": codes, "section": sections.of_spot}).drop_duplicates()
    return bool(pairs["code"].duplicated().mean() > REPEATED)


def _among(xy: NDArray[np.float64], of_spot: NDArray[np.int64]) -> bool:
    """Whether spots of different sections lie among each other."""
    asked = np.arange(0, len(xy), -(-len(xy) // MOST_ASKED))
    nearest = np.asarray(cKDTree(xy).query(xy[asked], 2)[1])
    other = np.where(nearest[:, 0] == asked, nearest[:, 1], nearest[:, 0])
    return bool((of_spot[asked] != of_spot[other]).mean() > AMONG)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

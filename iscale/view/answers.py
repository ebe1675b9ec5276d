"""What the page asks beside tiles: genes by a part of their names, histograms, what lies under the cursor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.geometry import Region
from iscale.plots.draw import colour_range
from iscale.view.planes import Planes
from iscale.view.refused import RefusedError
from iscale.view.slide import Slide

MOST_NAMES = 50
"""Genes that a search gives at most."""

BINS = 64
"""Of a histogram."""

DIGITS = 6
"""Significant digits of values: stored ones have four."""


class Search:
    """Genes by a part of their names.

    Parameters
    ----------
    genes
        All names, those that are written first.
    written
        How many are written.

    Examples
    --------
    >>> Search(("KRT5", "CD3E", "KRT14", "PKRT5"), 3).find("krt5")
    {'found': 2, 'genes': [{'name': 'KRT5', 'written': True}, {'name': 'PKRT5', 'written': False}]}
    """

    def __init__(self, genes: tuple[str, ...], written: int) -> None:
        self._genes, self._written = genes, written
        self._upper = [name.upper() for name in genes]

    def find(self, text: str, most: int = 20) -> dict[str, Any]:
        """Genes whose names hold a text, whatever its case: equal ones first, then those that begin with it."""
        wanted = text.strip().upper()
        ranked = [
            (name != wanted, not name.startswith(wanted), i) for i, name in enumerate(self._upper) if wanted in name
        ]
        genes = [
            {"name": self._genes[i], "written": i < self._written}
            for _, _, i in sorted(ranked)[: min(most, MOST_NAMES)]
        ]
        return {"found": len(ranked), "genes": genes}


def histogram(planes: Planes, quantity: str, gene: str) -> dict[str, Any]:
    """Distribution of a quantity over the slide's overview, and the range that colours have by default."""
    values = planes.overview(quantity, gene)
    return {"gene": gene, "quantity": quantity, **bins_of(values[np.isfinite(values)])}


def bins_of(there: NDArray[np.float32]) -> dict[str, Any]:
    """A histogram of values, from 0 or the least to the largest, and the quantiles between which colours run."""
    if not there.size:
        return {"n": 0, "counts": [], "low": 0.0, "high": 1.0, "from": 0.0, "to": 1.0, "mean": None}
    first, last = min(0.0, float(there.min())), float(there.max())
    last = last if last > first else first + 1.0
    counts, _ = np.histogram(there, BINS, (first, last))
    low, high = colour_range(there)
    return {
        "n": int(there.size),
        "counts": counts.tolist(),
        "low": rounded(first),
        "high": rounded(last),
        "from": rounded(low),
        "to": rounded(high),
        "mean": rounded(float(there.mean(dtype=np.float64))),
    }


def value_at(slide: Slide, planes: Planes, x_um: float, y_um: float, gene: str, second: str = "") -> dict[str, Any]:
    """What the superpixel at a position has: values of genes, and classes.

    Parameters
    ----------
    x_um, y_um
        From the slide's corner.
    gene, second
        Genes; either may be empty.

    Raises
    ------
    RefusedError
        Where the position is off the slide, or a gene is not known.
    """
    side = slide.superpixel_um
    row, column = int(np.floor(y_um / side)), int(np.floor(x_um / side))
    height, width = slide.shape
    if not (0 <= row < height and 0 <= column < width):
        raise RefusedError(
            404,
            f"({x_um:.0f}, {y_um:.0f}) \N{MICRO SIGN}m is off the slide, which is "
            f"{width * side:.0f} x {height * side:.0f} \N{MICRO SIGN}m.",
        )
    cell = Region(row, row + 1, column, column + 1)
    found: dict[str, Any] = {"x": x_um, "y": y_um, "row": row, "column": column}
    for key, name in (("gene", gene), ("second", second)):
        if name:
            quantities = ["gene", "uncertainty", *(["refined"] if slide.has_cells else [])]
            found[key] = {"name": slide.gene(name)} | {
                quantity: rounded(float(planes.values(quantity, name, cell, 1)[0, 0])) for quantity in quantities
            }
    numbers = {key: int(planes.classes(key, cell, 1)[0, 0]) for key in slide.classes}
    found["classes"] = {key: slide.classes[key].names[n - 1] if n else None for key, n in numbers.items()}
    found["tissue"] = bool(planes.array("tissue/mask")[row, column]) if slide.store.has("tissue/mask") else None
    return found


def rounded(value: float) -> float | None:
    """A value with a few significant digits, as JSON can hold it.

    >>> rounded(0.123456789), rounded(float("nan"))
    (0.123457, None)
    """
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None

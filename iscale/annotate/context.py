"""What tasks of the stage need to know."""

from __future__ import annotations

from dataclasses import dataclass

from iscale.annotate.scaling import Rule
from iscale.geometry import SlideGrid
from iscale.store.run_store import RunStore

THRESHOLDS = (0.01, 0.05, 0.10, 0.15, 0.20, 0.25)
"""Below each of these, in turn, the best score makes no label (method, section 5)."""


@dataclass(frozen=True)
class AnnotateContext:
    """Names and numbers only: small, and the same on all workers.

    Attributes
    ----------
    labels, genes
        Names of the labels, and per label its markers.
    n_clusters
        Of which clusterings there is a table.
    rule
        How markers are scaled to [0, 1].
    """

    store: RunStore
    grid: SlideGrid
    labels: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    n_clusters: tuple[int, ...] = ()
    rule: Rule = "relative"

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker once."""
        return tuple(dict.fromkeys(gene for genes in self.genes for gene in genes))

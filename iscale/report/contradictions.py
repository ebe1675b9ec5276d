"""Where what a cluster is called contradicts its own marker genes, by the user's table of markers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iscale.report.items import Finding
from iscale.report.scene import Scene
from iscale.report.values import Row, read_tsv

TOP = 6
"""So many of a cluster's marker genes are looked at, the strongest first."""
SHOWN = 4


@dataclass(frozen=True)
class Contradiction:
    """A cluster of one of ``k``, the label that it scores best for, and another that its own marker genes speak for."""

    k: int
    cluster: str
    label: str
    other: str
    genes: tuple[str, ...]

    def __str__(self) -> str:
        """As a sentence's part.

        >>> str(Contradiction(10, "3", "necrosis", "lymphoid", ("CD3D", "CD2")))
        'cluster 3 of 10 is labelled necrosis, its marker genes CD3D and CD2 are those of lymphoid'
        """
        *first, last = self.genes
        genes = f"marker genes {', '.join(first)} and {last} are those" if first else f"marker gene {last} is one"
        return f"cluster {self.cluster} of {self.k} is labelled {self.label}, its {genes} of {self.other}"


def contradictions(scene: Scene) -> list[Contradiction]:
    """Clusters of whose leading genes more are the user's markers of another label than of the label given."""
    told = scene.attributes("annotation")
    markers = told.get("markers") or {}
    if not markers or told.get("outdated") or not scene.store.has("clusters/n_clusters"):
        return []
    speaks: dict[str, list[str]] = {}
    for label, genes in markers.items():
        for gene in genes:
            speaks.setdefault(gene, []).append(label)
    found = []
    for k in np.asarray(scene.store.array("clusters/n_clusters")[...]).tolist():
        folder = scene.store.folder / f"clusters-gene_{k}"
        leading, called = _leading(read_tsv(folder / "markers.tsv")), labels_of_clusters(folder / "annotation.tsv")
        found += [
            contradiction
            for cluster, label in called.items()
            if (contradiction := _of(int(k), cluster, label, leading.get(cluster, []), speaks)) is not None
        ]
    return found


def contradiction_findings(scene: Scene) -> list[Finding]:
    """What the page begins with, of clusters that contradict their labels."""
    found = contradictions(scene)
    if not found:
        return []
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    told = "; ".join(map(str, found[:SHOWN]))
    text = f"Labels contradict clusters: {told}{more}. Look at the markers' maps before you believe either."
    return [Finding("doubtful", text)]


def labels_of_clusters(path: Path) -> dict[str, str]:
    """The label that each cluster has by the user's markers."""
    rows = read_tsv(path)
    return {row["cluster"]: row["best_label"] for row in rows if row.get("cluster") and row.get("best_label")}


def _leading(rows: list[Row]) -> dict[str, list[str]]:
    """The strongest marker genes of every cluster."""
    found: dict[str, list[str]] = {}
    for row in rows:
        genes = found.setdefault(row.get("cluster", ""), [])
        if len(genes) < TOP and row.get("gene"):
            genes.append(row["gene"])
    return found


def _of(k: int, cluster: str, label: str, genes: list[str], speaks: dict[str, list[str]]) -> Contradiction | None:
    votes = Counter(of for gene in genes for of in speaks.get(gene, ()))
    other = max(votes, key=lambda name: votes[name], default=label)
    if votes[other] <= votes[label]:
        return None
    return Contradiction(k, cluster, label, other, tuple(gene for gene in genes if other in speaks.get(gene, ())))

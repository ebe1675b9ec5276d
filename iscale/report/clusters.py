"""Section of a report: clusters of superpixels, with the genes that mark them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from iscale.report.items import NOT_KNOWN, Figure, Heading, Item, Missing, Section, Text, table_of
from iscale.report.scene import Scene, label_counts
from iscale.report.values import Row, count, percent, plural, read_tsv, tidy

FOLDER = "clusters-gene_{}"
TOP = 6
"""Marker genes that are named per cluster."""
MOST = 4
"""Numbers of clusters that are shown; of more, all are in their folders."""


def clusters_section(scene: Scene) -> Section:
    """Clusters, for every number of them that the run made."""
    numbers = _numbers(scene)
    if not numbers:
        missing = Missing("The superpixels have not been clustered.", scene.command("cluster"))
        return Section("clusters", "Clusters", (missing,))
    items: list[Item] = [
        Text(
            "Superpixels grouped by their predicted expression; clusters are numbered by size, the largest first. A "
            "marker gene is one whose expression sets its cluster apart from the rest of the tissue."
        )
    ]
    for row, k in list(enumerate(numbers))[:MOST]:
        if len(numbers) > 1:
            items.append(Heading(plural(k, "cluster")))
        items += _clusters(scene, row, k)
    if len(numbers) > MOST:
        items.append(Text(f"Also made: {', '.join(map(str, numbers[MOST:]))} clusters, in folders of their own."))
    return Section("clusters", "Clusters", tuple(items))


def _numbers(scene: Scene) -> list[int]:
    if not scene.store.has("clusters/n_clusters"):
        return []
    return [int(k) for k in np.asarray(scene.store.array("clusters/n_clusters")[...])]


def _clusters(scene: Scene, row: int, k: int) -> list[Item]:
    folder = scene.store.folder / FOLDER.format(k)
    found: list[Item] = []
    for part, name, caption in (
        ("labels.png", f"clusters-{k}", f"{k} clusters of all tissue."),
        ("refined/labels.png", f"clusters-{k}-refined", f"The same where nuclei are likely ({k} clusters)."),
    ):
        if path := scene.taken(folder / part, name):
            found.append(Figure(path, f"Map of {k} clusters, each in a colour of its own.", caption, size="half"))
    return [*found, _table(scene, folder, row, k)]


def _table(scene: Scene, folder: Path, row: int, k: int) -> Item:
    array = scene.store.array("clusters/labels")
    sizes = label_counts(array, row, k)[1:]
    markers = _markers(folder / "markers.tsv")
    called = _called(read_tsv(folder / "annotation.tsv"))
    head = ["cluster", "superpixels", "share of the tissue", "marker genes, strongest first"]
    rows = [
        [str(c), count(n), percent(n / max(1, sum(sizes))), markers.get(str(c), NOT_KNOWN)]
        for c, n in enumerate(sizes, start=1)
    ]
    if called:
        head.append("label by your markers")
        rows = [[*cells, called.get(cells[0], NOT_KNOWN)] for cells in rows]
    return table_of(f"{k} clusters; all marker genes with their figures: {folder.name}/markers.tsv", head, rows)


def _markers(path: Path) -> dict[str, str]:
    """The first marker genes of every cluster, with the first effect size that the table gives."""
    rows = read_tsv(path)
    effect = next((name for name in (rows[0] if rows else ()) if re.search("fold|effect|auc|difference", name)), "")
    found: dict[str, list[str]] = {}
    for row in rows:
        names = found.setdefault(row.get("cluster", ""), [])
        if len(names) < TOP and row.get("gene"):
            names.append(f"{row['gene']} ({tidy(row[effect], 2)})" if row.get(effect) else row["gene"])
    head = f"{effect.replace('_', ' ')}: " if effect else ""
    return {cluster: head + ", ".join(names) for cluster, names in found.items()}


def _called(rows: list[Row]) -> dict[str, str]:
    """The label that each cluster has by the user's markers."""
    return {row["cluster"]: row["best_label"] for row in rows if row.get("cluster") and row.get("best_label")}

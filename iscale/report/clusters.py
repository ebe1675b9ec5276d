"""Section of a report: clusters of superpixels, with the genes that mark them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import reduction
from iscale.report.contradictions import labels_of_clusters
from iscale.report.items import NOT_KNOWN, Figure, Heading, Item, Missing, Section, Text, table_of
from iscale.report.planes import tissue_box
from iscale.report.scene import LONGEST, MAP_INCHES, Scene, label_counts
from iscale.report.values import count, percent, read_tsv, tidy
from iscale.wording import plural

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
    sizes = label_counts(scene.store.array("clusters/labels"), row, k)[1:]
    names = [f"{c} ({percent(n / max(1, sum(sizes)))})" for c, n in enumerate(sizes, start=1)]
    found: list[Item] = [_map(scene, "labels", row, names, f"{k} clusters of all tissue")]
    if scene.store.has("clusters/refined"):
        found.append(_map(scene, "refined", row, names, f"{k} clusters, where nuclei are likely"))
    return [*found, _table(scene, scene.store.folder / FOLDER.format(k), sizes)]


def _map(scene: Scene, part: str, row: int, names: list[str], caption: str) -> Figure:
    array = scene.store.array(f"clusters/{part}")
    factor = reduction(array.shape, LONGEST)
    path = scene.figure(f"clusters-{len(names)}" + ("-refined" if part == "refined" else ""))
    colours, um = class_colours(len(names)), scene.grid.superpixel_um * factor
    labels = label_map(array, row, factor)[tissue_box(scene.store, factor)]
    draw_labels(path, labels, names, colours, um, caption, width=MAP_INCHES)
    alt = f"Map of {len(names)} clusters, each in a colour of its own."
    return Figure(path, alt, f"{caption}; in brackets: share of the tissue.", "half")


def _table(scene: Scene, folder: Path, sizes: list[int]) -> Item:
    k, (effect, markers) = len(sizes), _markers(folder / "markers.tsv")
    old = bool(scene.attributes("annotation").get("outdated"))
    called = {} if old else labels_of_clusters(folder / "annotation.tsv")
    head = ["cluster", "share", f"marker genes, strongest first{effect}", "superpixels"]
    rows = [
        [str(c), percent(n / max(1, sum(sizes))), markers.get(str(c), NOT_KNOWN), count(n)]
        for c, n in enumerate(sizes, start=1)
    ]
    if called:
        head.append("label by your markers")
        rows = [[*cells, called.get(cells[0], NOT_KNOWN)] for cells in rows]
    return table_of(f"{k} clusters; all marker genes with their figures: {folder.name}/markers.tsv", head, rows)


def _markers(path: Path) -> tuple[str, dict[str, str]]:
    """What is said of the marker genes in brackets, and the first of them for every cluster."""
    rows, effect = read_tsv(path), "effect_size"
    found: dict[str, list[str]] = {}
    for row in rows:
        names = found.setdefault(row.get("cluster", ""), [])
        if len(names) < TOP and row.get("gene"):
            names.append(f"{row['gene']} ({tidy(row[effect], 2)})" if row.get(effect) else row["gene"])
    head = " (effect size)" if rows and effect in rows[0] else ""
    return head, {cluster: ", ".join(names) for cluster, names in found.items()}

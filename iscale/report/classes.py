"""Sections of a report: clusters with the genes that mark them, labels by marker genes, and where the two disagree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iscale.plots.draw import draw_map
from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import reduction
from iscale.regions.marker_table import NOTHING, UNCLASSIFIED
from iscale.report.items import (
    NOT_KNOWN,
    Facts,
    Figure,
    Finding,
    Heading,
    Item,
    Missing,
    Row,
    Section,
    Text,
    count,
    percent,
    read_tsv,
    table_of,
    tidy,
)
from iscale.report.scene import LONGEST, MAP_INCHES, Scene, kept_plane, label_counts, mean_plane, share_of, tissue_box
from iscale.words import plural

TOP = 6
"""So many of a cluster's marker genes are looked at and named, the strongest first."""
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


FOLDER = "clusters-gene_{}"
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
    found: list[Item] = [_cluster_map(scene, "labels", row, names, f"{k} clusters of all tissue")]
    if scene.store.has("clusters/refined"):
        found.append(_cluster_map(scene, "refined", row, names, f"{k} clusters, where nuclei are likely"))
    return [*found, _table(scene, scene.store.folder / FOLDER.format(k), sizes)]


def _cluster_map(scene: Scene, part: str, row: int, names: list[str], caption: str) -> Figure:
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


ANNOTATION = "annotation"
SHOWN_THRESHOLD = "0.10"
CELL_COLOURS = (class_colours(1)[0], "#e3e3e3")


def annotation_section(scene: Scene) -> Section:
    """What superpixels are, by the user's marker genes."""
    title = "Annotation by your marker genes"
    if not scene.store.has("annotation/labels"):
        text = "Superpixels have no labels, as MotherImage/markers.csv (columns: gene, label) was not there."
        return Section("annotation", title, (Missing(text, scene.command("annotate"), "Write it, then:"),))
    items: list[Item] = [
        Text(
            "A label's score is the mean of its markers, scaled to [0, 1]"
            f"{_rule(scene)}; a superpixel takes the label that scores best, and none (Unclassified) where that is "
            "below the threshold."
        )
    ]
    items += [Text(f"A contradiction: {found}.") for found in contradictions(scene)]
    rows = read_tsv(scene.store.folder / ANNOTATION / "shares.tsv")
    thresholds = list(dict.fromkeys(row.get("threshold", "") for row in rows))
    shown = SHOWN_THRESHOLD if SHOWN_THRESHOLD in thresholds else next(iter(thresholds), SHOWN_THRESHOLD)
    items.append(_label_map(scene, thresholds.index(shown) if shown in thresholds else 0, shown))
    if scene.store.has("annotation/confidence"):
        items.append(_confidence(scene))
    if rows:
        items.append(_shares(rows, thresholds))
    return Section("annotation", title, tuple(items))


def _rule(scene: Scene) -> str:
    """How markers are scaled, after what is said before; nothing where an earlier version made the labels."""
    rule = scene.attributes("annotation").get("scaling_rule")
    return f" ({rule})" if rule else ""


def _label_map(scene: Scene, row: int, threshold: str) -> Figure:
    array = scene.store.array("annotation/labels")
    labels = list(scene.store.names("annotation/label"))
    factor = reduction(array.shape, LONGEST)
    path, um = scene.figure(f"annotation-{threshold}"), scene.grid.superpixel_um * factor
    names, colours = [*labels, UNCLASSIFIED], [*class_colours(len(labels)), NOTHING]
    title = f"Labels at threshold {threshold}"
    shown = label_map(array, row, factor)[tissue_box(scene.store, factor)]
    draw_labels(path, shown, names, colours, um, title, width=MAP_INCHES)
    alt = f"Map of the labels at threshold {threshold}, each in a colour of its own."
    return Figure(path, alt, f"Labels at threshold {threshold}. Other thresholds: {ANNOTATION}/.", "half")


def _confidence(scene: Scene) -> Figure:
    array = scene.store.array("annotation/confidence")
    factor = reduction(array.shape, LONGEST)
    path = scene.figure("annotation-confidence")
    title, unit = "Confidence of the annotation", "best score minus second-best"
    values = mean_plane(array, factor)[tissue_box(scene.store, factor)]
    draw_map(path, values, scene.grid.superpixel_um * factor, title, unit, width=MAP_INCHES)
    alt = "Map of how far the best label's score is above the second-best's."
    return Figure(path, alt, "Dark: two labels score alike, the label is a toss-up.", size="half")


def _shares(rows: list[Row], thresholds: list[str]) -> Item:
    labels = list(dict.fromkeys(row.get("label", "") for row in rows))
    of = {(row.get("label"), row.get("threshold")): row.get("share", "") for row in rows}

    def cell(label: str, threshold: str) -> str:
        try:
            return percent(float(of.get((label, threshold), "nan") or "nan"))
        except ValueError:
            return percent(None)

    body = [[label, *(cell(label, threshold) for threshold in thresholds)] for label in labels]
    return table_of("Share of the tissue with each label, by threshold", ("label", *thresholds), body)


def refine_section(scene: Scene) -> Section:
    """Where nuclei are likely, and the threshold that says so."""
    title = "Where nuclei are likely"
    if not scene.store.has("tissue/cells"):
        missing = Missing("Superpixels without nuclei have not been told apart.", scene.command("refine"))
        return Section("refine", title, (missing,))
    kept, of = share_of(scene.store, "tissue/cells", "tissue/mask")
    items: list[Item] = [
        Text(
            "Refined expression is 0 in superpixels that are unlikely to hold nuclei, by how dense haematoxylin is in "
            "them."
        ),
        Facts((("kept", f"{count(kept)} of {plural(of, 'tissue superpixel')} ({percent(kept / max(1, of))})"),)),
    ]
    if path := scene.taken(scene.store.folder / "refine" / "threshold.png", "refine-threshold"):
        alt = "Histogram of haematoxylin over the tissue's superpixels, with the threshold."
        items.append(Figure(path, alt, "Superpixels below the threshold count as without nuclei.", size="half"))
    items.append(_kept_map(scene))
    return Section("refine", title, tuple(items))


def _kept_map(scene: Scene) -> Figure:
    path = scene.figure("refine-cells")
    mask = scene.store.array("tissue/mask")
    factor = reduction(mask.shape, LONGEST)
    share = kept_plane(mask, scene.store.array("tissue/cells"), factor)[tissue_box(scene.store, factor)]
    labels = np.where(np.isnan(share), 0, np.where(share >= 0.5, 1, 2))
    names, um = ("likely", "unlikely"), scene.grid.superpixel_um * factor
    draw_labels(path, labels, names, CELL_COLOURS, um, "Nuclei", width=MAP_INCHES)
    return Figure(
        path, "Map of where nuclei are likely.", "Where expression is kept, and where it is set to 0.", "half"
    )

"""Sections of a report: clusters with the genes that mark them, labels by marker genes, and where the two disagree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iscale.plots.draw import draw_map
from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.regions.marker_table import NOTHING, UNCLASSIFIED
from iscale.report.page import Facts, Figure, Finding, Heading, Item, Section, Text, not_made, table_of
from iscale.report.scene import MAP_INCHES, Scene, kept_plane, label_counts, mean_plane, share_of
from iscale.report.values import NOT_KNOWN, Row, count, percent, read_tsv, tidy
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
    annotation = scene.attributes("annotation")
    markers = annotation.get("markers") or {}
    if not markers or annotation.get("outdated"):
        return []
    speaks: dict[str, list[str]] = {}
    for label, genes in markers.items():
        for gene in genes:
            speaks.setdefault(gene, []).append(label)
    found = []
    for k in _numbers(scene):
        folder = scene.store.folder / FOLDER.format(k)
        leading = _leading(folder / "markers.tsv")
        for cluster, label in labels_of_clusters(folder / "annotation.tsv").items():
            genes = [row["gene"] for row in leading.get(cluster, ())]
            if contradiction := _contradiction(k, cluster, label, genes, speaks):
                found.append(contradiction)
    return found


def contradiction_findings(scene: Scene) -> list[Finding]:
    """What the page begins with, of clusters that contradict their labels."""
    found = contradictions(scene)
    if not found:
        return []
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    first = "; ".join(map(str, found[:SHOWN]))
    text = f"Labels contradict clusters: {first}{more}. Look at the markers' maps before you believe either."
    return [Finding("doubtful", text)]


def labels_of_clusters(path: Path) -> dict[str, str]:
    """The label that each cluster has by the user's markers."""
    rows = read_tsv(path)
    return {row["cluster"]: row["best_label"] for row in rows if row.get("cluster") and row.get("best_label")}


def _leading(path: Path) -> dict[str, list[Row]]:
    """The rows of the strongest marker genes of every cluster."""
    found: dict[str, list[Row]] = {}
    for row in read_tsv(path):
        rows = found.setdefault(row.get("cluster", ""), [])
        if len(rows) < TOP and row.get("gene"):
            rows.append(row)
    return found


def _contradiction(
    k: int, cluster: str, label: str, genes: list[str], speaks: dict[str, list[str]]
) -> Contradiction | None:
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
        return not_made("clusters", "Clusters", "The superpixels have not been clustered.", scene.command("cluster"))
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
    name = f"clusters-{len(names)}" + ("-refined" if part == "refined" else "")
    path = _draw_classes(scene, name, f"clusters/{part}", row, names, class_colours(len(names)), caption)
    alt = f"Map of {len(names)} clusters, each in a colour of its own."
    return Figure(path, alt, f"{caption}; in brackets: share of the tissue.", "half")


def _draw_classes(
    scene: Scene, name: str, stored: str, row: int, names: list[str], colours: list[str], title: str
) -> Path:
    """Draw a row of a stored (row, y, x) array of classes; returns the file."""
    array, path = scene.store.array(stored), scene.figure(name)
    factor, cell_um, box = scene.reduced(array.shape)
    draw_labels(path, label_map(array, row, factor)[box], names, colours, cell_um, title, width=MAP_INCHES)
    return path


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
    leading, effect = _leading(path), "effect_size"
    head = " (effect size)" if any(effect in row for rows in leading.values() for row in rows) else ""

    def named(row: Row) -> str:
        return f"{row['gene']} ({tidy(row[effect], 2)})" if row.get(effect) else row["gene"]

    return head, {cluster: ", ".join(map(named, rows)) for cluster, rows in leading.items()}


ANNOTATION = "annotation"
SHOWN_THRESHOLD = "0.10"
CELL_COLOURS = (class_colours(1)[0], "#e3e3e3")


def annotation_section(scene: Scene) -> Section:
    """What superpixels are, by the user's marker genes."""
    title = "Annotation by your marker genes"
    if not scene.store.has("annotation/labels"):
        text = "Superpixels have no labels, as MotherImage/markers.csv (columns: gene, label) was not there."
        return not_made("annotation", title, text, scene.command("annotate"), "Write it, then:")
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
    labels, title = list(scene.store.names("annotation/label")), f"Labels at threshold {threshold}"
    names, colours = [*labels, UNCLASSIFIED], [*class_colours(len(labels)), NOTHING]
    path = _draw_classes(scene, f"annotation-{threshold}", "annotation/labels", row, names, colours, title)
    alt = f"Map of the labels at threshold {threshold}, each in a colour of its own."
    return Figure(path, alt, f"{title}. Other thresholds: {ANNOTATION}/.", "half")


def _confidence(scene: Scene) -> Figure:
    array, path = scene.store.array("annotation/confidence"), scene.figure("annotation-confidence")
    factor, cell_um, box = scene.reduced(array.shape)
    title, unit = "Confidence of the annotation", "best score minus second-best"
    draw_map(path, mean_plane(array, factor)[box], cell_um, title, unit, width=MAP_INCHES)
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
        return not_made(
            "refine", title, "Superpixels without nuclei have not been told apart.", scene.command("refine")
        )
    kept, of = share_of(scene.store, "tissue/cells", "tissue/mask")
    items: list[Item] = [
        Text(
            "Refined expression is 0 in superpixels that are unlikely to hold nuclei, by how dense haematoxylin is in "
            "them."
        ),
        Facts((("kept", f"{count(kept)} of {plural(of, 'tissue superpixel')} ({percent(kept / max(1, of))})"),)),
    ]
    if path := scene.copied(scene.store.folder / "refine" / "threshold.png", "refine-threshold"):
        alt = "Histogram of haematoxylin over the tissue's superpixels, with the threshold."
        items.append(Figure(path, alt, "Superpixels below the threshold count as without nuclei.", size="half"))
    items.append(_kept_map(scene))
    return Section("refine", title, tuple(items))


def _kept_map(scene: Scene) -> Figure:
    mask, path = scene.store.array("tissue/mask"), scene.figure("refine-cells")
    factor, cell_um, box = scene.reduced(mask.shape)
    share = kept_plane(mask, scene.store.array("tissue/cells"), factor)[box]
    labels = np.where(np.isnan(share), 0, np.where(share >= 0.5, 1, 2))
    draw_labels(path, labels, ("likely", "unlikely"), CELL_COLOURS, cell_um, "Nuclei", width=MAP_INCHES)
    return Figure(
        path, "Map of where nuclei are likely.", "Where expression is kept, and where it is set to 0.", "half"
    )

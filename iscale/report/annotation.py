"""Sections of a report: labels by the user's marker genes, and where nuclei are likely."""

from __future__ import annotations

import numpy as np

from iscale.annotate.maps import NOTHING
from iscale.annotate.markers import UNCLASSIFIED
from iscale.plots.draw import draw_map
from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import reduction
from iscale.report.contradictions import contradictions
from iscale.report.items import Facts, Figure, Item, Missing, Section, Text, table_of
from iscale.report.planes import kept_plane, mean_plane, tissue_box
from iscale.report.scene import LONGEST, MAP_INCHES, Scene, share_of
from iscale.report.values import Row, count, percent, read_tsv
from iscale.wording import plural

FOLDER = "annotation"
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
    rows = read_tsv(scene.store.folder / FOLDER / "shares.tsv")
    thresholds = list(dict.fromkeys(row.get("threshold", "") for row in rows))
    shown = SHOWN_THRESHOLD if SHOWN_THRESHOLD in thresholds else next(iter(thresholds), SHOWN_THRESHOLD)
    items.append(_map(scene, thresholds.index(shown) if shown in thresholds else 0, shown))
    if scene.store.has("annotation/confidence"):
        items.append(_confidence(scene))
    if rows:
        items.append(_shares(rows, thresholds))
    return Section("annotation", title, tuple(items))


def _rule(scene: Scene) -> str:
    """How markers are scaled, after what is said before; nothing where an earlier version made the labels."""
    rule = scene.attributes("annotation").get("scaling_rule")
    return f" ({rule})" if rule else ""


def _map(scene: Scene, row: int, threshold: str) -> Figure:
    array = scene.store.array("annotation/labels")
    labels = list(scene.store.names("annotation/label"))
    factor = reduction(array.shape, LONGEST)
    path, um = scene.figure(f"annotation-{threshold}"), scene.grid.superpixel_um * factor
    names, colours = [*labels, UNCLASSIFIED], [*class_colours(len(labels)), NOTHING]
    title = f"Labels at threshold {threshold}"
    shown = label_map(array, row, factor)[tissue_box(scene.store, factor)]
    draw_labels(path, shown, names, colours, um, title, width=MAP_INCHES)
    alt = f"Map of the labels at threshold {threshold}, each in a colour of its own."
    return Figure(path, alt, f"Labels at threshold {threshold}. Other thresholds: {FOLDER}/.", "half")


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

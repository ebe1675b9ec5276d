"""Section of a report: the run against measured truths, where the user gave any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iscale.report.items import Figure, Heading, Item, Missing, Section, Text, table_of
from iscale.report.scene import Scene
from iscale.report.values import Row, number, read_tsv, shown
from iscale.wording import plural

MEASURES = {
    "rmse": "RMSE",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "uncentred": "uncentred correlation",
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "wasserstein": "Wasserstein",
}


SHOWN_MAPS = ("pearson", "rmse")


def truth_section(scene: Scene) -> Section:
    """Medians over genes of what was found against each truth."""
    title = "Against a measured truth"
    folders = sorted(path for path in (scene.store.folder / "evaluation").glob("truth-*") if path.is_dir())
    tables = [(folder, read_tsv(folder / "genes.tsv")) for folder in folders]
    items: list[Item] = []
    for folder, rows in tables:
        if rows:
            items += [Heading(folder.name.removeprefix("truth-")), _table(folder, rows), *_maps(scene, folder)]
    if not items:
        text = "The run has not been compared with a measured map of the same tissue; most users have none."
        return Section("truth", title, (Missing(text, scene.command("evaluate", "--truth", "PATH")),))
    first = Text("Predicted against measured expression, superpixels averaged over square blocks.")
    return Section("truth", title, (first, *items))


def _table(folder: Path, rows: list[Row]) -> Item:
    there = [name for name in MEASURES if name in rows[0]]
    body = []
    for block in dict.fromkeys(row.get("block", "") for row in rows):
        of = [row for row in rows if row.get("block") == block]
        cells = [shown(_median([number(row.get(name)) for row in of]), 3) for name in there]
        body.append([f"{block} x {block}" if block.isdigit() else block, str(len(of)), *cells])
    genes = plural(len({row.get("gene") for row in rows}), "gene")
    caption = f"Medians over {genes}; every gene: {folder.parent.name}/{folder.name}/genes.tsv"
    return table_of(caption, ("block (superpixels)", "genes", *(MEASURES[name] for name in there)), body)


def _maps(scene: Scene, folder: Path) -> list[Figure]:
    """Maps of the scores that single superpixels have over the genes."""
    found = []
    for name in SHOWN_MAPS:
        if path := scene.taken(folder / f"superpixels-{name}-1.png", f"{folder.name}-{name}"):
            measure = MEASURES[name]
            alt = f"Map of every superpixel's {measure} over the genes, predicted against measured."
            found.append(Figure(path, alt, f"{measure} over the genes, in every superpixel.", "half"))
    return found


def _median(values: list[float]) -> float:
    there = [value for value in values if np.isfinite(value)]
    return float(np.median(there)) if there else float("nan")

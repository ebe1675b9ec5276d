"""Section of a report: maps of the best and the worst genes, and how sure the model is of itself."""

from __future__ import annotations

import math

import numpy as np

from iscale.model.genes import imputed_genes
from iscale.plots.draw import draw_map, draw_with_uncertainty
from iscale.plots.overview import mean_map, mean_maps
from iscale.project.layout import MAPS_FOLDER
from iscale.report.page import Figure, Heading, Item, Missing, Section, Text, not_made
from iscale.report.scene import MAP_INCHES, Scene
from iscale.report.scores import Scores
from iscale.report.values import number, percent, shown
from iscale.store.layout import GENES_PER_CHUNK
from iscale.words import plural

EACH = 3
"""Best genes that are shown, and as many worst."""
PANEL_INCHES = 3.4
"""Of a map: on the page letters are then of the size of the text's."""
UNIT = "expected counts per superpixel"


def genes_section(scene: Scene, scores: Scores | None) -> Section:
    """Maps of the best and the worst genes."""
    genes = scene.genes()
    if not genes:
        return not_made("genes", "Predicted genes", "No expression has been predicted yet.", scene.command("predict"))
    items: list[Item] = [
        Text(
            "Each gene's expected counts per superpixel, and beside them the spread over the ensemble: where that is "
            "of the size of the value itself, the models that make up the ensemble do not agree."
        )
    ]
    for heading, chosen in _chosen(genes, scores):
        items.append(Heading(heading))
        items += [_map(scene, genes.index(gene), gene, said) for gene, said in chosen]
    sheet = scene.store.folder / MAPS_FOLDER / "contact-sheet.png"
    if copied := scene.copied(sheet, "contact-sheet"):
        items.append(Heading("All genes at a glance"))
        alt = f"Small maps of predicted expression, a page of {plural(len(genes), 'gene')}, each with its name."
        items.append(Figure(copied, alt, f"Contact sheet; in full size, and further pages: {MAPS_FOLDER}/.", "full"))
    else:
        items.append(Missing("There is no contact sheet of all genes.", scene.command("plot")))
    return Section("genes", "Predicted genes", tuple(items))


def _chosen(genes: tuple[str, ...], scores: Scores | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings, and under each genes with what their caption says of them."""
    known = set(genes)
    scored = [
        row
        for row in (scores.rows if scores else ())
        if row["gene"] in known and math.isfinite(number(row.get("score")))
    ]
    if not scored:
        return [("The most variable genes", [(gene, "not scored") for gene in genes[: 2 * EACH]])]

    def said(row: dict[str, str]) -> str:
        word = f", {row['word']}" if row.get("word") else ""
        return f"held-out score {shown(number(row.get('score')))}{word}"

    best = [(row["gene"], said(row)) for row in scored[:EACH]]
    worst = [(row["gene"], said(row)) for row in scored[EACH:][-EACH:]]
    return [("The best genes", best), ("The worst genes", worst)] if worst else [("The best genes", best)]


def _map(scene: Scene, row: int, gene: str, said: str) -> Figure:
    expression, spread = (imputed_genes(scene.store, uncertainty=which) for which in (False, True))
    factor, cell_um, box = scene.reduced(expression.shape)
    values, deviation = (mean_map(array, row, factor)[box] for array in (expression, spread))
    path = scene.figure(f"gene-{gene}")
    draw_with_uncertainty(path, values, deviation, cell_um, gene, UNIT, panel=PANEL_INCHES)
    alt = f"Map of the predicted expression of {gene}, and of its uncertainty beside it."
    return Figure(path, alt, f"{gene}: {said}.")


def uncertainty_section(scene: Scene) -> Section:
    """Where the model is sure, by the genes that vary most."""
    title = "Where the model is sure"
    if not scene.store.has("expression/gene"):
        return not_made("uncertainty", title, "No uncertainty has been predicted yet.", scene.command("predict"))
    expression, spread = (imputed_genes(scene.store, uncertainty=which) for which in (False, True))
    rows = slice(0, min(GENES_PER_CHUNK, expression.shape[0]))
    factor, cell_um, box = scene.reduced(expression.shape)
    total = mean_maps(expression, rows, factor).sum(axis=0)
    relative = mean_maps(spread, rows, factor).sum(axis=0) / np.maximum(total, 1e-6)
    relative[~np.isfinite(total)] = np.nan
    path = scene.figure("uncertainty")
    genes = plural(rows.stop, "gene")
    heading, unit = f"Relative spread, {genes}", "spread / expected counts"
    draw_map(path, relative[box], cell_um, heading, unit, width=MAP_INCHES)
    there = relative[np.isfinite(relative)]
    middle, high = (float(np.quantile(there, q)) for q in (0.5, 0.95)) if there.size else (math.nan, math.nan)
    text = (
        f"Of the {genes} that vary most, the spread (standard deviation) over the ensemble is "
        f"{percent(middle)} of the expected counts in the median place of the tissue, and more than {percent(high)} in "
        "one place of twenty. It says how far the models agree with each other, not how far they are right: for that "
        "see the held-out scores."
    )
    alt = "Map of the ensemble's spread relative to the expected counts."
    figure = Figure(path, alt, "Bright: the models that make up the ensemble differ much.", size="half")
    return Section("uncertainty", title, (Text(text), figure))

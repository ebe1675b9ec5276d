"""Sections of a report: how well genes are predicted where the model was not shown them, and against truths."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iscale.plots.charts import draw_intervals, draw_sorted_scores
from iscale.report.page import Facts, Figure, Finding, Heading, Item, Missing, Section, Text, Weight, not_made, table_of
from iscale.report.scene import Scene
from iscale.report.values import Row, number, percent, read_tsv, shown
from iscale.trust.table import MEANINGS, WORDS
from iscale.words import plural

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
        return not_made("truth", title, text, scene.command("evaluate", "--truth", "PATH"))
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
        if path := scene.copied(folder / f"superpixels-{name}-1.png", f"{folder.name}-{name}"):
            measure = MEASURES[name]
            alt = f"Map of every superpixel's {measure} over the genes, predicted against measured."
            found.append(Figure(path, alt, f"{measure} over the genes, in every superpixel.", "half"))
    return found


def _median(values: list[float]) -> float:
    there = [value for value in values if np.isfinite(value)]
    return float(np.median(there)) if there else float("nan")


SHOWN = 10
"""Best genes, and as many worst, of a chart and of a table."""
MOST_ROWS = 3000
"""Rows of the table of all genes: a page of more is slow to open; the file has all."""
FIT_TO_READ = WORDS[:2]
MOSTLY, HALF = 0.8, 0.5
"""Where so many genes can be read, the page calls that good; where fewer than half, doubtful."""
PEERS = {"knn": "nearest spots (kNN)", "ridge": "ridge regression", "ceiling": "noise ceiling"}
HOWS = {"capture": "each capture in turn", "region": "a part of the tissue at a time", "spots": "some spots at a time"}


@dataclass(frozen=True)
class Scores:
    """Scores of genes on spots that were held out.

    ``how`` says what was: ``capture``, ``region``, ``spots``, or ``fit`` for those that the fit itself kept back.
    ``rows`` has one per gene, the best first: ``gene``, ``score``, and the columns of a trust table, which is in
    ``file``.
    """

    how: str
    rows: tuple[Row, ...]
    file: Path | None = None

    def column(self, name: str) -> np.ndarray:
        """A column (gene,) of numbers, NaN where not known."""
        return np.array([number(row.get(name)) for row in self.rows])

    def of_peers(self) -> dict[str, np.ndarray]:
        """Scores (gene,) of baselines and the noise ceiling, by what they are called; of those that have any."""
        found = {label: self.column(name) for name, label in PEERS.items()}
        return {label: values for label, values in found.items() if np.isfinite(values).any()}

    @property
    def words(self) -> dict[str, int]:
        """How many genes have each word, best word first."""
        found: dict[str, int] = {}
        for row in self.rows:
            if word := row.get("word"):
                found[word] = found.get(word, 0) + 1
        order = list(map(str, WORDS))
        return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def read_scores(scene: Scene) -> Scores | None:
    """The scores that say most: of a capture held out, of a region, of spots; else the fit's own."""
    for how in HOWS:
        path = scene.store.folder / "evaluation" / f"trust-{how}.tsv"
        rows = [row for row in read_tsv(path) if row.get("gene")]
        if rows:
            return Scores(how, _best_first(rows), path)
    return _of_the_fit(scene)


def _of_the_fit(scene: Scene) -> Scores | None:
    store, columns = scene.store, {"score": "held_out_counts", "score_depth_normalised": "held_out_depth_normalised"}
    if not all(store.has(f"training/{name}") for name in ("gene", *columns.values())):
        return None
    genes = list(store.names("training/gene"))
    rows: list[Row] = [{"gene": gene} for gene in genes]
    for column, name in columns.items():
        for row, value in zip(rows, np.asarray(store.array(f"training/{name}")[...]), strict=True):
            row[column] = f"{value:.6g}"
    return Scores("fit", _best_first(rows))


def _best_first(rows: list[Row]) -> tuple[Row, ...]:
    def key(row: Row) -> float:
        value = number(row.get("score"))
        return math.inf if math.isnan(value) else -value

    return tuple(sorted(rows, key=key))


def scores_section(scene: Scene, scores: Scores | None) -> Section:
    """How well genes are predicted, which best and which worst, and against whom."""
    title, hold_out = "Which genes to believe", scene.command("evaluate", "--hold-out", "capture")
    if scores is None:
        return not_made("scores", title, "No gene was scored on spots that were left out.", hold_out)
    items: list[Item] = [Text(_explained(scores))]
    if scores.file is None:
        items.append(Missing("There is no trust table: intervals, baselines and the noise ceiling.", hold_out))
    if scores.words:
        items.append(_words_table(scores))
    items += [Facts(_medians(scores)), _sorted_figure(scene, scores)]
    if any(number(row.get("low")) == number(row.get("low")) for row in scores.rows):
        items.append(_intervals_figure(scene, scores))
    items += _tables(scores)
    return Section("scores", title, tuple(items))


def _explained(scores: Scores) -> str:
    if scores.file is None:
        return (
            "While it was fitted, the model was not shown some of the spots. The score is the Pearson correlation of "
            "measured and predicted counts over these. They lie between spots that it was shown, so the score is "
            "optimistic for tissue far from any capture."
        )
    return (
        f"The model was fitted again, {HOWS[scores.how]} left out, and asked for what it had not seen. The score is "
        "the Pearson correlation of measured and predicted log counts over these spots, with its 95 % interval. "
        "kNN takes the mean of the nearest spots that were shown, ridge is a linear model of the image features; the "
        "ceiling is what a perfect model would reach, given the noise of the counts."
    )


def _words_table(scores: Scores) -> Item:
    n = len(scores.rows)
    meanings = {str(word): text for word, text in MEANINGS.items()}
    rows = [[word, f"{count}", percent(count / n), meanings.get(word, "")] for word, count in scores.words.items()]
    return table_of("Genes by how far they can be believed", ("in a word", "genes", "share", "which means"), rows)


def _medians(scores: Scores) -> tuple[tuple[str, str], ...]:
    own = scores.column("score")
    named = {"median score of this run": own} if np.isfinite(own).any() else {}
    named |= {f"median of {label}": values for label, values in scores.of_peers().items()}
    medians = [(label, shown(float(np.nanmedian(values)), 3)) for label, values in named.items()]
    return (("genes scored", f"{int(np.isfinite(own).sum())} of {len(scores.rows)}"), *medians)


def _sorted_figure(scene: Scene, scores: Scores) -> Figure:
    path = scene.figure("scores")
    series = {"this run": scores.column("score"), **scores.of_peers()}
    draw_sorted_scores(path, series, "Held-out scores of all genes", "Pearson correlation")
    names = ", ".join(series)
    alt = f"Lines of held-out scores over genes, sorted from the best to the worst, for {names}."
    return Figure(path, alt, "How many genes reach which score. A higher line is better.")


def _ends(scores: Scores) -> list[Row]:
    """The best and the worst genes that have a score."""
    scored = [row for row in scores.rows if math.isfinite(number(row.get("score")))]
    return scored if len(scored) <= 2 * SHOWN else scored[:SHOWN] + scored[-SHOWN:]


def _intervals_figure(scene: Scene, scores: Scores) -> Figure:
    ends = replace(scores, rows=tuple(_ends(scores)))
    path = scene.figure("scores-best-and-worst")
    names = [row["gene"] for row in ends.rows]
    title = "All genes" if len(names) <= SHOWN else "Best and worst genes"
    score, low, high = (ends.column(name) for name in ("score", "low", "high"))
    draw_intervals(path, names, score, low, high, ends.of_peers(), title, "held-out score (Pearson)")
    alt = f"Scores with 95 % intervals of {plural(len(names), 'gene')}, from {names[0]} down to {names[-1]}."
    return Figure(path, alt, "Score with its 95 % interval (bar), against baselines and the noise ceiling.")


COLUMNS = {
    "gene": "gene",
    "word": "in a word",
    "score": "score",
    "low": "95 % interval",
    "score_depth_normalised": "depth-normalised",
    "knn": "kNN",
    "ridge": "ridge",
    "ceiling": "ceiling",
}


def _cell(row: Row, column: str) -> str:
    if column in ("gene", "word"):
        return row.get(column, "")
    value = shown(number(row.get(column)))
    return f"{value} to {shown(number(row.get('high')))}" if column == "low" else value


def _tables(scores: Scores) -> list[Item]:
    there = {column: head for column, head in COLUMNS.items() if column in scores.rows[0]}

    def table(caption: str, rows: list[Row], *, folded: bool = False) -> Item:
        cells = [[_cell(row, column) for column in there] for row in rows]
        return table_of(caption, list(there.values()), cells, folded=folded)

    rows, ends = list(scores.rows), _ends(scores)
    if len(ends) == len(rows):
        return [table(f"All {plural(len(rows), 'gene')}, best first", rows)]
    half = len(ends) // 2
    caption = f"All {plural(len(rows), 'gene')}, best first"
    if len(rows) > MOST_ROWS:
        caption = f"The best {MOST_ROWS} of {plural(len(rows), 'gene')}" + (f"; all: {scores.file}" * bool(scores.file))
    return [
        table(f"The {half} best genes", ends[:half]),
        table(f"The {len(ends) - half} worst genes", ends[half:]),
        table(caption, rows[:MOST_ROWS], folded=True),
    ]


def scores_findings(scores: Scores | None) -> list[Finding]:
    """What the verdict says of the scores."""
    if scores is None:
        return [Finding("doubtful", "No gene was scored on spots that were left out: nothing says which to believe.")]
    values = scores.column("score")
    if not np.isfinite(values).any():
        return [Finding("doubtful", "Held-out scores could not be computed for any gene.")]
    median = float(np.nanmedian(values))
    of = "spots that the fit kept back" if scores.file is None else f"what was left out ({HOWS[scores.how]})"
    found = [Finding("note", f"Median score of {plural(len(values), 'gene')} on {of}: {shown(median)}.")]
    if scores.words:
        parts = ", ".join(f"{count} {word}" for word, count in scores.words.items())
        share = sum(scores.words.get(word, 0) for word in FIT_TO_READ) / len(scores.rows)
        weight: Weight = "good" if share >= MOSTLY else "doubtful" if share < HALF else "note"
        found.insert(0, Finding(weight, f"Genes by how far they can be believed: {parts}."))
    for column, label in (("ridge", "ridge regression"), ("knn", "the nearest spots")):
        peer = scores.column(column)
        both = np.isfinite(peer) & np.isfinite(values)
        if both.any() and float(np.median(peer[both])) > float(np.median(values[both])) + 0.02:
            behind = shown(float(np.median(peer[both])))
            found.append(Finding("doubtful", f"{label[0].upper()}{label[1:]} alone scores higher (median {behind})."))
    return found

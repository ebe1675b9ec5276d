"""``iscale evaluate RUN --truth PATH``: hold a run against what was measured, gene by gene and place by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.arrays import block_mean
from iscale.engine.machine import give_back
from iscale.engine.plan import BASELINE_BYTES, format_bytes, parse_bytes
from iscale.engine.progress import Watcher
from iscale.engine.watchers import counted
from iscale.engine.whole_file import whole_file
from iscale.errors import InputError, MemoryBudgetError, StoreError
from iscale.geometry import Region
from iscale.plots.draw import draw_map
from iscale.plots.overview import reduction
from iscale.project.layout import file_name
from iscale.results import Run, open_run
from iscale.trust import score_maps, score_spots
from iscale.trust.metrics import BLOCKS, METRICS, MOST_RANKED, rank_stride
from iscale.trust.open_truth import PICKLES, open_truth
from iscale.trust.prediction import Common, Prediction, genes_in_common, open_prediction
from iscale.trust.score_maps import GeneScore
from iscale.trust.truth import MapTruth, Reading, SpotTruth, Truth

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
SHOWN = 5
SPOT = "spot"
"""What stands for the block where the truth is spots."""


def gene_table(scores: Sequence[GeneScore]) -> pd.DataFrame:
    """One row per gene and block: gene, block, the metrics, and how many blocks were compared."""
    rows = [(s.gene, s.block or SPOT, *(s.metrics[name] for name in METRICS), s.cells) for s in scores]
    return pd.DataFrame(rows, columns=["gene", "block", *METRICS, "cells"])


def place_table(places: Mapping[Any, Mapping[str, NDArray[np.floating]]], genes: int) -> pd.DataFrame:
    """One row per block and measure: quantiles over the superpixels, or blocks of them, that have a value."""
    rows = []
    for block, measures in places.items():
        for name, values in measures.items():
            there = values[np.isfinite(values)].astype(np.float64)
            at = np.quantile(there, list(QUANTILES.values())) if len(there) else np.full(len(QUANTILES), np.nan)
            rows.append((block, name, *at, len(there), genes))
    return pd.DataFrame(rows, columns=["block", "measure", *QUANTILES, "cells", "genes"])


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Write a table, NA where there is no number; it appears under its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        table.to_csv(part, sep="\t", index=False, na_rep="NA", float_format="%.9g")
    return path


def summary(genes: pd.DataFrame, places: pd.DataFrame) -> str:
    """Medians over genes per block, the best and the worst genes, and medians over superpixels."""
    blocks = list(dict.fromkeys(genes["block"]))
    rows = [["block", *METRICS]]
    for block in blocks:
        of_block = genes[genes["block"] == block]
        metrics = [_median(of_block[name].to_numpy(np.float64)) for name in METRICS]
        rows.append([_block_text(block), *map(_text, metrics)])
    lines = [f"Median over {genes['gene'].nunique()} genes:", "", columns(rows), ""]
    ranked = genes[(genes["block"] == blocks[0]) & genes["pearson"].notna()].sort_values("pearson", ascending=False)
    if len(ranked):
        lines += [
            f"Best by Pearson ({_block_text(blocks[0])}): {_named(ranked.head(SHOWN))}",
            f"Worst: {_named(ranked.tail(SHOWN)[::-1])}",
        ]
    over = places[places["measure"] == "pearson"]
    medians = ", ".join(
        f"{_text(value)} ({_block_text(block)})" for block, value in zip(over["block"], over["median"], strict=True)
    )
    return "\n".join([*lines, f"Over genes, in each place: median Pearson {medians}"])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def _median(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else float("nan")


def _named(table: pd.DataFrame) -> str:
    return ", ".join(f"{gene} {_text(value)}" for gene, value in zip(table["gene"], table["pearson"], strict=True))


def _block_text(block: int | str) -> str:
    return "spots" if block == SPOT else f"{block} x {block}"


def _text(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


FOLDER = "evaluation"
SOURCE = "source.txt"
"""File of a truth's folder that says which truth its results are of."""

SCALING = (
    "Both maps of a gene are min-max scaled before they are compared: that the prediction is expected counts, and that "
    "the truth may be of another efficiency, changes no score. Values are compared as they are, without logarithm."
)


def evaluate_run(
    run: str | Path,
    truth: Path,
    *,
    watcher: Watcher,
    memory: str = "2GB",
    platform: str | None = None,
    bin_um: float | None = None,
    radius_um: float | None = None,
) -> str:
    """Hold a run against a truth, and write what is found to ``evaluation/truth-<name>/`` of its output.

    ``genes.tsv`` has a row per gene and block, ``superpixels.tsv`` quantiles of the scores that each superpixel has
    over its genes; maps of these lie beside it.

    Parameters
    ----------
    run
        The run, as for `iscale.open_run`.
    truth
        See `iscale.trust.open_truth.open_truth`.
    watcher
        Who is told of progress.
    memory
        What may be used, with its unit.
    platform, bin_um, radius_um
        Of a capture: what measured it, the side of its bins, the radius of its spots, where it does not say itself.

    Returns
    -------
    str
        Medians, best and worst genes, and where the files lie.

    Raises
    ------
    InputError
        The run is not there or not finished, the truth cannot be read, or the two do not fit each other.
    MemoryBudgetError
        The truth's area needs more memory than may be used.
    """
    opened = open_run(run)
    prediction = open_prediction(opened)
    if Path(truth).suffix.lower() in PICKLES and Path(truth).is_file():
        _check_memory(f"{truth}, which is read whole", 2 * Path(truth).stat().st_size, parse_bytes(memory))
    reading = Reading(frozenset(prediction.genes), bin_um, platform, radius_um)
    found = open_truth(Path(truth), prediction.grid, reading)
    all_genes = found.all_genes if isinstance(found, MapTruth) else ()
    common = genes_in_common(prediction.genes, found.genes, str(truth), all_genes or None)
    source = str(Path(truth).expanduser().resolve())
    out = truth_folder(opened.store.folder / FOLDER, found.name, source)
    head = [f"Truth: {found.what}", *found.notices, *common.notices, *_seen(opened, found)]
    compare = _compare_maps if isinstance(found, MapTruth) else _compare_spots
    first, text = compare(prediction, found, common, out, parse_bytes(memory), watcher)
    (out / SOURCE).write_text(f"{source}\n")
    give_back()
    return "\n".join([*head, *first, "", text])


def truth_folder(parent: Path, name: str, source: str) -> Path:
    """Folder of the results against a truth: that of its name, or where another truth of this name has it, the next."""
    for number in count(1):
        folder = parent / (f"truth-{file_name(name)}" + (f"-{number}" if number > 1 else ""))
        try:
            said = (folder / SOURCE).read_text().strip()
        except OSError:
            said = ""
        if said in ("", source):
            return folder
    raise AssertionError("numbers do not end")


def _compare_maps(
    prediction: Prediction, truth: Truth, common: Common, out: Path, memory_bytes: int, watcher: Watcher
) -> tuple[list[str], str]:
    """What is to be said first, and the text of the scores."""
    assert isinstance(truth, MapTruth)
    region = score_maps.extent(truth, common)
    if region is None:
        raise InputError(f"{truth.what}: it has no value.", "Every cell is NaN: was it written as it should be?")
    side = _budget(truth, region, common, len(prediction.genes), memory_bytes)
    with counted(watcher, "evaluate/genes", len(common.names)) as done:
        scores, ranges = score_maps.score_genes(prediction, truth, common, region, done)
    if not any(score.cells for score in scores):
        raise InputError(
            f"{truth.what}: the run has no prediction where it has values ({region} of the superpixels).",
            "They do not overlap: is the truth placed right, and is there tissue (iscale info)?",
        )
    tiles = sum(1 for _ in region.tiles(side))
    with counted(watcher, "evaluate/superpixels", tiles) as done:
        places = score_maps.score_places(prediction, truth, common, region, ranges, side, done)
    genes = gene_table(scores)
    quantiles = place_table(places.maps, _varying(scores, BLOCKS[0]))
    _write(out, genes, quantiles)
    _draw(out, places, prediction.grid.superpixel_um)
    notes = [*_sampled(region), SCALING, _blocks_note()]
    return _constant(scores), "\n".join([summary(genes, quantiles), "", *notes, f"Tables and maps: {out}"])


def _compare_spots(
    prediction: Prediction, truth: Truth, common: Common, out: Path, memory_bytes: int, watcher: Watcher
) -> tuple[list[str], str]:
    """The same of spots."""
    assert isinstance(truth, SpotTruth)
    needed = score_spots.task_bytes(truth, prediction.grid.superpixel_um, len(common.names))
    _check_memory(f"the {len(truth.xy_px):,} spots of {truth.name}", needed, memory_bytes)
    with counted(watcher, "evaluate/genes", len(common.names)) as done:
        scores, ranges = score_spots.score_spots(prediction, truth, common, done)
    if not any(score.cells for score in scores):
        raise InputError(
            f"{truth.what}: the run has no prediction in any of the spots.",
            "Are they placed right, and is there tissue (iscale info)?",
        )
    shards = sum(1 for _ in score_spots.shards_of(truth.xy_px))
    with counted(watcher, "evaluate/spots", shards) as done:
        each = score_spots.score_each_spot(prediction, truth, common, ranges, done)
    genes = gene_table(scores)
    quantiles = place_table({SPOT: each}, _varying(scores, 0))
    _write(out, genes, quantiles)
    note = "Predictions are summed over each spot's disc. Spots are no map: there are no blocks, and no SSIM."
    return _constant(scores), "\n".join([summary(genes, quantiles), "", note, SCALING, f"Tables: {out}"])


def _budget(truth: MapTruth, region: Region, common: Common, all_genes: int, memory_bytes: int) -> int:
    """Side of the tiles that fit the memory; an error where the maps of one gene do not."""
    area = region.area
    _check_memory(
        f"the truth's area ({region.shape[0]:,} x {region.shape[1]:,} superpixels)",
        truth.held_bytes + score_maps.task_bytes(area),
        memory_bytes,
    )
    n_genes = len(common.names)
    room = memory_bytes - BASELINE_BYTES - truth.held_bytes - score_maps.map_bytes(area)
    fits = [side for side in score_maps.SIDES if score_maps.tile_bytes(side, n_genes, all_genes) <= room]
    if not fits:
        smallest = score_maps.tile_bytes(score_maps.SIDES[-1], n_genes, all_genes)
        needed = truth.held_bytes + score_maps.map_bytes(area) + smallest
        _check_memory(f"{n_genes} genes", needed, memory_bytes)
    return fits[0]


def _check_memory(what: str, needed: int, memory_bytes: int) -> None:
    whole = BASELINE_BYTES + needed
    if whole > memory_bytes:
        raise MemoryBudgetError(
            f"evaluate needs {format_bytes(whole)} ({format_bytes(BASELINE_BYTES)} for the program, "
            f"{format_bytes(needed)} for {what}), the budget is {format_bytes(memory_bytes)}.",
            f"Give it more, memory={-(-whole // 10**8) / 10:.1f}GB (--memory), or a truth of a smaller area.",
        )


def _seen(run: Run, truth: Truth) -> list[str]:
    """A warning where a capture of the truth's name was given to the model."""
    captures = run.store.place.file(f"captures/{truth.name}/zarr.json")
    if not truth.name or not captures.exists():
        return []
    return [f"Warning: {truth.name} is the name of a capture that the model learned from: if it is, this is no test."]


def _sampled(region: Region) -> list[str]:
    found = [(block, rank_stride((region.shape[0] // block, region.shape[1] // block))) for block in BLOCKS]
    strided = [f"{stride} at blocks of {block}" for block, stride in found if stride > 1]
    if not strided:
        return []
    return [
        f"More than {MOST_RANKED:,} cells: Spearman and Wasserstein are of every n-th row and column of the slide, "
        f"n = {', '.join(strided)}."
    ]


def _constant(scores: list[GeneScore]) -> list[str]:
    first = [score for score in scores if score.block == scores[0].block]
    constant = [score.gene for score in first if score.constant]
    if not constant:
        return []
    shown = ", ".join(constant[:5]) + (" ..." if len(constant) > 5 else "")
    have = f"{len(constant)} of {len(first)} genes have" if len(constant) > 1 else f"1 of {len(first)} genes has"
    empty = " The truth tells nothing of any gene: is it the right file?" if len(constant) == len(first) else ""
    return [f"Warning: {have} one value everywhere in the truth, so no correlation: {shown}.{empty}"]


def _varying(scores: list[GeneScore], block: int) -> int:
    """Genes that take part where genes are compared within a superpixel."""
    return sum(score.block == block and not score.constant for score in scores)


def _blocks_note() -> str:
    return (
        "Blocks are means of the superpixels that both maps have, where these are half of the block or more; NA is "
        "where there is no number."
    )


def _write(out: Path, genes: Any, quantiles: Any) -> None:
    """Write the tables; figures of an earlier truth of this name go."""
    try:
        for figure in out.glob("superpixels-*.png"):
            figure.unlink()
        write_table(out / "genes.tsv", genes)
        write_table(out / "superpixels.tsv", quantiles)
    except OSError as error:
        raise StoreError(
            f"{out}: cannot be written ({error.strerror}).", "Make room, or the folder writable."
        ) from None


def _draw(out: Path, places: score_maps.PlaceScores, superpixel_um: float) -> None:
    """A map per measure and block."""
    for block, measures in places.maps.items():
        for name, values in measures.items():
            if not np.isfinite(values).any():
                continue
            factor = reduction(values.shape)
            unit = "Pearson correlation" if name == "pearson" else "RMSE of scaled expression"
            per = "superpixel" if block == 1 else f"block of {block} x {block} superpixels"
            title = f"{unit} over {places.genes} genes, per {per}"
            path = out / f"superpixels-{name}-{block}.png"
            draw_map(path, block_mean(values, factor), superpixel_um * block * factor, title, unit)

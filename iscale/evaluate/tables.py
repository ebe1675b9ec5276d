"""What an evaluation writes, and the short text that it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.evaluate.by_gene import GeneScore
from iscale.evaluate.metrics import METRICS

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
    part = path.with_name(path.name + ".part")
    table.to_csv(part, sep="\t", index=False, na_rep="NA", float_format="%.9g")
    part.replace(path)
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
    told = ", ".join(
        f"{_text(value)} ({_block_text(block)})" for block, value in zip(over["block"], over["median"], strict=True)
    )
    return "\n".join([*lines, f"Over genes, in each place: median Pearson {told}"])


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

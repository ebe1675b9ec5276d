"""Genes that mark a cluster: how far their relative expression in it is from that in all other clusters.

Relative expression is expected counts over depth, per 10,000 counts. Effect sizes are of its ``log1p``: Cohen's d, the
difference of the means over the pooled standard deviation (Cohen, Statistical Power Analysis, 1988, chapter 2). There
are no p-values: superpixels are predictions and neighbours alike, so none would say anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iscale.engine.whole_file import whole_file

PER = 10_000
"""Relative expression is per so many counts."""
PSEUDO = 1.0
"""Added to both means of a fold change, so that genes next to nothing do not lead."""
TOP = 25
"""Genes per cluster in the table, at most."""
STATISTICS = ("effect_size", "log2_fold_change", "mean_in", "mean_out", "mean_log", "variance_log")
"""What is kept per gene and cluster."""
COLUMNS = ("cluster", "rank", "gene", "effect_size", "log2_fold_change", "mean_in", "mean_out")


@dataclass
class Sums:
    """Sums over the superpixels of every cluster, of some genes.

    (cluster,) how many, and (gene, cluster) float64 of relative expression, of its ``log1p``, of that squared.
    """

    count: NDArray[np.float64]
    linear: NDArray[np.float64]
    log: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of_nothing(cls, n_genes: int, n_clusters: int) -> Sums:
        """Sums over no superpixel."""
        linear, log, squares = np.zeros((3, n_genes, n_clusters))
        return cls(np.zeros(n_clusters), linear, log, squares)

    def add(self, relative: NDArray[np.float64], log: NDArray[np.float64], labels: NDArray[np.uint8]) -> None:
        """Count superpixels: relative expression and its ``log1p`` (gene, superpixel); labels (superpixel,), 0 none."""
        member = (labels[:, None] == np.arange(1, len(self.count) + 1)).astype(np.float64)
        self.count += member.sum(axis=0)
        self.linear += relative @ member
        self.log += log @ member
        self.squares += np.square(log) @ member


def relative_expression(
    expression: NDArray[np.floating], depth: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Counts per 10,000 of (gene, y, x) expected counts where depth (y, x) is known and above 0, and (y, x) where.

    They are (gene, superpixel), row by row.
    """
    there = np.isfinite(depth) & (depth > 0)
    return expression[:, there].astype(np.float64) * PER / depth[there].astype(np.float64), there


def statistics(sums: Sums) -> NDArray[np.float32]:
    """(gene, statistic, cluster) float32 in the order of `STATISTICS`.

    What is not known is NaN: of a cluster without superpixels, or that has all of them.
    """
    inside, total = sums.count, sums.count.sum()
    outside = total - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_in, mean_out = _in_and_out(sums.linear, inside, outside)
        log_in, log_out = _in_and_out(sums.log, inside, outside)
        square_in, square_out = _in_and_out(sums.squares, inside, outside)
        variance_in, variance_out = (square_in - log_in**2).clip(0), (square_out - log_out**2).clip(0)
        pooled = np.sqrt((inside * variance_in + outside * variance_out) / total)
        effect = np.where(pooled > 0, (log_in - log_out) / np.where(pooled > 0, pooled, 1), 0 * (log_in - log_out))
        change = np.log2((mean_in + PSEUDO) / (mean_out + PSEUDO))
    return np.stack([effect, change, mean_in, mean_out, log_in, variance_in], axis=1).astype(np.float32)


def _in_and_out(
    sums: NDArray[np.float64], inside: NDArray[np.float64], outside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means in every cluster, and in all others together, of (gene, cluster) sums."""
    return sums / inside, (sums.sum(axis=1, keepdims=True) - sums) / outside


def write_markers(path: Path, found: Mapping[str, NDArray[np.floating]], genes: Sequence[str]) -> None:
    """Write the leading genes of every cluster, those that are higher in it by both measures, as a table.

    ``found`` is (gene, cluster) by statistic, of the genes (gene,).
    """
    effect = found["effect_size"]
    lines = ["\t".join(COLUMNS)]
    for cluster in range(effect.shape[1]):
        column = np.nan_to_num(effect[:, cluster], nan=0.0)
        higher = (column > 0) & (found["log2_fold_change"][:, cluster] > 0)
        leading = [gene for gene in np.argsort(-column, kind="stable") if higher[gene]][:TOP]
        for rank, gene in enumerate(leading, start=1):
            values = (f"{found[name][gene, cluster]:.4g}" for name in COLUMNS[3:])
            lines.append("\t".join([str(cluster + 1), str(rank), genes[gene], *values]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text("\n".join(lines) + "\n")

"""Writers of what Space Ranger writes: counts, and positions of a slide that lies turned on its image."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
BINS = "binned_outputs/square_008um"


def write_counts(path: Path, barcodes: list[str], n_genes: int = 3, per_spot: int = 2) -> None:
    """Spot i has 1 + i % 7 counts of each of its genes."""
    n = len(barcodes)
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(barcodes, "S")
        matrix["data"] = np.repeat(1 + np.arange(n, dtype=np.int32) % 7, per_spot)
        step = n_genes // per_spot
        matrix["indices"] = (np.arange(per_spot) * step + np.arange(n)[:, None] % step).ravel()
        matrix["indptr"] = np.arange(0, n * per_spot + 1, per_spot)
        matrix["shape"] = np.array([n_genes, n])
        names = np.array([f"G{i}" for i in range(n_genes)], "S")
        for name in ("id", "name"):
            matrix[f"features/{name}"] = names
        matrix["features/feature_type"] = np.array(["Gene Expression"] * n_genes, "S")


def hexagons(um_per_px: float = 0.25, turned: float = 10.0, flipped: bool = False) -> pd.DataFrame:
    """Positions of 12 x 10 spots of a Visium slide that lies turned, and perhaps mirrored, on its image."""
    row, step = np.divmod(np.arange(120), 10)
    column = 2 * step + row % 2
    um = np.stack([50 * column * (-1 if flipped else 1), 50 * math.sqrt(3) * row])
    angle = math.radians(turned)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x, y = turn @ um / um_per_px + np.array([[5000.0], [3000.0]])
    in_tissue = (column > 3).astype(int)
    return pd.DataFrame(
        dict(zip(COLUMNS, ([f"S{i}-1" for i in range(120)], in_tissue, row, column, y, x), strict=True))
    )

"""Expression of the synthetic tissue: sixty genes that follow region type, number of nuclei and a slow gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iscale.demo.tissue import (
    LARGE_CELL_UM,
    REGION_TYPES,
    SMALL_CELL_UM,
    SyntheticTissue,
)

MARKERS: dict[str, tuple[str, ...]] = {
    "tumour": ("ERBB2", "EPCAM", "KRT8", "KRT18", "KRT19", "CDH1", "MUC1", "GRB7", "ESR1", "FASN"),
    "stroma": ("COL1A1", "COL1A2", "COL3A1", "DCN", "LUM", "FN1", "SPARC", "ACTA2", "POSTN", "VIM"),
    "lymphoid": ("PTPRC", "CD3E", "CD3D", "CD2", "MS4A1", "CD79A", "CD19", "IGKC", "CCL19", "CXCL13"),
    "fat": ("ADIPOQ", "PLIN1", "PLIN4", "FABP4", "LPL", "LEP", "CFD", "G0S2"),
    "gland": ("SCGB2A2", "PIP", "KRT14", "KRT5", "KRT17", "LTF", "AZGP1", "OXTR"),
    "necrosis": ("S100A8", "S100A9", "CA9", "VEGFA", "NDRG1", "HIF1A"),
}
"""Genes that are high in one region type."""
HOUSEKEEPING = ("ACTB", "GAPDH", "B2M", "RPLP0", "EEF1A1", "TPT1", "MALAT1", "UBC")
"""Genes that every cell has."""
GENES = (*(gene for genes in MARKERS.values() for gene in genes), *HOUSEKEEPING)
LEAK = 0.06
"""Level of a marker outside of its region type, as a share of its level inside."""
SUPERPIXELS_AT_ONCE = 1 << 16


def levels(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts per cell of every gene in every region type, (gene, type), and its slope along the gradient, (gene,)."""
    rng = np.random.default_rng(seed + 77)
    high = rng.lognormal(np.log(12), 0.6, len(GENES))
    table = np.full((len(GENES), len(REGION_TYPES)), LEAK)
    for kind, genes in MARKERS.items():
        table[[GENES.index(gene) for gene in genes], REGION_TYPES.index(kind)] = 1
    table[-len(HOUSEKEEPING) :] = 0.5
    return table * high[:, None], rng.normal(0, 0.5, len(GENES))


def expected_counts(tissue: SyntheticTissue, superpixel_um: float) -> NDArray[np.float32]:
    """Expected counts of every gene in every superpixel; NaN on glass.

    Cells per superpixel (the chance of a nucleus in a lattice cell by the lattices' cells per superpixel) times counts
    per cell in this mixture of region types times the exponential of the gene's slope by the gradient.

    Returns
    -------
    expected
        (gene, y, x) float32.
    """
    height, width = (int(n * tissue.pixel_size_um / superpixel_um) for n in tissue.shape_px)
    per_cell, slope = levels(tissue.seed)
    expected = np.empty((len(GENES), height, width), dtype=np.float32)
    x_um = (np.arange(width) + 0.5) * superpixel_um
    step = max(1, SUPERPIXELS_AT_ONCE // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        fields, large, small = tissue.nuclei((np.arange(rows.start, rows.stop) + 0.5) * superpixel_um, x_um)
        cells = large * (superpixel_um / LARGE_CELL_UM) ** 2 + small * (superpixel_um / SMALL_CELL_UM) ** 2
        mixture = np.tensordot(per_cell.astype(np.float32), fields.regions, axes=1)
        trend = np.exp(slope.astype(np.float32)[:, None, None] * fields.gradient)
        expected[:, rows] = np.where(fields.tissue > 0.5, cells * mixture * trend, np.nan)
    return expected

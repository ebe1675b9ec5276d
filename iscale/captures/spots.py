"""Measured spots as values: one capture as read, and the integrated spots that the model learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True)
class Capture:
    """One daughter capture, located on the mother image.

    Attributes
    ----------
    name
        Name of the capture's folder.
    spot_ids
        (spot,) identifiers, unique.
    genes
        (gene,) names, unique.
    counts
        (spot, gene) float32, CSR; finite and not negative.
    xy_px
        (spot, 2) float64: x, y of the spots' centres in pixels of the analysis image; what the model uses.
    radius_um
        Radius of the spots, in um.
    notices
        What the reader did that the user should know of, one sentence each.
    transform
        (3, 3) float64: takes (x, y, 1) in full-resolution pixels of the capture's own image to full-resolution pixels
        of the mother image.
    source_xy_px
        (spot, 2) float64: x, y in full-resolution pixels of the capture's own image. By default, and of a capture that
        is given by aligned tables only, its own pixels are the mother image's; ``xy_px`` where these are not known to
        differ from the analysis image's.
    platform
        What measured it, as :class:`iscale.vendors.base.Measured` names it.
    own_um_per_px
        Side of a pixel of its own image in um, None where it is not known.
    gene_ids
        (gene,) ids; by default the names.
    """

    name: str
    spot_ids: tuple[str, ...]
    genes: tuple[str, ...]
    counts: sparse.csr_matrix
    xy_px: NDArray[np.float64]
    radius_um: float
    notices: tuple[str, ...] = ()
    transform: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    source_xy_px: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    platform: str = "tables"
    own_um_per_px: float | None = None
    gene_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.source_xy_px):
            object.__setattr__(self, "source_xy_px", self.xy_px)
        if not self.gene_ids:
            object.__setattr__(self, "gene_ids", self.genes)


@dataclass(frozen=True)
class TrainingSpots:
    """Spots of all captures, over the genes that are imputed.

    Attributes
    ----------
    genes
        (gene,) names, the highest variance first.
    counts
        (spot, gene) float32: counts, times the scale of their capture, averaged over the measured spots that were
        merged into one.
    depth
        (spot,) float32: counts of all genes that the captures share, likewise.
    xy_px
        (spot, 2) float64: x, y in pixels of the analysis image.
    radius_um
        (spot,) float64.
    capture
        (spot,) int64: index of the capture of origin in ``captures``; -1 where spots of several were merged.
    captures
        Names of the captures.
    notices
        What was merged and dropped, one sentence each.
    capture_scale
        (capture,) what the counts and depths of each capture were multiplied by, to bring captures to one depth.
    agreement
        How far captures agree where they overlap: :meth:`iscale.captures.agreement.Agreement.as_dict` per pair.
    """

    genes: tuple[str, ...]
    counts: NDArray[np.float32]
    depth: NDArray[np.float32]
    xy_px: NDArray[np.float64]
    radius_um: NDArray[np.float64]
    capture: NDArray[np.int64]
    captures: tuple[str, ...]
    notices: tuple[str, ...] = ()
    capture_scale: tuple[float, ...] = ()
    agreement: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class DiscFeatures:
    """What the model sees of the training spots: the features of the tissue superpixels in each spot's disc.

    Attributes
    ----------
    features
        (row, feature) float32, rows sorted by spot; only superpixels that have features.
    spot
        (row,) int64: index of the spot in the training spots. A spot without any row is not trained on.
    """

    features: NDArray[np.float32]
    spot: NDArray[np.int64]

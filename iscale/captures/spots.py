"""Measured spots as values: one capture as read, and the integrated spots that the model learns from."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iscale.captures.counts import Counts, StoredCounts, blocks

if TYPE_CHECKING:
    from iscale.model.data import RowFile

MOST_SPOTS = 30_000
"""Training spots are held in memory, dense: of more, so many are trained on."""

NAMES_AT_ONCE = 1 << 16

HELD_PER_SPOT = 220
"""Bytes of a spot of a capture, without its counts, as measured on 2 million bins."""


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
        (spot, gene) float32, in memory or on disk; finite and not negative.
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
        What measured it, as :class:`iscale.captures.measured.Measured` names it.
    own_um_per_px
        Side of a pixel of its own image in um, None where it is not known.
    gene_ids
        (gene,) ids; by default the names.
    """

    name: str
    spot_ids: tuple[str, ...]
    genes: tuple[str, ...]
    counts: Counts
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

    @property
    def held_bytes(self) -> int:
        """Memory that it takes: of its spots names, places and where their counts begin, and counts not on disk."""
        counts = 0 if isinstance(self.counts, StoredCounts) else 8 * self.counts.nnz
        return HELD_PER_SPOT * len(self.spot_ids) + counts

    @functools.cached_property
    def content(self) -> str:
        """Hash of all that is known of it but the notices; counts are read once, block by block."""
        values, genes, digest = sha256(), sha256(), sha256()
        for _, block in blocks(self.counts):
            values.update(np.ascontiguousarray(block.data, np.float32).data)
            genes.update(np.ascontiguousarray(block.indices, np.int32).data)
        known = (self.name, self.radius_um, self.counts.shape, self.platform, self.own_um_per_px)
        digest.update(repr(known).encode() + values.digest() + genes.digest())
        for part in (self.counts.indptr.astype(np.int64), self.xy_px, self.transform, self.source_xy_px):
            digest.update(np.ascontiguousarray(part).tobytes())
        for names in (self.genes, self.gene_ids, self.spot_ids):
            for at in range(0, len(names), NAMES_AT_ONCE):
                digest.update("\0".join((*names[at : at + NAMES_AT_ONCE], "")).encode())
        return digest.hexdigest()


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
    shared_genes
        (shared gene,) names of all genes that every capture measured.
    slot
        (measured spot,) int64: the spot that each of the captures' spots went into, one capture after the other; -1 of
        those that were dropped.
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
    shared_genes: tuple[str, ...] = ()
    slot: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @functools.cached_property
    def content(self) -> str:
        """Hash of the spots."""
        digest = sha256()
        for values in (self.counts, self.depth, self.xy_px, self.radius_um, self.capture):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class DiscFeatures:
    """What the model sees of the training spots: features of the tissue superpixels in each spot's disc.

    ``features`` (row, feature) float32 are sorted by spot, in memory or in a file; ``spot`` (row,) int64 is its index
    in the training spots. A spot without any row is not trained on.
    """

    features: NDArray[np.float32] | RowFile
    spot: NDArray[np.int64]

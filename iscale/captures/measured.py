"""The one shape that every reader returns: an AnnData with counts, own positions, and what is known of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.captures.counts import Counts, in_memory

EYE = np.eye(3)


@dataclass(frozen=True)
class Measured:
    """What a reader found; :func:`as_anndata` makes the AnnData of it.

    Attributes
    ----------
    platform
        ``visium``, ``visium_hd``, ``xenium``, ``cosmx``, ``h5ad``, ``spatialdata``, ``st`` or ``tables``.
    spot_ids
        Barcodes, cell or bin ids; unique.
    gene_symbols, gene_ids
        Per gene; symbols need not be unique, ids are the symbols again where the source has none.
    counts
        (spot, gene) float32, in memory or on disk; finite, 0 or more. Only genes: controls are left out.
    xy_px
        (spot, 2) float64: x (right), y (down) in full-resolution pixels of the capture's own image.
    spot_diameter_um
        Diameter of a spot, or of the disc that has the area of a bin or of the median cell; None where not known.
    um_per_px
        Side of a full-resolution pixel, in um; None where the source does not say.
    pitch_um
        Distance of neighbouring spots where the platform fixes it (Visium 100, ST 200, bins their side), else None.
    scalefactors
        As the vendor wrote them (``tissue_hires_scalef`` ...), merged into scanpy's place.
    image
        The capture's own image on disk, the best there is, or None.
    image_from_full
        (3, 3): takes (x, y, 1) in full-resolution pixels to pixels of ``image``.
    obs
        More columns per spot, indexed by spot id, or None.
    notices
        What the reader did that the user should know of, one sentence each.
    """

    platform: str
    spot_ids: list[str]
    gene_symbols: list[str]
    gene_ids: list[str]
    counts: Counts
    xy_px: NDArray[np.float64]
    spot_diameter_um: float | None
    um_per_px: float | None
    pitch_um: float | None = None
    scalefactors: Mapping[str, float] = field(default_factory=dict)
    image: Path | None = None
    image_from_full: NDArray[np.float64] = field(default_factory=lambda: EYE)
    obs: pd.DataFrame | None = None
    notices: tuple[str, ...] = ()


def as_anndata(name: str, measured: Measured) -> ad.AnnData:
    """The AnnData of a capture, in scanpy's layout.

    ``obs`` rows are spots in the reader's order, ``var_names`` unique symbols with ``var["gene_ids"]``,
    ``obsm["spatial"]`` x, y in full-resolution pixels of the capture's own image. ``uns["spatial"][name]`` has
    ``images`` (empty), ``scalefactors`` (the vendor's, with ``spot_diameter_fullres`` and ``microns_per_pixel`` where
    known) and ``metadata`` (``platform``, ``spot_diameter_um``, ``pitch_um``, ``image_path``, ``image_from_full``,
    ``notices``; only what is known). Its counts are in memory, however many.
    """
    factors = {key: float(value) for key, value in measured.scalefactors.items()}
    if measured.um_per_px is not None:
        factors["microns_per_pixel"] = measured.um_per_px
        if measured.spot_diameter_um is not None:
            factors.setdefault("spot_diameter_fullres", measured.spot_diameter_um / measured.um_per_px)
    metadata: dict[str, Any] = {"platform": measured.platform}
    for key in ("spot_diameter_um", "pitch_um"):
        if getattr(measured, key) is not None:
            metadata[key] = getattr(measured, key)
    if measured.image is not None:
        metadata |= {"image_path": str(measured.image), "image_from_full": measured.image_from_full}
    metadata["notices"] = list(measured.notices)
    symbols = pd.Index(unique_names(measured.gene_symbols), dtype=object)
    obs = measured.obs if measured.obs is not None else pd.DataFrame(index=pd.Index(measured.spot_ids, dtype=object))
    return ad.AnnData(
        X=in_memory(measured.counts),
        obs=obs,
        var=pd.DataFrame({"gene_ids": np.asarray(measured.gene_ids, dtype=object)}, index=symbols),
        obsm={"spatial": measured.xy_px},
        uns={"spatial": {name: {"images": {}, "scalefactors": factors, "metadata": metadata}}},
    )


def unique_names(names: list[str]) -> list[str]:
    """Names made unique the way anndata does: later ones get ``-1``, ``-2`` ...

    >>> unique_names(["A", "B", "A", "A-1", "A"])
    ['A', 'B', 'A-2', 'A-1', 'A-3']
    """
    taken, number, result = set(names), dict.fromkeys(names, -1), []
    for name in names:
        number[name] += 1
        unique = name
        if number[name]:
            while (unique := f"{name}-{number[name]}") in taken:
                number[name] += 1
            taken.add(unique)
        result.append(unique)
    return result

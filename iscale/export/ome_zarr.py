"""OME-Zarr 0.5: chosen genes as channels of an image of several resolutions (napari, Vitessce, Fiji)."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr

from iscale.export.pyramid import Levels, write_levels
from iscale.export.request import Request
from iscale.words import plural

COLOURS = ("FF0000", "00FF00", "0000FF", "FFFF00", "FF00FF", "00FFFF", "FF8000", "FFFFFF")
"""Colours of channels, in turn."""

SHOWN = 3
"""Channels that a viewer shows at first."""


def write(request: Request) -> str:
    """Write the image's group."""
    group = zarr.open_group(request.part, mode="w", zarr_format=3)
    levels = write_levels(group, request)
    group.attrs.update({"ome": metadata(request, levels), "iscale": {"values": "expected counts per superpixel"}})
    h, w = levels.shapes[0]
    genes, resolutions = plural(len(request.genes), "gene"), plural(len(levels.shapes), "resolution")
    return f"{genes} x {h} x {w} superpixels, {resolutions}; 0 off tissue."


def metadata(request: Request, levels: Levels) -> dict[str, Any]:
    """The ``ome`` attribute: sizes and places in um from the slide's corner; names, colours and ranges of channels."""
    step = request.superpixel_um

    def transforms(level: int) -> list[dict[str, Any]]:
        size = step * 2**level
        corner = (request.region.y0 * step, request.region.x0 * step)
        return [
            {"type": "scale", "scale": [1.0, size, size]},
            {"type": "translation", "translation": [0.0, *(start + size / 2 for start in corner)]},
        ]

    axes = [{"name": "c", "type": "channel"}] + [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [
        {"path": str(level), "coordinateTransformations": transforms(level)} for level in range(len(levels.shapes))
    ]
    return {
        "version": "0.5",
        "multiscales": [{"name": "expression", "axes": axes, "datasets": datasets, "type": "mean"}],
        "omero": {"channels": _channels(request, levels), "rdefs": {"model": "color"}},
    }


def _channels(request: Request, levels: Levels) -> list[dict[str, Any]]:
    return [
        {
            "label": gene,
            "color": COLOURS[i % len(COLOURS)],
            "active": i < SHOWN,
            "window": {
                "min": 0.0,
                "max": float(np.maximum(levels.most[i], levels.bright[i])),
                "start": 0.0,
                "end": float(levels.bright[i]),
            },
        }
        for i, gene in enumerate(request.genes)
    ]

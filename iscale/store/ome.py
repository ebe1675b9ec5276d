"""OME-Zarr 0.5 metadata of image pyramids."""

from __future__ import annotations

from typing import Any


def ome_metadata(name: str, n_levels: int, pixel_size_um: float) -> dict[str, Any]:
    """The ``ome`` attribute of a pyramid of three colour channels whose levels halve.

    Parameters
    ----------
    name
        Name of the image.
    n_levels
        Number of levels, the finest called ``0``.
    pixel_size_um
        Side of the finest level's pixels, in um.

    Notes
    -----
    Positions are in um from the slide's corner, as in all coordinates of a run: the centre of a level's first pixel is
    half of its side away from the corner.
    """

    def transforms(level: int) -> list[dict[str, Any]]:
        step = pixel_size_um * 2**level
        shift = step / 2
        return [
            {"type": "scale", "scale": [1.0, step, step]},
            {"type": "translation", "translation": [0.0, shift, shift]},
        ]

    axes = [{"name": "c", "type": "channel"}] + [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    colours = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "axes": axes,
                "datasets": [
                    {"path": str(level), "coordinateTransformations": transforms(level)} for level in range(n_levels)
                ],
                "type": "mean",
            }
        ],
        "omero": {
            "channels": [
                {"label": label, "color": colour, "window": window, "active": True} for label, colour in colours
            ],
            "rdefs": {"model": "color"},
        },
    }

"""OME-Zarr metadata of images whose levels halve: axes, where levels lie, channels.

Format: NGFF 0.5, https://ngff.openmicroscopy.org/0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def axes(names: str, unit: str | None = "micrometer") -> list[dict[str, str]]:
    """The axes that letters name, ``c`` for channels; those of space have a unit.

    >>> axes("cy", None)
    [{'name': 'c', 'type': 'channel'}, {'name': 'y', 'type': 'space'}]
    """
    space = {"type": "space"} if unit is None else {"type": "space", "unit": unit}
    return [{"name": name, **({"type": "channel"} if name == "c" else space)} for name in names]


def scaling(names: str, side: float) -> dict[str, Any]:
    """The transform of cells of one side to where they lie, by the letters of their axes.

    >>> scaling("cyx", 8.0)
    {'type': 'scale', 'scale': [1.0, 8.0, 8.0]}
    """
    return {"type": "scale", "scale": [1.0 if name == "c" else side for name in names]}


def channel(
    label: str, colour: str, ends: tuple[float, float], shown: tuple[float, float], *, active: bool = True
) -> dict[str, Any]:
    """How a channel is drawn: its colour, the ends of its values, and those of what is shown."""
    window = {"min": ends[0], "max": ends[1], "start": shown[0], "end": shown[1]}
    return {"label": label, "color": colour, "window": window, "active": active}


def image_metadata(
    name: str,
    n_levels: int,
    side_um: float,
    channels: Sequence[dict[str, Any]],
    corner_um: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Any]:
    """The ``ome`` attribute of an image (c, y, x) of levels ``0``, ``1`` ..., each half of the one before.

    Positions are in um from the slide's corner, as in all coordinates of a run: the centre of a level's first cell is
    half of its side away from the image's corner (y, x). ``side_um`` is that of the finest level's cells.
    """

    def transforms(side: float) -> list[dict[str, Any]]:
        shift = [0.0, *(start + side / 2 for start in corner_um)]
        return [scaling("cyx", side), {"type": "translation", "translation": shift}]

    levels = [
        {"path": str(level), "coordinateTransformations": transforms(side_um * 2**level)} for level in range(n_levels)
    ]
    return {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes("cyx"), "datasets": levels, "type": "mean"}],
        "omero": {"channels": list(channels), "rdefs": {"model": "color"}},
    }


def slide_metadata(name: str, n_levels: int, pixel_size_um: float) -> dict[str, Any]:
    """The same of a slide's three colours."""
    colours = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    channels = [channel(label, colour, (0, 255), (0, 255)) for label, colour in colours]
    return image_metadata(name, n_levels, pixel_size_um, channels)

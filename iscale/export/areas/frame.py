"""Which coordinates areas are given in, and how these become superpixels of the slide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, SlideGrid
from iscale.results import Run
from iscale.transform import Transform
from iscale.words import plural

Units = Literal["px", "um", "analysis-px"]
UNITS: tuple[Units, ...] = get_args(Units)
NAMES = {
    "px": "pixels of the slide at full resolution",
    "um": "um from the slide's corner",
    "analysis-px": "pixels of the analysis image",
}


@dataclass(frozen=True)
class Frame:
    """How positions of a file become superpixels: ``matrix`` (3, 3) takes (x, y, 1) there.

    ``said`` is what the positions are taken to be, for people; they count from the slide's corner (``of_slide``), or
    are of a capture.
    """

    matrix: NDArray[np.float64]
    said: str
    units: Units
    of_slide: bool = True

    def to_superpixels(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (point, 2) in superpixels."""
        return np.asarray(xy @ self.matrix[:2, :2].T + self.matrix[:2, 2], np.float64)

    def back(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (point, 2) in superpixels as they stand in the file."""
        inverse = np.linalg.inv(self.matrix)
        return np.asarray(xy @ inverse[:2, :2].T + inverse[:2, 2], np.float64)

    @property
    def scale(self) -> float:
        """Superpixels per unit."""
        return Transform(self.matrix).scale


def per_unit(units: Units, grid: SlideGrid) -> float:
    """Superpixels per unit of the slide.

    >>> per_unit("px", SlideGrid((100, 100), 0.25, 0.5)), per_unit("um", SlideGrid((100, 100), 0.25, 0.5))
    (0.03125, 0.125)
    """
    return {"px": grid.scale / SUPERPIXEL_PX, "um": 1 / grid.superpixel_um, "analysis-px": 1 / SUPERPIXEL_PX}[units]


def slide_frame(units: Units, grid: SlideGrid) -> Frame:
    """Positions on the slide itself."""
    factor = per_unit(units, grid)
    return Frame(np.diag([factor, factor, 1.0]), NAMES[units], units)


def moved(frame: Frame, corner: tuple[float, float]) -> Frame:
    """The frame of positions that count from a corner (x, y), itself counted in the frame."""
    shift = np.array([[1.0, 0.0, corner[0]], [0.0, 1.0, corner[1]], [0.0, 0.0, 1.0]])
    return replace(frame, matrix=frame.matrix @ shift)


def capture_frame(run: Run, name: str, units: Units, grid: SlideGrid) -> Frame:
    """Positions in um, or full-resolution pixels, of one of the run's captures: placed as that is.

    Refused where there is no such capture, its pixel size is not known, or the unit is none of a capture.
    """
    about = _capture(run, name)
    if units == "analysis-px":
        raise InputError(
            f"--units analysis-px are of the slide; --capture {name} says that the areas are placed by that capture.",
            "Give --units um or px (pixels of the capture's own image at full resolution), or leave --capture out.",
        )
    um_per_px = 1.0
    if units == "um":
        try:
            um_per_px = float(about["spatial"][name]["scalefactors"]["microns_per_pixel"])
        except KeyError:
            raise InputError(
                f"Capture {name} does not say how large its pixels are: um cannot be placed by it.",
                "Give the areas in pixels of the capture's own image, with --units px.",
            ) from None
    to_slide = per_unit("px", grid)
    matrix = np.diag([to_slide, to_slide, 1.0]) @ np.asarray(about["transform"]) @ np.diag([1 / um_per_px] * 2 + [1.0])
    unit = "um" if units == "um" else "full-resolution pixels"
    said = f"{unit} of capture {name}, placed by its transform: {Transform(np.asarray(about['transform']))}"
    return Frame(matrix, said, units, of_slide=False)


def _capture(run: Run, name: str) -> dict[str, Any]:
    """``uns`` of a capture, its counts unread."""
    from iscale.captures.stage import open_capture

    names = (
        sorted(zarr.open_group(run.store.root, path="captures", mode="r").group_keys())
        if run.store.has("captures")
        else []
    )
    if name not in names:
        raise InputError(
            f"The run has no capture {name!r}; it has {', '.join(names) or 'none'}.",
            "Name one of these; without --capture positions are taken as the slide's.",
        )
    opened = open_capture(zarr.open_group(run.store.root, path=f"captures/{name}", mode="r"), counts=False)
    return dict(opened.uns)


class Inside:
    """Counts areas whose centre lies on the slide, also had their unit been another one."""

    def __init__(self, frame: Frame, grid: SlideGrid) -> None:
        self._frame, self._grid = frame, grid
        self._size = np.array(grid.content_shape_px[::-1]) / SUPERPIXEL_PX
        others = [units for units in UNITS if units != frame.units] if frame.of_slide else []
        self._factors = {units: per_unit(units, grid) / frame.scale for units in others}
        self._inside = dict.fromkeys(others, 0)
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)
        self.total = self.beside = 0

    def add(self, centre: NDArray[np.float64]) -> None:
        """Take note of centres (area, 2) in superpixels."""
        self.total += len(centre)
        self.beside += int((~self._on_slide(centre)).sum())
        for units, factor in self._factors.items():
            self._inside[units] += int(self._on_slide(centre * factor).sum())
        if len(centre):
            own = self._frame.back(centre)
            self._low = np.fmin(self._low, np.fmin.reduce(own))  # areas without a point have no centre
            self._high = np.fmax(self._high, np.fmax.reduce(own))

    def _on_slide(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(((xy >= 0) & (xy <= self._size)).all(axis=1))

    def check(self, source: str) -> list[str]:
        """Refuse areas of which half or more have their centre beside the slide; tell of few."""
        if not self.beside:
            return []
        if 2 * self.beside < self.total:
            return [f"Centres beside the slide, where nothing is: {self.beside:,} of {plural(self.total, 'area')}."]
        (x0, y0), (x1, y1) = self._low, self._high
        size = self._size / per_unit(self._frame.units, self._grid) if self._frame.of_slide else self._size
        unit = self._frame.units if self._frame.of_slide else "superpixels"
        problem = (
            f"{source}: the centres of {self.beside:,} of {plural(self.total, 'area')} lie beside the slide, taken as "
            f"{self._frame.said}. Their centres span x {x0:,.0f} to {x1:,.0f}, y {y0:,.0f} to {y1:,.0f}; the slide is "
            f"{size[0]:,.0f} {unit} wide and {size[1]:,.0f} high."
        )
        raise InputError(problem, self._remedy())

    def _remedy(self) -> str:
        fitting = [units for units, n in self._inside.items() if 2 * n > self.total]
        if fitting:
            found = self._inside[fitting[0]]
            return f"As {NAMES[fitting[0]]} {found:,} lie on it: if that is what they are, give --units {fitting[0]}."
        if not self._frame.of_slide:
            return "Is it this capture that the areas were drawn on, and is it aligned well?"
        return "Say in which unit they are (--units), or whose they are: --capture NAME places um of a capture."

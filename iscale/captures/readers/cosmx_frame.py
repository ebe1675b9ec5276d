"""Where a CosMx section lies: its fields of view (fovs), the corner and direction of its pixels, and their size.

The side of a pixel is 0.18 um in the first release (a fov of 5472 x 3648 px) and 0.12028 um since (4256 x 4256 px).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from iscale.captures.readers.blocks import column_named, csv_blocks, csv_header, number_columns
from iscale.errors import InputError

OLD_UM, NEW_UM = 0.18, 0.12028
OLD_FOV_PX, NEW_FOV_PX = (5472, 3648), (4256, 4256)
PIXEL_UM = (0.05, 2.0)

SHIFT_PX = 5.0
"""How far global minus local positions may vary in a fov: the centres of cells are rounded, one of them at a time."""

AGAIN = "Export the flat files of the run again."


@dataclass(frozen=True)
class Fovs:
    """Corners of the fields of view: unique numbers, (fov, 2) x, y in global pixels, and in mm where known."""

    path: Path
    number: NDArray[np.int64]
    px: NDArray[np.float64]
    mm: NDArray[np.float64] | None


@dataclass(frozen=True)
class Frame:
    """The capture's own pixels: global pixels from a corner (x, y), y downwards.

    ``y_sign`` is 1 where global y runs down, -1 where it runs up; ``largest_local`` the largest local x and y in the
    file, in pixels, 0 where it has none; the notice says what was done to the positions.
    """

    corner: tuple[float, float]
    y_sign: int
    largest_local: tuple[float, float]
    notice: str

    def pixels(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (point, 2) in pixels of the capture, of global x and y."""
        return np.column_stack([x - self.corner[0], self.y_sign * (y - self.corner[1])])


class Survey:
    """Extent of global and local positions per field of view, gathered block by block."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._low = self._high = pd.DataFrame()

    def add(self, fov: NDArray[np.int64], columns: list[NDArray[np.float64]]) -> None:
        """Take in global x and y, and local x and y where the file has them, each (point,)."""
        x, y = columns[:2]
        values = {"x": x, "y": y}
        if len(columns) == 4:
            u, v = columns[2:]
            values |= {"u": u, "v": v, "x_shift": x - u, "y_down": y - v, "y_up": y + v}
        groups = pd.DataFrame(values).groupby(fov)
        self._low = pd.concat([self._low, groups.min()]).groupby(level=0).min()
        self._high = pd.concat([self._high, groups.max()]).groupby(level=0).max()

    @property
    def fovs(self) -> NDArray[np.int64]:
        """Numbers of the fields of view that were met, sorted."""
        return np.asarray(self._low.index, np.int64)

    def frame(self) -> Frame:
        """The frame that these lie in; an InputError where global and local positions differ by more than a shift."""
        if self._low.empty:
            raise InputError(f"{self.source} has no rows that could be used.", AGAIN)
        low, high = self._low, self._high
        if "u" not in low:
            corner = float(low["x"].min()), float(low["y"].min())
            return Frame(
                corner, 1, (0.0, 0.0), _frame_notice(corner, "as global y does: there is no local y to compare")
            )
        self._check_shift()
        spread = high - low
        largest = float(high["u"].max()), float(high["v"].max())
        if spread["y_down"].max() <= spread["y_up"].max():
            corner = float(low["x_shift"].min()), float(low["y_down"].min())
            return Frame(corner, 1, largest, _frame_notice(corner, "as global and local y do in this file"))
        corner = float(low["x_shift"].min()), float(high["y_up"].max())
        how = "as local y does; global y runs upwards in this file and is turned round"
        return Frame(corner, -1, largest, _frame_notice(corner, how))

    def _check_shift(self) -> None:
        x, down, up = ((self._high - self._low)[name].max() for name in ("x_shift", "y_down", "y_up"))
        for axis, worst in (("x", x), ("y", min(down, up))):
            if worst > SHIFT_PX:
                raise InputError(
                    f"{self.source}: global and local {axis} do not belong together: their difference varies by "
                    f"{worst:.0f} px in a field of view, {SHIFT_PX:g} are the most.",
                    f"{AGAIN} Without its local columns the file is read with y as it is.",
                )


def _frame_notice(corner: tuple[float, float], how: str) -> str:
    return (
        f"Positions are counted from x {corner[0]:.1f}, y {corner[1]:.1f} of the vendor's global pixels, "
        f"the corner of the fields of view; y runs downwards {how}."
    )


def read_fovs(path: Path) -> Fovs:
    """Read the corners of the fields of view."""
    header = csv_header(path)
    names = [column_named(header, name) or name for name in ("fov", "x_global_px", "y_global_px")]
    in_mm = [column_named(header, f"{axis}_global_mm", f"{axis}_mm") for axis in "xy"]
    names += [name for name in in_mm if name is not None and None not in in_mm]
    tables = list(csv_blocks(path, {name: pa.float64() for name in names}))
    values = np.concatenate([np.empty((0, len(names)))] + [number_columns(table, names, path) for table in tables])
    number = values[:, 0].astype(np.int64)
    if len(number) == 0 or len(np.unique(number)) < len(number):
        raise InputError(
            f"{path} has {len(number)} fields of view, {len(number) - len(np.unique(number))} of them again.",
            "Give the positions of one section, in which every field of view comes once.",
        )
    return Fovs(path, number, values[:, 1:3], values[:, 3:5] if len(names) == 5 else None)


def check_pixel(um: float, source: str) -> None:
    """Refuse a side of a pixel, in um, that no instrument has."""
    if not PIXEL_UM[0] <= um <= PIXEL_UM[1]:
        raise InputError(
            f"{source} gives {um:g} um as the side of a pixel; {PIXEL_UM[0]:g} to {PIXEL_UM[1]:g} are plausible.",
            f"It is {NEW_UM:g} for current instruments, {OLD_UM:g} for the first release: give the right one.",
        )


def pixel_size(given: float | None, fovs: Fovs | None, frame: Frame) -> tuple[float, str]:
    """Side of a pixel, in um, and where it comes from; an InputError where what the files say is not plausible."""
    derived, how = _derived_pixel(fovs, frame)
    if given is None:
        check_pixel(derived or NEW_UM, "The files" if fovs is None else str(fovs.path))
        return derived or NEW_UM, f"A pixel is {derived or NEW_UM:.5g} um, {how}."
    differs = derived is not None and abs(derived / given - 1) > 0.01
    return given, f"A pixel is {given:.5g} um, as given{f' (the files say {derived:.5g} um, {how})' * differs}."


def _derived_pixel(fovs: Fovs | None, frame: Frame) -> tuple[float | None, str]:
    if fovs is not None and fovs.mm is not None and (extent := np.ptp(fovs.px, axis=0).sum()) > 0:
        um = 1000 * float(np.ptp(fovs.mm, axis=0).sum() / extent)  # the sum, as some exports swap the axes of mm
        return um, f"as {fovs.path.name} has positions in pixels and in mm"
    if fovs is not None:
        for um, sides in ((OLD_UM, OLD_FOV_PX), (NEW_UM, NEW_FOV_PX)):
            for axis, side in enumerate(sides):
                pitch = _pitch(fovs.px[:, axis])
                if pitch is not None and abs(pitch / side - 1) < 0.01:
                    return um, f"as fields of view lie {pitch:.0f} px apart in {'xy'[axis]}"
    width, height = frame.largest_local
    if width > 1.01 * NEW_FOV_PX[0]:
        return OLD_UM, f"as a field of view is {width:.0f} px wide"
    if height > 1.01 * OLD_FOV_PX[1]:
        return NEW_UM, f"as a field of view is {height:.0f} px high"
    return None, "that of current instruments: the files do not tell (give the pixel size if it is another)"


def _pitch(px: NDArray[np.float64]) -> float | None:
    """Distance of neighbouring columns (or rows) of fields of view; those of one column differ by a few pixels."""
    apart = np.diff(np.sort(px))
    apart = apart[apart > 100]
    return float(apart.min()) if len(apart) else None

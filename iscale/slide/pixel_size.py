"""The size of a pixel: what files state, in um, and the one value that a run uses."""

from __future__ import annotations

import math

from iscale.errors import InputError

SMALLEST_UM, LARGEST_UM = 0.05, 20.0
"""Pixels outside of this range are not those of a slide."""

CONTRADICTION = 0.01
"""Two statements of the pixel size differ where they differ by more than this, relatively."""

ANISOTROPY = 0.02
"""Pixels are square where width and height differ by no more than this, relatively."""

UM_PER_UNIT = {
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "in": 25400.0,
}
"""Length units of OME metadata (micro sign and Greek mu both occur)."""

SCREEN_DPI = (72.0, 96.0)
"""Resolutions that image editors write by default: about screens, not about slides."""

REMEDY = "Give the side of a full-resolution pixel in um: --pixel-size-raw, or the file pixel-size-raw.txt."


def checked_pixel_size(value: str | float, source: str) -> float:
    """A stated pixel size in um as a number, refused where it cannot be that of a slide.

    It is a number, or text of a file; ``source`` says where it is stated, for the message.
    """
    try:
        number = float(str(value).strip())
    except ValueError:
        raise InputError(f"pixel size {str(value).strip()[:40]!r} from {source} is not a number", REMEDY) from None
    if not SMALLEST_UM <= number <= LARGEST_UM:
        raise InputError(
            f"pixel size {number:g} um from {source} is outside of {SMALLEST_UM:g} to {LARGEST_UM:g} um", REMEDY
        )
    return number


def resolve_pixel_size(
    metadata: tuple[float | None, str],
    file: tuple[str | float | None, str] = (None, "pixel-size-raw.txt"),
    flag: tuple[str | float | None, str] = (None, "--pixel-size-raw"),
) -> tuple[float, str]:
    """The side of a full-resolution pixel in um, and where it was stated.

    Each argument is the stated value, or None where nothing is stated, and the name of its source. All that is stated
    must agree within 1 %; of values that agree the flag's is taken, then the file's, then the metadata's.

    Raises
    ------
    InputError
        A value is impossible, two contradict each other, or nothing is stated.
    """
    stated = [
        (checked_pixel_size(value, source), source) for value, source in (flag, file, metadata) if value is not None
    ]
    if not stated:
        raise InputError(f"the slide's pixel size is unknown: none in {metadata[1]}, {file[1]} or {flag[1]}", REMEDY)
    values = [value for value, _ in stated]
    if max(values) > min(values) * (1 + CONTRADICTION):
        listed = "; ".join(f"{value:g} um from {source}" for value, source in stated)
        raise InputError(
            f"the slide's pixel size is stated with different values: {listed}",
            "Correct or remove the wrong one; metadata that is wrong must be corrected in the slide file.",
        )
    return stated[0]


def square(x_um: float, y_um: float, source: str) -> float:
    """The side of pixels that are ``x_um`` wide and ``y_um`` high; refused where these differ by more than 2 %."""
    if not (math.isfinite(x_um) and math.isfinite(y_um) and x_um > 0 and y_um > 0):
        raise InputError(f"{source} states pixels of {x_um:g} x {y_um:g} um", "Correct the slide's metadata.")
    if max(x_um, y_um) > min(x_um, y_um) * (1 + ANISOTROPY):
        raise InputError(
            f"{source} states pixels that are not square: {x_um:g} um wide, {y_um:g} um high",
            "Resample the slide to square pixels, or correct its metadata.",
        )
    return (x_um + y_um) / 2


def from_resolution(per_unit_x: float, per_unit_y: float, unit_um: float) -> tuple[float, float] | None:
    """Width and height in um of a pixel from TIFF resolution tags; None where they do not speak of a slide.

    72 and 96 dpi, and anything that makes a pixel outside of 0.05 to 20 um, is what software writes when it does not
    know.

    >>> from_resolution(20000, 20000, 1e4), from_resolution(72, 72, 25400)
    ((0.5, 0.5), None)
    """
    if not (per_unit_x > 0 and per_unit_y > 0):
        return None
    x_um, y_um = unit_um / per_unit_x, unit_um / per_unit_y
    dpi = 25400.0 / x_um
    if any(math.isclose(dpi, screen, rel_tol=1e-3) for screen in SCREEN_DPI):
        return None
    return (x_um, y_um) if all(SMALLEST_UM <= side <= LARGEST_UM for side in (x_um, y_um)) else None

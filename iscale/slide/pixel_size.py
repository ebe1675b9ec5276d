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

NO_SOURCE = "the slide's metadata"
"""``pixel_size_source`` of a reader whose file states no pixel size."""

PRINT_DPI, PRINT_DPI_IN_INCH = 4_800.0, 12_000.0
"""TIFF resolution tags up to the first, in any unit, and up to the second where they count in inch, are what printers,
flatbed scanners and image editors write: 5.3 and 2.1 um. Microscopes are finer, and mostly count in cm."""

Stated = tuple[float | None, str]
"""A pixel size in um, None where none is known, and where it is stated, or why what is stated there is not taken."""

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
    metadata: Stated,
    file: tuple[str | float | None, str] = (None, "pixel-size-raw.txt"),
    flag: tuple[str | float | None, str] = (None, "--pixel-size-raw"),
) -> tuple[float, str]:
    """The side of a full-resolution pixel in um, and where it was stated.

    Each argument is the stated value, or None where nothing is stated, and the name of its source. What a person
    states, by flag or file, wins over the metadata (`overruled` says so); flag and file must agree within 1 %, and the
    flag's is taken.

    Raises
    ------
    InputError
        A value is impossible, flag and file contradict each other, or nothing is stated.
    """
    stated = [(checked_pixel_size(value, source), source) for value, source in (flag, file) if value is not None]
    if not stated and metadata[0] is not None:
        stated = [(checked_pixel_size(metadata[0], metadata[1]), metadata[1])]
    if not stated:
        raise InputError(f"the slide's pixel size is unknown: none in {metadata[1]}, {file[1]} or {flag[1]}", REMEDY)
    values = [value for value, _ in stated]
    if _differ(*values):
        listed = "; ".join(f"{value:g} um from {source}" for value, source in [*stated, metadata] if value is not None)
        raise InputError(
            f"the slide's pixel size is stated with different values: {listed}", "Correct or remove the wrong one."
        )
    return stated[0]


def overruled(metadata: Stated, taken: tuple[float, str]) -> str:
    """What to warn of where the pixel size that is taken is not what the slide's metadata state; empty where it is.

    >>> overruled((5.29, "a.tif (tags)"), (0.5, "--pixel-size-raw"))
    '0.5 um from --pixel-size-raw is taken as the pixel size, against 5.29 um from a.tif (tags)'
    """
    value, source = metadata
    if taken == metadata or source == NO_SOURCE or (value is not None and not _differ(value, taken[0])):
        return ""
    against = f"{value:g} um from {source}" if value is not None else source
    return f"{taken[0]:g} um from {taken[1]} is taken as the pixel size, against {against}"


def _differ(*values: float) -> bool:
    return max(values) > min(values) * (1 + CONTRADICTION)


def from_metadata(x_um: float, y_um: float, where: str, field: str) -> Stated:
    """What a file states of its pixels, ``x_um`` wide and ``y_um`` high; no size where they cannot be those of a slide.

    >>> from_metadata(0.5, 0.5, "a.svs", "MPP")
    (0.5, 'a.svs (MPP)')
    >>> from_metadata(0, 0, "a.svs", "MPP")
    (None, 'a.svs (MPP: 0 x 0 um, which no slide has)')
    """
    if not (SMALLEST_UM <= x_um <= LARGEST_UM and SMALLEST_UM <= y_um <= LARGEST_UM):
        return None, f"{where} ({field}: {x_um:g} x {y_um:g} um, which no slide has)"
    if max(x_um, y_um) > min(x_um, y_um) * (1 + ANISOTROPY):
        return None, f"{where} ({field}: {x_um:g} um wide, {y_um:g} um high, which is not square)"
    return (x_um + y_um) / 2, f"{where} ({field})"


def from_tags(per_unit_x: float, per_unit_y: float, unit_um: float, where: str) -> Stated:
    """What TIFF resolution tags state of the pixels; no size where they are those of print, or of a screen."""
    field = "TIFF resolution tags"
    sides = from_resolution(per_unit_x, per_unit_y, unit_um)
    if sides is None:
        return None, NO_SOURCE
    finest = PRINT_DPI_IN_INCH if unit_um == UM_PER_UNIT["in"] else PRINT_DPI
    dpi = UM_PER_UNIT["in"] / sides[0]
    if dpi <= finest * (1 + CONTRADICTION):
        return None, f"{where} ({field}: {dpi:g} dpi, {sides[0]:.4g} um, which is what printers and scanners write)"
    return from_metadata(*sides, where, field)


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

"""The published project folder: which file is which.

    PROJECT/
      MotherImage/        he-raw.* (or, at the analysis resolution, he-scaled.* or he.*),
                          radius-raw.txt or radius.txt, pixel-size-raw.txt, markers.csv,
                          gene-names.txt, mask-raw.png or mask*.geojson,
                          cells-raw.png or cells*.geojson
      DaughterCaptures/
        UnallignedToMother/<capture>/   what the instrument's software wrote, as it came, or a link to it; or cnts.*,
                                        locs.* in pixels of he.*, and he.*, the capture's own image
        AllignedToMother/<capture>/     transform.json, or locs.* in pixels of the analysis image with cnts.*;
                                        its own radius.txt

Both the published spelling of the folders and the correct one are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from iscale.errors import InputError
from iscale.project.captures import CaptureFiles, choose_captures
from iscale.project.layout import (
    IMAGE_SUFFIXES,
    LAYOUT_HINT,
    MOTHER_FOLDER,
    not_empty,
    one_of,
    optional_file,
    with_suffix,
)


@dataclass(frozen=True)
class ProjectFiles:
    """Files of a project, found and not empty, but not read.

    Attributes
    ----------
    root
        The project folder.
    mother_image
        The mother image.
    mother_is_analysis
        True where it is at the analysis resolution (``he-scaled.*``, ``he.*``), False for ``he-raw.*``.
    captures
        The captures to use, sorted by name, or in the order in which the user named them.
    unaligned
        Names of captures that have neither transform nor aligned locations, and so are not in ``captures``.
    radius_raw, radius
        Spot radius in pixels of ``he-raw.*``, and in pixels of the analysis image.
    pixel_size_raw
        Pixel size of ``he-raw.*`` in um.
    markers, gene_names, user_mask
        ``markers.csv``, ``gene-names.txt``, and ``mask-raw.png`` or ``mask*.geojson``.
    user_cells
        ``cells-raw.png`` or ``cells*.geojson``: where the user says that nuclei are.
    """

    root: Path
    mother_image: Path
    mother_is_analysis: bool
    captures: tuple[CaptureFiles, ...]
    unaligned: tuple[str, ...]
    radius_raw: Path | None
    radius: Path | None
    pixel_size_raw: Path | None
    markers: Path | None
    gene_names: Path | None
    user_mask: Path | None
    user_cells: Path | None = None


def find_project(
    path: str | PathLike[str], captures: Sequence[str] | None = None, *, with_captures: bool = True
) -> ProjectFiles:
    """Find the files of a project folder.

    Parameters
    ----------
    path
        The project folder.
    captures
        Names of the captures to use; None for all that are aligned.
    with_captures
        Whether captures are wanted; without, those of the project may be missing or unfinished.

    Raises
    ------
    InputError
        Where there is no such folder, or a file is missing, empty or ambiguous, or a named capture is not there.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"The project folder {root} {what}.", LAYOUT_HINT)
    mother = root / MOTHER_FOLDER
    if not mother.is_dir():
        found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(f"{root} has no folder {MOTHER_FOLDER} (there is: {found}).", LAYOUT_HINT)
    image, is_analysis = _mother_image(mother)
    chosen, unaligned = choose_captures(root, captures) if with_captures else ((), ())
    return ProjectFiles(
        root=root,
        mother_image=image,
        mother_is_analysis=is_analysis,
        captures=chosen,
        unaligned=unaligned,
        radius_raw=optional_file(mother / "radius-raw.txt"),
        radius=optional_file(mother / "radius.txt"),
        pixel_size_raw=optional_file(mother / "pixel-size-raw.txt"),
        markers=optional_file(mother / "markers.csv"),
        gene_names=optional_file(mother / "gene-names.txt"),
        user_mask=_drawn(root, mother, "mask", "tissue masks"),
        user_cells=_drawn(root, mother, "cells", "masks of cells"),
    )


def read_number(path: Path) -> float:
    """Read a text file that holds one positive number, such as ``radius.txt`` or ``pixel-size-raw.txt``.

    Raises
    ------
    InputError
        Where the file holds anything but one finite number above zero.
    """
    text = _text(path).strip()
    try:
        value = float(text)
    except ValueError:
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise InputError(f"{path} holds {shown!r}, not one number.", "Write one number, such as 0.5.") from None
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{path} holds {value:g}.", "The number must be finite and above 0.")
    return value


def read_gene_names(path: Path) -> tuple[str, ...]:
    """Read ``gene-names.txt``: genes that the user wants besides the most variable ones, one a line.

    Raises
    ------
    InputError
        Where a line holds more than one word.
    """
    names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    for number, name in enumerate(names, start=1):
        if len(name.split()) > 1 or "," in name:
            raise InputError(f"{path}: line {number} is {name[:60]!r}.", "Write one gene name per line.")
    return tuple(dict.fromkeys(names))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file.", "Write it as plain UTF-8 text.") from None


def _mother_image(mother: Path) -> tuple[Path, bool]:
    for stem, is_analysis in (("he-raw", False), ("he-scaled", True), ("he", True)):
        if candidates := with_suffix(mother, stem, IMAGE_SUFFIXES):
            return one_of(candidates, "the mother image"), is_analysis
    others = ", ".join(sorted(p.name for p in mother.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{mother} has no mother image he-raw.*, he-scaled.* or he.* (there is: {others}).",
        f"Put the image there as he-raw with one of the suffixes {' '.join(IMAGE_SUFFIXES)}.",
    )


def _drawn(root: Path, mother: Path, stem: str, what: str) -> Path | None:
    """What the user drew on the slide: ``<stem>-raw.png`` or ``<stem>*.geojson``, of which there may be one."""
    found = [p for folder in (mother, root) for p in (folder / f"{stem}-raw.png", *folder.glob(f"{stem}*.geojson"))]
    found = sorted(p for p in found if p.is_file())
    if len(found) > 1:
        names = ", ".join(str(p.relative_to(root)) for p in found)
        raise InputError(f"{root} has {len(found)} {what}: {names}.", "Keep one of them.")
    return not_empty(found[0]) if found else None

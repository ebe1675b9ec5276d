"""The published project folder: which file is which.

    PROJECT/
      MotherImage/        he-raw.* (or, at the analysis resolution, he-scaled.* or he.*),
                          radius-raw.txt or radius.txt, pixel-size-raw.txt, markers.csv,
                          gene-names.txt, mask-raw.png or mask*.geojson
      DaughterCaptures/
        UnallignedToMother/<capture>/   cnts.*, locs.* in pixels of he.*, the capture's own image
        AllignedToMother/<capture>/     locs.* in pixels of the analysis image, cnts.*, its own radius.txt

Both the published spelling of the folders and the correct one are found.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from iscale.errors import InputError

MOTHER_FOLDER = "MotherImage"
CAPTURES_FOLDER = "DaughterCaptures"
ALIGNED_FOLDERS = ("AllignedToMother", "AlignedToMother")
UNALIGNED_FOLDERS = ("UnallignedToMother", "UnalignedToMother")
IMAGE_SUFFIXES = (
    ".tif", ".tiff", ".ome.tif", ".ome.tiff", ".svs", ".ndpi", ".scn", ".mrxs", ".jpg", ".jpeg", ".png",
)  # fmt: skip
COUNTS_SUFFIXES = (".tsv", ".tsv.gz", ".parquet", ".h5ad")
LOCS_SUFFIXES = (".tsv", ".tsv.gz", ".parquet")
LAYOUT_HINT = (
    f"A project folder holds {MOTHER_FOLDER}/he-raw.* and "
    f"{CAPTURES_FOLDER}/{ALIGNED_FOLDERS[0]}/<capture>/ with cnts.tsv and locs.tsv."
)


@dataclass(frozen=True)
class CaptureFiles:
    """Files of one daughter capture that is aligned to the mother image.

    Attributes
    ----------
    name
        Name of the capture's folder.
    counts
        ``cnts.*``: of the aligned folder, or of the unaligned one where only the locations were aligned.
    locs
        ``locs.*`` in pixels of the analysis image.
    radius
        The capture's own ``radius.txt`` (pixels of the analysis image), where its spots differ.
    """

    name: str
    counts: Path
    locs: Path
    radius: Path | None


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
        Names of captures that have no aligned locations yet, and so are not in ``captures``.
    radius_raw, radius
        Spot radius in pixels of ``he-raw.*``, and in pixels of the analysis image.
    pixel_size_raw
        Pixel size of ``he-raw.*`` in um.
    markers, gene_names, user_mask
        ``markers.csv``, ``gene-names.txt``, and ``mask-raw.png`` or ``mask*.geojson``.
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
    chosen, unaligned = _captures(root, captures) if with_captures else ((), ())
    return ProjectFiles(
        root=root,
        mother_image=image,
        mother_is_analysis=is_analysis,
        captures=chosen,
        unaligned=unaligned,
        radius_raw=_optional(mother / "radius-raw.txt"),
        radius=_optional(mother / "radius.txt"),
        pixel_size_raw=_optional(mother / "pixel-size-raw.txt"),
        markers=_optional(mother / "markers.csv"),
        gene_names=_optional(mother / "gene-names.txt"),
        user_mask=_user_mask(root, mother),
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


def spot_radius_um(
    project: ProjectFiles, capture: CaptureFiles, *, raw_pixel_size_um: float | None, pixel_size_um: float
) -> float:
    """Spot radius of a capture in um: its own ``radius.txt``, else the project's.

    ``radius-raw.txt`` counts in pixels of ``he-raw.*``, ``radius.txt`` in pixels of the analysis image. Where
    the project has both they must agree to one analysis pixel (the latter is rounded in published projects).

    Raises
    ------
    InputError
        Where no radius is given, two contradict each other, or the pixel size of the raw image is not known.
    """
    if capture.radius is not None:
        return read_number(capture.radius) * pixel_size_um
    if project.radius_raw is None and project.radius is None:
        raise InputError(
            f"{project.root / MOTHER_FOLDER} has neither radius-raw.txt nor radius.txt: the spot radius is not known.",
            "Write the radius of a spot in pixels of he-raw.* to radius-raw.txt "
            "(27.5 divided by the pixel size in um for Visium).",
        )
    if project.radius_raw is None:
        assert project.radius is not None
        return read_number(project.radius) * pixel_size_um
    if raw_pixel_size_um is None:
        raise InputError(
            f"{project.radius_raw} counts in pixels of he-raw.*, whose pixel size is not known.",
            "Write it in um to pixel-size-raw.txt, or write the radius in analysis pixels to radius.txt.",
        )
    radius_um = read_number(project.radius_raw) * raw_pixel_size_um
    if project.radius is not None:
        other = read_number(project.radius)
        if abs(other - radius_um / pixel_size_um) > 1:
            raise InputError(
                f"radius-raw.txt and radius.txt in {project.radius.parent} contradict each other: "
                f"{radius_um / raw_pixel_size_um:g} px of {raw_pixel_size_um:g} um are {radius_um:g} um, "
                f"{other:g} px of {pixel_size_um:g} um are {other * pixel_size_um:g} um.",
                "Correct one of them, or delete radius.txt.",
            )
    return radius_um


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file.", "Write it as plain UTF-8 text.") from None


def _optional(path: Path) -> Path | None:
    return _not_empty(path) if path.is_file() else None


def _not_empty(path: Path) -> Path:
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).", "Write it again, or delete it if it is not needed.")
    return path


def _with_suffix(folder: Path, stem: str, suffixes: Sequence[str]) -> list[Path]:
    """Files of the folder named ``stem`` + one of ``suffixes``, whatever the case of the suffix."""
    wanted = {stem + suffix for suffix in suffixes}
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.name.startswith(stem) and stem + p.name[len(stem) :].lower() in wanted
    )


def _one_of(candidates: list[Path], what: str) -> Path:
    if len(candidates) > 1:
        names = ", ".join(p.name for p in candidates)
        raise InputError(
            f"{candidates[0].parent} has {len(candidates)} files that could be {what}: {names}.",
            "Keep one of them.",
        )
    return _not_empty(candidates[0])


def _mother_image(mother: Path) -> tuple[Path, bool]:
    for stem, is_analysis in (("he-raw", False), ("he-scaled", True), ("he", True)):
        if candidates := _with_suffix(mother, stem, IMAGE_SUFFIXES):
            return _one_of(candidates, "the mother image"), is_analysis
    others = ", ".join(sorted(p.name for p in mother.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{mother} has no mother image he-raw.*, he-scaled.* or he.* (there is: {others}).",
        f"Put the image there as he-raw with one of the suffixes {' '.join(IMAGE_SUFFIXES)}.",
    )


def _user_mask(root: Path, mother: Path) -> Path | None:
    found = [p for folder in (mother, root) for p in (folder / "mask-raw.png", *sorted(folder.glob("mask*.geojson")))]
    found = [p for p in found if p.is_file()]
    if len(found) > 1:
        names = ", ".join(str(p.relative_to(root)) for p in found)
        raise InputError(f"{root} has {len(found)} tissue masks: {names}.", "Keep one of them.")
    return _not_empty(found[0]) if found else None


def _capture_folders(root: Path, spellings: tuple[str, ...]) -> dict[str, Path]:
    """Capture folders by name, under whichever spelling of the parent folder has any."""
    found: dict[str, Path] = {}
    for spelling in spellings:
        parent = root / CAPTURES_FOLDER / spelling
        folders = [p for p in sorted(parent.iterdir()) if p.is_dir()] if parent.is_dir() else []
        folders = [p for p in folders if not p.name.startswith(".")]
        if folders and found:
            raise InputError(
                f"{root / CAPTURES_FOLDER} has captures under both {spellings[0]} and {spellings[1]}.",
                "Move all of them to one of the two folders.",
            )
        found |= {p.name: p for p in folders}
    return found


def _captures(root: Path, names: Sequence[str] | None) -> tuple[tuple[CaptureFiles, ...], tuple[str, ...]]:
    aligned = _capture_folders(root, ALIGNED_FOLDERS)
    measured = _capture_folders(root, UNALIGNED_FOLDERS)
    unaligned = tuple(sorted(set(measured) - set(aligned)))
    if not aligned and not measured:
        raise InputError(f"{root} has no captures under {CAPTURES_FOLDER}.", LAYOUT_HINT)
    if names is not None and not names:
        raise InputError("No capture is named.", f"Name some of: {', '.join(sorted(aligned))}.")
    for name in names or ():
        if name not in aligned and name not in measured:
            raise _unknown_capture(root, name, sorted({*aligned, *measured}))
    waiting = [name for name in names or () if name not in aligned] if aligned else list(names or unaligned)
    if waiting:
        raise InputError(
            f"Not yet aligned to the mother image: {', '.join(waiting)} "
            f"(no folder of that name under {root / CAPTURES_FOLDER / ALIGNED_FOLDERS[0]}).",
            "Put locs.tsv in pixels of the analysis image there (this version does not align by itself). "
            f"Aligned are: {', '.join(sorted(aligned)) or 'none'}.",
        )
    chosen = sorted(aligned) if names is None else list(dict.fromkeys(names))
    return tuple(_capture(name, aligned[name], measured.get(name)) for name in chosen), unaligned


def _unknown_capture(root: Path, name: str, known: list[str]) -> InputError:
    close = difflib.get_close_matches(name, known, n=1)
    return InputError(
        f"There is no capture {name!r} in {root / CAPTURES_FOLDER}.",
        f"{f'Did you mean {close[0]!r}? ' if close else ''}There are: {', '.join(known)}.",
    )


def _capture(name: str, aligned: Path, measured: Path | None) -> CaptureFiles:
    locs = _with_suffix(aligned, "locs", LOCS_SUFFIXES)
    if not locs:
        raise _missing(aligned, "locs", LOCS_SUFFIXES)
    counts = _with_suffix(aligned, "cnts", COUNTS_SUFFIXES)
    if not counts and measured is not None:
        counts = _with_suffix(measured, "cnts", COUNTS_SUFFIXES)
    if not counts:
        raise _missing(aligned, "cnts", COUNTS_SUFFIXES)
    return CaptureFiles(
        name=name,
        counts=_one_of(counts, "the counts"),
        locs=_one_of(locs, "the locations"),
        radius=_optional(aligned / "radius.txt"),
    )


def _missing(folder: Path, stem: str, suffixes: Sequence[str]) -> InputError:
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    wanted = ", ".join(stem + suffix for suffix in suffixes)
    return InputError(f"{folder} has no {stem}.tsv (there is: {found}).", f"Put there one of {wanted}.")

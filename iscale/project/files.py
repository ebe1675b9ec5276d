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

Both the published spelling of the folders and the correct one are found. What was measured lies in the unaligned
folder as it came, or is a link to it; what places it on the mother image lies in the aligned folder. Tables that are
aligned already need nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from iscale.errors import InputError
from iscale.project.layout import (
    ALIGNED_FOLDERS,
    CAPTURES_FOLDER,
    COUNTS_SUFFIXES,
    IMAGE_SUFFIXES,
    LAYOUT_HINT,
    LOCS_SUFFIXES,
    MOTHER_FOLDER,
    SINGLE_SUFFIXES,
    TRANSFORM_FILE,
    UNALIGNED_FOLDERS,
    not_empty,
    one_of,
    optional_file,
    with_suffix,
)
from iscale.words import similar_names


@dataclass(frozen=True)
class CaptureFiles:
    """Files of one daughter capture.

    Attributes
    ----------
    name
        Name of the capture's folder.
    counts
        ``cnts.*`` that belong to ``locs``: of the aligned folder, or of the unaligned one where only the locations were
        aligned. None where there is ``transform``, or no ``locs``.
    locs
        ``locs.*`` in pixels of the analysis image, or None.
    radius
        The capture's own ``radius.txt`` (pixels of the analysis image), where its spots differ.
    source
        The measurement as the instrument's software, or a colleague, left it: the capture's unaligned folder, or the
        one file or store in it. None where the capture is aligned tables only.
    transform
        ``transform.json``, from the pixels of ``source`` to those of the mother image; it wins over ``locs``.
    aligned
        Folder of what places the capture on the mother image; of a capture that is not aligned it may not exist.
    """

    name: str
    counts: Path | None
    locs: Path | None
    radius: Path | None
    source: Path | None = None
    transform: Path | None = None
    aligned: Path = Path()

    @property
    def is_aligned(self) -> bool:
        """Whether it is known where the capture lies on the mother image."""
        return self.transform is not None or self.locs is not None


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
        ``markers.csv`` (or ``.tsv``), ``gene-names.txt``, and ``mask-raw.png`` or ``mask*.geojson``.
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
    """Find the files of a project folder, with the captures of these names, or all that are aligned.

    Without captures, those of the project may be missing or unfinished. Refused is where there is no such folder, or a
    file is missing, empty or ambiguous, or a named capture is not there.
    """
    root = Path(path).expanduser()
    _refuse_no_folder(root)
    mother = root / MOTHER_FOLDER
    if not mother.is_dir():
        raise InputError(f"{root} has no folder {MOTHER_FOLDER} (there is: {_contents(root)}).", LAYOUT_HINT)
    image, is_analysis = _mother_image(mother)
    chosen, unaligned = _choose_captures(root, captures) if with_captures else ((), ())
    return ProjectFiles(
        root=root,
        mother_image=image,
        mother_is_analysis=is_analysis,
        captures=chosen,
        unaligned=unaligned,
        radius_raw=optional_file(mother / "radius-raw.txt"),
        radius=optional_file(mother / "radius.txt"),
        pixel_size_raw=optional_file(mother / "pixel-size-raw.txt"),
        markers=_markers(mother),
        gene_names=optional_file(mother / "gene-names.txt"),
        user_mask=_drawn(root, mother, "mask", "tissue masks"),
        user_cells=_drawn(root, mother, "cells", "masks of cells"),
    )


def find_captures(path: str | PathLike[str], names: Sequence[str] | None = None) -> tuple[CaptureFiles, ...]:
    """Find the captures of a project, those that are not aligned among them: by name in this order, or all, sorted.

    Refused is where there are no captures, or one is not there, or its files are missing, empty or ambiguous.
    """
    root = Path(path).expanduser()
    known = _known_captures(root)
    check_capture_names(root, names or ())
    return tuple(_capture(known[name]) for name in (sorted(known) if names is None else dict.fromkeys(names)))


def _markers(mother: Path) -> Path | None:
    """The table of marker genes, ``markers.csv`` or ``markers.tsv``; refused where both are there."""
    found = with_suffix(mother, "markers", (".csv", ".tsv"))
    if len(found) > 1:
        raise InputError(
            f"{mother} holds {len(found)} tables of marker genes: {', '.join(path.name for path in found)}.",
            "Keep one of them.",
        )
    return optional_file(found[0]) if found else None


def _choose_captures(root: Path, names: Sequence[str] | None) -> tuple[tuple[CaptureFiles, ...], tuple[str, ...]]:
    """The captures of a run, by name and in this order or all that are aligned, and the names of all that are not."""
    known = _known_captures(root)
    aligned = [name for name, folders in known.items() if folders.is_aligned]
    unaligned = tuple(name for name in known if name not in aligned)
    if names is not None and not names:
        raise InputError("No capture is named.", f"Name some of: {', '.join(aligned or known)}.")
    check_capture_names(root, names or ())
    chosen = list(dict.fromkeys(names)) if names else aligned or list(known)
    waiting = [name for name in chosen if name not in aligned]
    if waiting:
        raise InputError(
            f"Not yet aligned to the mother image: {', '.join(waiting)} "
            f"(neither {TRANSFORM_FILE} nor locs.* in {known[waiting[0]].aligned}).",
            f"Align: iscale align {root}. Or put {TRANSFORM_FILE}, or locs.tsv in pixels of the analysis image, there. "
            f"Aligned are: {', '.join(aligned) or 'none'}.",
        )
    return tuple(_capture(known[name]) for name in chosen), unaligned


def check_capture_names(path: str | PathLike[str], names: Iterable[str], where: str = "") -> None:
    """Refuse names that no capture of the project has, saying ``where`` they stand, and which is spelled alike."""
    root = Path(path).expanduser()
    known = sorted(_known_captures(root))
    for name in names:
        if name not in known:
            close = similar_names(name, known, n=1)
            raise InputError(
                f"{where}There is no capture {name!r} in {root / CAPTURES_FOLDER}.",
                f"{f'Did you mean {close[0]!r}? ' if close else ''}There are: {', '.join(known)}.",
            )


@dataclass(frozen=True)
class _Folders:
    """Where a capture's files are looked for."""

    name: str
    aligned: Path
    measured: Path | None

    @property
    def is_aligned(self) -> bool:
        """Whether the aligned folder is meant to place the capture; landmarks or a radius alone do not."""
        if not self.aligned.is_dir():
            return False
        names = [p.name.lower() for p in self.aligned.iterdir()]
        placed = TRANSFORM_FILE in names or any(name.startswith(("locs", "cnts")) for name in names)
        return placed or self.measured is None


def _refuse_no_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"The project folder {root} {what}.", LAYOUT_HINT)


def _known_captures(root: Path) -> dict[str, _Folders]:
    """Folders of all captures of a project, by name."""
    _refuse_no_folder(root)
    aligned, parent = _capture_folders(root, ALIGNED_FOLDERS)
    measured, _ = _capture_folders(root, UNALIGNED_FOLDERS)
    if not aligned and not measured:
        raise InputError(f"{root} has no captures under {CAPTURES_FOLDER}.", LAYOUT_HINT)
    return {name: _Folders(name, parent / name, measured.get(name)) for name in sorted({*aligned, *measured})}


def _capture_folders(root: Path, spellings: tuple[str, ...]) -> tuple[dict[str, Path], Path]:
    """Capture folders by name, and their parent folder, under whichever spelling has any."""
    parents = [root / CAPTURES_FOLDER / spelling for spelling in spellings]
    parents = [parent for parent in parents if parent.is_dir()] or parents[:1]
    found = {parent: _folders(parent) for parent in parents}
    used = [parent for parent, folders in found.items() if folders] or parents[:1]
    if len(used) > 1:
        raise InputError(
            f"{root / CAPTURES_FOLDER} has captures under both {spellings[0]} and {spellings[1]}.",
            "Move all of them to one of the two folders.",
        )
    return found[used[0]], used[0]


def _folders(parent: Path) -> dict[str, Path]:
    """Folders in a folder, links that lead nowhere among them: to leave these out would hide a capture."""
    if not parent.is_dir():
        return {}
    entries = [p for p in sorted(parent.iterdir()) if not p.name.startswith(".")]
    return {p.name: p for p in entries if p.is_dir() or (p.is_symlink() and not p.exists())}


def _capture(folders: _Folders) -> CaptureFiles:
    """Files of a capture; of one that is meant to be aligned, all that it takes must be there."""
    name, aligned, measured = folders.name, folders.aligned, folders.measured
    radius = optional_file(aligned / "radius.txt")
    if not folders.is_aligned:
        return CaptureFiles(name, None, None, radius, _source(measured), None, aligned)
    transform = optional_file(aligned / TRANSFORM_FILE)
    locs = with_suffix(aligned, "locs", LOCS_SUFFIXES)
    if transform is not None:
        if measured is None:
            raise InputError(
                f"{transform} places a capture that is not there: no folder {name} with what was measured.",
                f"Put it, or a link to it, as {aligned.parents[1] / UNALIGNED_FOLDERS[0] / name}.",
            )
        located = one_of(locs, "the locations") if locs else None
        return CaptureFiles(name, None, located, radius, _source(measured), transform, aligned)
    if not locs:
        raise _missing(aligned, "locs", LOCS_SUFFIXES)
    # Tables that are aligned need nothing else: a measurement that is out of reach does not stop them.
    measured = measured if measured is not None and measured.exists() else None
    counts = with_suffix(aligned, "cnts", COUNTS_SUFFIXES)
    if not counts and measured is not None:
        counts = with_suffix(measured, "cnts", COUNTS_SUFFIXES)
    if not counts:
        raise _missing(aligned, "cnts", COUNTS_SUFFIXES)
    counts_file, locs_file = one_of(counts, "the counts"), one_of(locs, "the locations")
    return CaptureFiles(name, counts_file, locs_file, radius, measured, None, aligned)


def _source(folder: Path | None) -> Path | None:
    """The measurement: a capture's folder, or the one file or store that it is there for."""
    if folder is None:
        return None
    if not folder.exists():
        raise _broken(folder)
    entries = [p for p in folder.iterdir() if not p.name.startswith(".")] if folder.is_dir() else []
    if len(entries) != 1 or entries[0].suffix.lower() not in SINGLE_SUFFIXES or entries[0].stem == "cnts":
        return folder
    if not entries[0].exists():
        raise _broken(entries[0])
    return entries[0]


def _broken(link: Path) -> InputError:
    return InputError(
        f"{link} is a link to {link.readlink()}, which is not there.",
        "Bring it back (is its disk mounted?), or link the capture to where it is now.",
    )


def _contents(folder: Path) -> str:
    """Names in a folder, some of them where there are many."""
    return ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"


def _missing(folder: Path, stem: str, suffixes: Sequence[str]) -> InputError:
    wanted = ", ".join(stem + suffix for suffix in suffixes)
    return InputError(
        f"{folder} has no {stem}.tsv (there is: {_contents(folder)}).",
        f"Put there one of {wanted}, or in place of tables {TRANSFORM_FILE} (iscale align makes it).",
    )


def _mother_image(mother: Path) -> tuple[Path, bool]:
    for stem, is_analysis in (("he-raw", False), ("he-scaled", True), ("he", True)):
        if candidates := with_suffix(mother, stem, IMAGE_SUFFIXES):
            return one_of(candidates, "the mother image"), is_analysis
    raise InputError(
        f"{mother} has no mother image he-raw.*, he-scaled.* or he.* (there is: {_contents(mother)}).",
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


def read_number(path: Path) -> float:
    """Read a text file that holds one finite number above 0, such as ``radius.txt`` or ``pixel-size-raw.txt``."""
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
    """Read ``gene-names.txt``: genes that the user wants besides the most variable ones, one a line."""
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

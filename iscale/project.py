"""The published project folder: which file is which.

    PROJECT/
      MotherImage/        he-raw.* (or, at the analysis resolution, he-scaled.* or he.*),
                          radius-raw.txt or radius.txt, pixel-size-raw.txt, markers.csv,
                          gene-names.txt, mask-raw.png or mask*.geojson
      DaughterCaptures/
        UnallignedToMother/<capture>/   what the instrument's software wrote, as it came, or a link to it; or cnts.*,
                                        locs.* in pixels of he.*, and he.*, the capture's own image
        AllignedToMother/<capture>/     transform.json, or locs.* in pixels of the analysis image with cnts.*;
                                        its own radius.txt

Both the published spelling of the folders and the correct one are found.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
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
TRANSFORM_FILE = "transform.json"
SINGLE_SUFFIXES = (".h5ad", ".zarr")
"""A capture that is one file, or one store, lies alone in the capture's folder."""
LAYOUT_HINT = (
    f"A project folder holds {MOTHER_FOLDER}/he-raw.* and "
    f"{CAPTURES_FOLDER}/{ALIGNED_FOLDERS[0]}/<capture>/ with cnts.tsv and locs.tsv, or with {TRANSFORM_FILE} and the "
    f"measurement in {UNALIGNED_FOLDERS[0]}/<capture>/; `iscale init` makes one."
)


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


def find_captures(path: str | PathLike[str], names: Sequence[str] | None = None) -> tuple[CaptureFiles, ...]:
    """Find the captures of a project, those that are not aligned among them.

    Parameters
    ----------
    path
        The project folder.
    names
        Names of the captures wanted, in the order wanted; None for all, sorted by name.

    Raises
    ------
    InputError
        Where there are no captures, or one is not there, or its files are missing, empty or ambiguous.
    """
    root = Path(path).expanduser()
    known = _known_captures(root)
    check_capture_names(root, names or ())
    return tuple(_capture(known[name]) for name in (sorted(known) if names is None else dict.fromkeys(names)))


def check_capture_names(path: str | PathLike[str], names: Iterable[str], where: str = "") -> None:
    """Refuse names that no capture of the project has.

    Parameters
    ----------
    path
        The project folder.
    names
        The names.
    where
        What names them, for the message.

    Raises
    ------
    InputError
        Where one is unknown; the message says which there are, and which is spelled alike.
    """
    root = Path(path).expanduser()
    known = sorted(_known_captures(root))
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"{where}There is no capture {name!r} in {root / CAPTURES_FOLDER}.",
                f"{f'Did you mean {close[0]!r}? ' if close else ''}There are: {', '.join(known)}.",
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
    project: ProjectFiles,
    capture: CaptureFiles,
    *,
    raw_pixel_size_um: float | None,
    pixel_size_um: float,
    measured_um: float | None = None,
) -> float:
    """Spot radius of a capture in um: its own ``radius.txt``, else what the measurement says, else the project's.

    ``radius-raw.txt`` counts in pixels of ``he-raw.*``, ``radius.txt`` in pixels of the analysis image. Where
    the project has both they must agree to one analysis pixel (the latter is rounded in published projects).

    Parameters
    ----------
    project, capture
        The files.
    raw_pixel_size_um, pixel_size_um
        Side of a pixel of ``he-raw.*`` (None where there is no such image), and of the analysis image, in um.
    measured_um
        The radius that the capture's platform, or its files, state; None where they do not.

    Raises
    ------
    InputError
        Where no radius is given, two contradict each other, or the pixel size of the raw image is not known.
    """
    if capture.radius is not None:
        return read_number(capture.radius) * pixel_size_um
    if measured_um is not None:
        return measured_um
    if project.radius_raw is None and project.radius is None:
        raise InputError(
            f"Capture {capture.name}: the spot radius is not known: its files do not state it, and "
            f"{project.root / MOTHER_FOLDER} has neither radius-raw.txt nor radius.txt.",
            "Write the radius of a spot in pixels of he-raw.* to radius-raw.txt "
            "(27.5 divided by the pixel size in um for Visium), or this capture's, in pixels of the analysis image, to "
            f"{capture.aligned / 'radius.txt'}.",
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


def _known_captures(root: Path) -> dict[str, _Folders]:
    """Folders of all captures of a project, by name."""
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


def _captures(root: Path, names: Sequence[str] | None) -> tuple[tuple[CaptureFiles, ...], tuple[str, ...]]:
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


def _capture(folders: _Folders) -> CaptureFiles:
    """Files of a capture; of one that is meant to be aligned, all that it takes must be there."""
    name, aligned, measured = folders.name, folders.aligned, folders.measured
    radius = _optional(aligned / "radius.txt")
    if not folders.is_aligned:
        return CaptureFiles(name, None, None, radius, _source(measured), None, aligned)
    transform = _optional(aligned / TRANSFORM_FILE)
    locs = _with_suffix(aligned, "locs", LOCS_SUFFIXES)
    if transform is not None:
        if measured is None:
            raise InputError(
                f"{transform} places a capture that is not there: no folder {name} with what was measured.",
                f"Put it, or a link to it, as {aligned.parents[1] / UNALIGNED_FOLDERS[0] / name}.",
            )
        located = _one_of(locs, "the locations") if locs else None
        return CaptureFiles(name, None, located, radius, _source(measured), transform, aligned)
    if not locs:
        raise _missing(aligned, "locs", LOCS_SUFFIXES)
    # Tables that are aligned need nothing else: a measurement that is out of reach does not stop them.
    measured = measured if measured is not None and measured.exists() else None
    counts = _with_suffix(aligned, "cnts", COUNTS_SUFFIXES)
    if not counts and measured is not None:
        counts = _with_suffix(measured, "cnts", COUNTS_SUFFIXES)
    if not counts:
        raise _missing(aligned, "cnts", COUNTS_SUFFIXES)
    counts_file, locs_file = _one_of(counts, "the counts"), _one_of(locs, "the locations")
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


def _missing(folder: Path, stem: str, suffixes: Sequence[str]) -> InputError:
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    wanted = ", ".join(stem + suffix for suffix in suffixes)
    return InputError(
        f"{folder} has no {stem}.tsv (there is: {found}).",
        f"Put there one of {wanted}, or in place of tables {TRANSFORM_FILE} (iscale align makes it).",
    )

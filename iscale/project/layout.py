"""The names of a project's folders and files, those of the published figures too, and finding one by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iscale.errors import InputError

MOTHER_FOLDER = "MotherImage"
CAPTURES_FOLDER = "DaughterCaptures"
ALIGNED_FOLDERS = ("AllignedToMother", "AlignedToMother")
UNALIGNED_FOLDERS = ("UnallignedToMother", "UnalignedToMother")
IMAGE_SUFFIXES = (
    ".tif", ".tiff", ".ome.tif", ".ome.tiff", ".btf", ".ome.btf", ".tf2", ".tf8", ".svs", ".ndpi", ".scn", ".mrxs",
    ".bif", ".svslide", ".qptiff", ".dcm", ".jpg", ".jpeg", ".png",
)  # fmt: skip
"""Names that a slide file may have; what it is, its content says. Upper case is accepted."""
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


def optional_file(path: Path) -> Path | None:
    """The file, or None where it is not there; an empty one is refused."""
    return not_empty(path) if path.is_file() else None


def not_empty(path: Path) -> Path:
    """The file, as long as it holds anything."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes).", "Write it again, or delete it if it is not needed.")
    return path


def with_suffix(folder: Path, stem: str, suffixes: Sequence[str]) -> list[Path]:
    """Files of the folder named ``stem`` + one of ``suffixes``, whatever the case of the suffix."""
    wanted = {stem + suffix for suffix in suffixes}
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.name.startswith(stem) and stem + p.name[len(stem) :].lower() in wanted
    )


def one_of(candidates: list[Path], what: str) -> Path:
    """The only candidate; where there are more, which they are is told, and ``what`` they could be."""
    if len(candidates) > 1:
        names = ", ".join(p.name for p in candidates)
        raise InputError(
            f"{candidates[0].parent} has {len(candidates)} files that could be {what}: {names}.",
            "Keep one of them.",
        )
    return not_empty(candidates[0])


SPOTS_FOLDER = "spot_level_st_plots"
INTEGRATED = "spots-integrated"
MAPS_FOLDER = "super_res_ST_plots"
REFINED_FOLDER = "super_res_ST_plots/refined"
SHEET = "contact-sheet"


def file_name(gene: str) -> str:
    """A gene's name as a file name: what could leave the folder or upset a shell becomes ``_``.

    >>> file_name("HLA-A"), file_name("../x y")
    ('HLA-A', '.._x_y')
    """
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in gene)


def sheet_name(page: int) -> str:
    """File of a page of the contact sheet, counted from 0.

    >>> sheet_name(0), sheet_name(1)
    ('contact-sheet.png', 'contact-sheet-2.png')
    """
    return f"{SHEET}.png" if page == 0 else f"{SHEET}-{page + 1}.png"


def is_sheet(path: Path) -> bool:
    """Whether a file is a page of the contact sheet.

    >>> is_sheet(Path("contact-sheet-12.png")), is_sheet(Path("KRT5.png"))
    (True, False)
    """
    return path.name == sheet_name(0) or (
        path.stem.startswith(f"{SHEET}-") and path.stem.removeprefix(f"{SHEET}-").isdigit()
    )

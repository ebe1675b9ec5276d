"""Names of the published folders of figures, and of the files in them."""

from __future__ import annotations

from pathlib import Path

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

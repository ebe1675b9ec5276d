"""The her2st sections as a project folder: one section is the mother image, the two others its daughter captures.

Patient C of the HER2+ breast tumours of Andersson et al., Nature Communications 2021: three consecutive sections,
each with an H&E image and spots of 100 um at a pitch of 200 um. The mother's own counts lie outside of the project, as
truth.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iscale.captures.locations import read_locations
from iscale.captures.rearrange import gather
from iscale.captures.tables import read_counts
from iscale.demo.scoring import clear_of_border
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.layout import ALIGNED_FOLDERS, CAPTURES_FOLDER, MOTHER_FOLDER, UNALIGNED_FOLDERS
from iscale.slide.base import any_size

SECTIONS = ("C3", "C4", "C5")
RAW_PIXEL_SIZE_UM = 0.688
"""200 um between array positions, measured on the images."""
PIXEL_SIZE_UM = 0.75
"""Analysis resolution of this case."""
RADIUS_UM = 50.0
KEPT_SHARE = 0.4
"""Share of the mother tissue's width (first capture) or height (second) that is left in the uncovered setting."""

Setting = Literal["covered", "uncovered"]


@dataclass(frozen=True)
class Her2stLayout:
    """Where the case was laid out.

    Attributes
    ----------
    project
        The project folder.
    truth
        Folder of the mother's own spots, outside of the project: ``cnts.tsv.gz``, ``locs.tsv`` in pixels of the
        analysis image, and ``scored.tsv``: ids of the spots that the score is taken on.
    kept
        Spots kept per capture.
    beside
        Spots per capture that were dropped because they land outside of the mother image.
    """

    project: Path
    truth: Path
    kept: dict[str, int]
    beside: dict[str, int]


@dataclass(frozen=True)
class _Spots:
    ids: list[str]
    xy: NDArray[np.float64]

    def where(self, keep: NDArray[np.bool_]) -> _Spots:
        return _Spots([name for name, kept in zip(self.ids, keep, strict=True) if kept], self.xy[keep])


def lay_out_her2st(source: Path, project: Path, mother: str = "C4", setting: Setting = "covered") -> Her2stLayout:
    """Write the her2st sections as a published project folder, and the truth to ``<project>-truth`` beside it.

    ``covered``: all spots of both captures. ``uncovered``: the first capture (in the order C3, C4, C5 without the
    mother) keeps only spots that land in the left 40 % of the mother tissue's width, the second only those in the top
    40 % of its height, and the score is on the mother's spots in neither part. The mother tissue's extent is the
    bounding box of the mother's own spots under tissue.

    Parameters
    ----------
    source
        Folder with ``C3.jpg``, ``C3.spots.tsv``, ``C3.counts.tsv.gz`` ... and ``alignment.json``.
    project
        Folder to write; it must not hold a project yet.
    mother
        Which section is the mother image.
    setting
        ``covered`` or ``uncovered``.

    Raises
    ------
    InputError
        Where ``source`` lacks a file, or ``project`` has one of the folders already.
    """
    _check(source, project, mother)
    image = source / f"{mother}.jpg"
    truth_spots = _read_spots(source, mother)
    width, height = _image_size(image)
    grid = SlideGrid((height, width), RAW_PIXEL_SIZE_UM, PIXEL_SIZE_UM)
    _write_mother(project / MOTHER_FOLDER, image)

    kept, beside = {}, {}
    scored = np.ones(len(truth_spots.ids), dtype=np.bool_)
    for order, name in enumerate(section for section in SECTIONS if section != mother):
        own = _read_spots(source, name)
        on_mother = _apply(_affine_between(source, name, mother), own.xy)
        inside = np.all((on_mother >= 0) & (on_mother < (width, height)), axis=1)
        keep = inside.copy()
        if setting == "uncovered":
            keep &= _in_part(on_mother, truth_spots.xy, order)
            scored &= ~_in_part(truth_spots.xy, truth_spots.xy, order)
        aligned = _Spots(own.ids, on_mother * grid.scale).where(keep)
        _write_capture(project / CAPTURES_FOLDER / ALIGNED_FOLDERS[0] / name, source, name, aligned)
        measured = project / CAPTURES_FOLDER / UNALIGNED_FOLDERS[0] / name
        _write_capture(measured, source, name, own.where(keep))
        _link(source / f"{name}.jpg", measured / "he.jpg")
        kept[name], beside[name] = int(keep.sum()), int((~inside).sum())

    truth = project.with_name(project.name + "-truth")
    _write_capture(truth, source, mother, _Spots(truth_spots.ids, truth_spots.xy * grid.scale))
    (truth / "scored.tsv").write_text("".join(f"{name}\n" for name in truth_spots.where(scored).ids))
    return Her2stLayout(project, truth, kept, beside)


def scored_truth(
    layout: Her2stLayout, genes: tuple[str, ...], superpixel_shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The mother's own spots that are scored: those clear of the slide's border.

    Returns
    -------
    xy_px, counts, depth
        (spot, 2) in pixels of the analysis image; (spot, gene); (spot,) counts of all genes that were measured.
    """
    scored = (layout.truth / "scored.tsv").read_text().split()
    places, table = read_locations(layout.truth / "locs.tsv"), read_counts(layout.truth / "cnts.tsv.gz")
    place_of, row_of, column_of = (
        {name: i for i, name in enumerate(names)} for names in (places.ids, table.rows, table.columns)
    )
    xy_px = places.xy[[place_of[name] for name in scored]]
    counts = gather(table.counts, np.array([row_of[name] for name in scored])).astype(np.float64)
    chosen = np.zeros((len(scored), len(genes)))
    for j, gene in enumerate(genes):
        if gene in column_of:
            chosen[:, j] = counts[:, column_of[gene]].toarray().ravel()
    clear = clear_of_border(xy_px, (superpixel_shape[0], superpixel_shape[1]))
    return xy_px[clear], chosen[clear], np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()[clear]


def _check(source: Path, project: Path, mother: str) -> None:
    if mother not in SECTIONS:
        raise InputError(f"There is no section {mother!r} in her2st.", f"Name one of {', '.join(SECTIONS)}.")
    needed = ["alignment.json", *(f"{s}{end}" for s in SECTIONS for end in (".jpg", ".spots.tsv", ".counts.tsv.gz"))]
    missing = [name for name in needed if not (source / name).is_file()]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} of the {len(needed)} her2st files: {', '.join(missing[:4])}.",
            "Name the folder that holds the three sections and alignment.json.",
        )
    taken = [name for name in (MOTHER_FOLDER, CAPTURES_FOLDER) if (project / name).exists()]
    if taken:
        raise InputError(f"{project} has {' and '.join(taken)} already.", "Name another folder, or remove these.")


def _image_size(path: Path) -> tuple[int, int]:
    with any_size(), Image.open(path) as image:  # only the header is read
        return image.size


def _read_spots(source: Path, section: str) -> _Spots:
    """Spots under tissue: array position as id, position in pixels of the section's own image."""
    with (source / f"{section}.spots.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["selected"] == "1"]
    with gzip.open(source / f"{section}.counts.tsv.gz", "rt") as file:
        counted = {line.split("\t", 1)[0] for line in file}
    rows = [row for row in rows if f"{row['x']}x{row['y']}" in counted]
    xy = np.array([[float(row["pixel_x"]), float(row["pixel_y"])] for row in rows])
    return _Spots([f"{row['x']}x{row['y']}" for row in rows], xy)


def _affine_between(source: Path, section: str, mother: str) -> NDArray[np.float64]:
    """(2, 3) affine from pixels of one section to pixels of another, composed through C4."""
    affines = json.loads((source / "alignment.json").read_text())

    def to_c4(name: str) -> NDArray[np.float64]:
        return np.vstack([affines[name]["affine_xy_to_C4_px"], [0, 0, 1]]) if name != "C4" else np.eye(3)

    return np.asarray((np.linalg.inv(to_c4(mother)) @ to_c4(section))[:2])


def _apply(affine: NDArray[np.float64], xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(xy @ affine[:, :2].T + affine[:, 2])


def _in_part(xy: NDArray[np.float64], tissue_xy: NDArray[np.float64], axis: int) -> NDArray[np.bool_]:
    """Whether spots lie in the left (axis 0) or top (axis 1) part of the tissue."""
    low, high = tissue_xy[:, axis].min(), tissue_xy[:, axis].max()
    return np.asarray(xy[:, axis] < low + KEPT_SHARE * (high - low))


def _write_mother(folder: Path, image: Path) -> None:
    folder.mkdir(parents=True)
    _link(image, folder / "he-raw.jpg")
    (folder / "pixel-size-raw.txt").write_text(f"{RAW_PIXEL_SIZE_UM}\n")
    (folder / "radius-raw.txt").write_text(f"{RADIUS_UM / RAW_PIXEL_SIZE_UM:.6f}\n")


def _write_capture(folder: Path, source: Path, section: str, spots: _Spots) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{name}\t{x:.3f}\t{y:.3f}\n" for name, (x, y) in zip(spots.ids, spots.xy, strict=True))
    (folder / "locs.tsv").write_text("spot\tx\ty\n" + "".join(lines))
    _copy_rows(source / f"{section}.counts.tsv.gz", folder / "cnts.tsv.gz", spots.ids)


def _copy_rows(source: Path, target: Path, ids: Iterable[str]) -> None:
    wanted = {name.encode() for name in ids}
    with gzip.open(source, "rb") as rows, gzip.GzipFile(target, "wb", compresslevel=4, mtime=0) as out:
        for number, row in enumerate(rows):
            if number == 0 or row.split(b"\t", 1)[0] in wanted:
                out.write(row)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # file systems without links
        shutil.copyfile(source, target)

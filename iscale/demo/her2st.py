"""The her2st sections as a project folder, one the mother image, two its daughter captures; and how a run scores there.

Patient C of the HER2+ breast tumours of Andersson et al., Nature Communications 2021: three consecutive sections,
each with an H&E image and spots of 100 um at a pitch of 200 um. The mother's own counts lie outside of the project, as
truth: predicted superpixels are scored per gene over its spots.
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

from iscale.captures.counts import gather
from iscale.captures.locations import read_locations
from iscale.captures.tables import read_counts
from iscale.demo.synthetic import refuse_project
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, SlideGrid
from iscale.project.layout import ALIGNED_FOLDERS, CAPTURES_FOLDER, MOTHER_FOLDER, UNALIGNED_FOLDERS
from iscale.slide.base import any_size
from iscale.transform import Transform

SECTIONS = ("C3", "C4", "C5")
RAW_PIXEL_SIZE_UM = 0.688
"""200 um between array positions, measured on the images."""
PIXEL_SIZE_UM = 0.75
"""Analysis resolution of this case."""
RADIUS_UM = 50.0
KEPT_SHARE = 0.4
"""Share of the mother tissue's width (first capture) or height (second) that is left in the uncovered setting."""

MARGIN_SUPERPIXELS = 7
"""Spots nearer to the border of the image than this are not scored."""
GOOD = 0.3
"""Correlation of a gene that is told as predicted well."""

Setting = Literal["covered", "uncovered"]


@dataclass(frozen=True)
class Her2stLayout:
    """Where the case was laid out, with the spots kept per capture, and those dropped as ``beside`` the mother image.

    ``truth`` is the folder of the mother's own spots, outside of the project: ``cnts.tsv.gz``, ``locs.tsv`` in pixels
    of the analysis image, and ``scored.tsv``: ids of the spots that the score is taken on.
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


def lay_out_her2st(
    source: Path,
    project: Path,
    mother: str = "C4",
    setting: Setting = "covered",
    pixel_size_um: float = PIXEL_SIZE_UM,
) -> Her2stLayout:
    """Write the her2st sections as a published project folder, and the truth to ``<project>-truth`` beside it.

    ``covered``: all spots of both captures. ``uncovered``: the first capture (in the order C3, C4, C5 without the
    mother) keeps only spots that land in the left 40 % of the mother tissue's width, the second only those in the top
    40 % of its height, and the score is on the mother's spots in neither part. The mother tissue's extent is the
    bounding box of the mother's own spots under tissue. Places are in pixels of ``pixel_size_um``.

    ``source`` holds ``C3.jpg``, ``C3.spots.tsv``, ``C3.counts.tsv.gz`` ... and ``alignment.json``; ``project`` must not
    hold a project yet.
    """
    _check(source, project, mother)
    image = source / f"{mother}.jpg"
    truth_spots = _read_spots(source, mother)
    width, height = _image_size(image)
    grid = SlideGrid((height, width), RAW_PIXEL_SIZE_UM, pixel_size_um)
    _write_mother(project / MOTHER_FOLDER, image)

    kept, beside = {}, {}
    scored = np.ones(len(truth_spots.ids), dtype=np.bool_)
    for order, name in enumerate(section for section in SECTIONS if section != mother):
        own = _read_spots(source, name)
        on_mother = _transform_between(source, name, mother).apply(own.xy)
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
    """The mother's own spots that are scored, which are those clear of the slide's border: where, counts, depth.

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
    refuse_project(project)


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


def _transform_between(source: Path, section: str, mother: str) -> Transform:
    """From pixels of one section to pixels of another, composed through C4."""
    affines = json.loads((source / "alignment.json").read_text())

    def to_c4(name: str) -> NDArray[np.float64]:
        return np.vstack([affines[name]["affine_xy_to_C4_px"], [0, 0, 1]]) if name != "C4" else np.eye(3)

    return Transform(np.linalg.inv(to_c4(mother)) @ to_c4(section))


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


@dataclass(frozen=True)
class Scores:
    """Pearson correlation per gene, (gene,), between ``n_spots`` measured and predicted spots.

    ``counts``: log1p of raw counts against log1p of the expression summed over the disc. ``depth_normalised``: log1p of
    counts per 10,000 against log1p of 10,000 x summed expression / summed depth.
    """

    counts: NDArray[np.float64]
    depth_normalised: NDArray[np.float64]
    n_spots: int


def score(
    measured: NDArray[np.floating],
    measured_depth: NDArray[np.floating],
    predicted: NDArray[np.floating],
    predicted_depth: NDArray[np.floating],
) -> Scores:
    """Score predicted against measured spots: (spot, gene) counts, and expected counts summed over each spot's disc.

    Depths are (spot,) counts of all genes together, likewise. Spots where the prediction is NaN (no tissue in the
    disc), or nothing was measured, are left out.
    """
    usable = np.isfinite(predicted_depth) & np.isfinite(predicted).all(axis=1)
    usable &= (measured_depth > 0) & (predicted_depth > 0)
    true, guess = measured[usable].astype(np.float64), predicted[usable].astype(np.float64)
    true_depth, guess_depth = (d[usable].astype(np.float64)[:, None] for d in (measured_depth, predicted_depth))
    return Scores(
        counts=pearson(np.log1p(true), np.log1p(guess)),
        depth_normalised=pearson(np.log1p(1e4 * true / true_depth), np.log1p(1e4 * guess / guess_depth)),
        n_spots=int(usable.sum()),
    )


def pearson(true: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of every column.

    A column of ``guess`` that never varies scores 0: it tells nothing. One of ``true`` gives NaN: nothing can be told.
    """
    a, b = true - true.mean(axis=0), guess - guess.mean(axis=0)
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    r = np.divide((a * b).sum(axis=0), scale, out=np.zeros(len(scale)), where=scale > 0)
    return np.where(np.ptp(true, axis=0) == 0, np.nan, r)


def clear_of_border(xy_px: NDArray[np.float64], superpixel_shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Spots, (spot, 2) in pixels of the analysis image, whose superpixel is 7 superpixels or more from every border."""
    column, row = np.floor(xy_px / SUPERPIXEL_PX).astype(np.int64).T
    height, width = superpixel_shape
    m = MARGIN_SUPERPIXELS
    return np.asarray((row >= m) & (row < height - m) & (column >= m) & (column < width - m))


def disc_sums(
    values: NDArray[np.floating], xy_px: NDArray[np.float64], radius_superpixels: float
) -> NDArray[np.float64]:
    """Sum a map, (..., y, x), over the disc of each spot: superpixels (di, dj) away with di^2 + dj^2 <= r^2.

    Spots are (spot, 2) in pixels of the analysis image; the radius need not be whole. Sums, (spot, ...), are over the
    superpixels that have values, which are NaN off tissue; NaN where a disc has none.
    """
    reach = int(radius_superpixels)
    di, dj = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = di**2 + dj**2 <= radius_superpixels**2
    height, width = values.shape[-2:]
    columns, rows = np.floor(xy_px / SUPERPIXEL_PX).astype(np.int64).T
    sums = np.full((len(xy_px), *values.shape[:-2]), np.nan)
    for spot, (row, column) in enumerate(zip(rows, columns, strict=True)):
        y, x = row + di[disc], column + dj[disc]
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        block = values[..., y[inside], x[inside]].astype(np.float64)
        covered = np.isfinite(block).any(axis=-1)
        sums[spot] = np.where(covered, np.nansum(block, axis=-1), np.nan)
    return sums

"""Bins, cells or transcripts of a placed capture as a truth: counts per superpixel, sparse, on disk if many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import binary_closing

from iscale.captures.counts import Counts, Entries, StoredCounts, blocks, gather, select_genes, transposed
from iscale.captures.measured import Measured
from iscale.captures.platforms import detect_platform, read_measured
from iscale.captures.read import measured_radius_um, place_capture, read_aligned_capture, release, spot_radius_um
from iscale.captures.readers.visium_hd import default_bin_um
from iscale.captures.spots import Capture
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.project.files import CaptureFiles, find_captures, find_project, read_number
from iscale.project.layout import (
    ALIGNED_FOLDERS,
    CAPTURES_FOLDER,
    COUNTS_SUFFIXES,
    LOCS_SUFFIXES,
    SINGLE_SUFFIXES,
    UNALIGNED_FOLDERS,
    one_of,
    optional_file,
    with_suffix,
)
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS
from iscale.transform import TRANSFORM_FILE, read_transform
from iscale.trust.truth import MapTruth, Reading, SpotTruth, Truth

LEAST_COVERED = 0.5
"""A superpixel of which bins cover a smaller share has no value; of others the sum is divided by the share."""

GAP = 5
"""Superpixels without any transcript count as measured, with 0, where a window of so many per side closes them in."""

SPOTS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class BinnedMaps:
    """Counts per superpixel of some genes, by place (superpixel, gene) and by gene (gene, superpixel).

    Superpixels are numbered shard by shard, row by row within each, so that those of a shard lie together. ``frame`` is
    whole shards, and may reach beyond the slide; ``share`` (y, x) is what its counts are divided by, NaN where nothing
    was measured.
    """

    genes: tuple[str, ...]
    by_place: Counts
    by_gene: Counts
    share: NDArray[np.float32]
    frame: Region

    @property
    def held_bytes(self) -> int:
        """Memory that they take."""
        held = sum(0 if isinstance(c, StoredCounts) else 8 * c.nnz for c in (self.by_place, self.by_gene))
        return held + (4 + 8 + 8 + 8 + 1) * self.frame.area

    @property
    def truth(self) -> MapTruth:
        """The maps over the superpixels that were measured; what they are of is for others to say."""
        there = np.isfinite(self.share)
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        region = Region(
            self.frame.y0 + int(rows[0]),
            self.frame.y0 + int(rows[-1]) + 1,
            self.frame.x0 + int(columns[0]),
            self.frame.x0 + int(columns[-1]) + 1,
        )
        what = f"{int(there.sum()):,} superpixels in {region.shape[0]} x {region.shape[1]}"
        return MapTruth("", self.genes, self, region, what, held_bytes=self.held_bytes, tight=True)

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float32]:
        """(gene, y, x) of a region within the frame: few genes of a large part by gene, else by place."""
        place = region.within(self.frame)
        if len(genes) <= GENES_PER_CHUNK and 4 * region.area >= self.frame.area:
            flat = gather(self.by_gene, np.asarray(genes, np.int64))
            values = np.stack([_unfold(row.toarray()[0], self.frame)[place] for row in flat])
        else:
            row, column = np.mgrid[region.slices]
            numbers = _fold(row, column, self.frame).ravel()
            order = np.argsort(numbers)
            found = np.empty((len(genes), len(numbers)))
            found[:, order] = gather(self.by_place, numbers[order])[:, list(genes)].toarray().T
            values = found.reshape(len(genes), *region.shape)
        return np.asarray(values / self.share[place], np.float32)


def bin_squares(
    capture: Capture, genes: frozenset[str], grid: SlideGrid, side_um: float, turn: NDArray[np.float64]
) -> BinnedMaps:
    """A capture of square bins, at its spots, of a side in um, each spread evenly over its square.

    Counts become those of a whole superpixel: they are divided by the share of it that bins cover. ``turn`` (2, 2) is
    how the sides of a bin, which are those of the capture's image, lie on the mother image.
    """
    per_side = max(4, ceil(4 * side_um / grid.superpixel_um))
    at = ((np.arange(per_side) + 0.5) / per_side - 0.5) * side_um / grid.pixel_size_um
    offsets = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2) @ turn.T
    kept, by_place, points, frame = _counted(capture, genes, offsets, grid)
    share = points * (side_um / grid.superpixel_um) ** 2 / len(offsets)
    return _as_maps(capture, kept, by_place, np.where(share >= LEAST_COVERED, share, np.nan), frame)


def bin_points(capture: Capture, genes: frozenset[str], grid: SlideGrid) -> BinnedMaps:
    """Transcripts (in bins much smaller than a superpixel), or cells, counted in the superpixel that each lies in."""
    kept, by_place, points, frame = _counted(capture, genes, np.zeros((1, 2)), grid)
    padded = np.pad(points > 0, GAP)
    closed = binary_closing(padded, np.ones((GAP, GAP), bool))[GAP:-GAP, GAP:-GAP]
    closed[grid.superpixel_shape[0] - frame.y0 :] = False
    closed[:, grid.superpixel_shape[1] - frame.x0 :] = False
    return _as_maps(capture, kept, by_place, np.where(closed, 1.0, np.nan), frame)


def _as_maps(
    capture: Capture, kept: NDArray[np.int64], by_place: Counts, share: NDArray[np.float64], frame: Region
) -> BinnedMaps:
    if not np.isfinite(share).any():
        raise InputError(
            f"Capture {capture.name}: its {len(capture.spot_ids)} bins cover no superpixel by half.",
            "Give larger bins, or a truth of spots.",
        )
    return BinnedMaps(
        tuple(capture.genes[i] for i in kept), by_place, transposed(by_place), share.astype(np.float32), frame
    )


def _counted(
    capture: Capture, genes: frozenset[str], offsets: NDArray[np.float64], grid: SlideGrid
) -> tuple[NDArray[np.int64], Counts, NDArray[np.float64], Region]:
    """Which genes are kept, and (superpixel, gene) counts: a spot's in equal parts at its place plus every offset (px).

    Also the number of such points per superpixel (y, x), and the frame; points beyond the slide are left out.
    """
    kept = np.array([i for i, gene in enumerate(capture.genes) if gene in genes], np.int64)
    counts = select_genes(capture.counts, kept)
    frame = _frame(capture.xy_px, offsets, grid)
    entries, points = Entries((frame.area, len(kept))), np.zeros(frame.area)
    for spots, block in blocks(counts):
        for start in range(spots.start, spots.stop, SPOTS_AT_ONCE):
            stop = min(start + SPOTS_AT_ONCE, spots.stop)
            place, weight = _spread(capture.xy_px[start:stop], offsets, grid, frame)
            points += np.bincount(place, minlength=frame.area)
            numbers, row = np.unique(place, return_inverse=True)
            shares = sparse.csr_matrix(
                (np.full(len(row), 1 / len(offsets), np.float32), (row, weight)), shape=(len(numbers), stop - start)
            )
            found = (shares @ block[start - spots.start : stop - spots.start]).tocoo()
            entries.add(numbers[found.row], found.col, found.data)
    return kept, entries.counts(), _unfold(points, frame), frame


def _spread(
    xy_px: NDArray[np.float64], offsets: NDArray[np.float64], grid: SlideGrid, frame: Region
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the superpixels that points lie in, and of which spot each is."""
    height, width = grid.superpixel_shape
    column, row = np.floor((xy_px[:, None] + offsets) / SUPERPIXEL_PX).astype(np.int64).reshape(-1, 2).T
    spot = np.repeat(np.arange(len(xy_px)), len(offsets))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return _fold(row[inside], column[inside], frame), spot[inside]


def _frame(xy_px: NDArray[np.float64], offsets: NDArray[np.float64], grid: SlideGrid) -> Region:
    """Whole shards around all points on the slide."""
    reach = np.abs(offsets).max()
    top = np.array(grid.superpixel_shape[::-1])
    low = np.clip(np.floor((xy_px.min(axis=0) - reach) / SUPERPIXEL_PX), 0, top - 1).astype(int)
    high = np.clip(np.floor((xy_px.max(axis=0) + reach) / SUPERPIXEL_PX), 0, top - 1).astype(int) + 1
    around = Region(int(low[1]), int(high[1]), int(low[0]), int(high[0]))
    return around.coarsened(SHARD_SUPERPIXELS).scaled(SHARD_SUPERPIXELS)


def _fold(row: NDArray[np.int64], column: NDArray[np.int64], frame: Region) -> NDArray[np.int64]:
    """Numbers of superpixels, shard by shard."""
    side = SHARD_SUPERPIXELS
    (i, y), (j, x) = np.divmod(row - frame.y0, side), np.divmod(column - frame.x0, side)
    return np.asarray(((i * (frame.shape[1] // side) + j) * side + y) * side + x, np.int64)


def _unfold(values: NDArray[np.float64], frame: Region) -> NDArray[np.float64]:
    """(y, x) of the frame, of values in the order of the numbers."""
    side, (height, width) = SHARD_SUPERPIXELS, frame.shape
    tiles = values.reshape(height // side, width // side, side, side)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3)).reshape(height, width)


IMAGING = ("xenium", "cosmx")
BINNED = ("visium_hd",)

POINTS_PER_SIDE = 4
"""Transcripts are read in bins of a quarter of a superpixel: where a bin lies across a border, little is misplaced."""

TRANSCRIPTS = ("transcripts.*", "*_tx_file.csv*")


def open_capture_truth(path: Path, grid: SlideGrid, reading: Reading) -> Truth:
    """Open a capture: of an imaging platform or of Visium HD as maps, any other as spots.

    It is a capture of a project, in either of its folders; or a folder that holds the capture, or one file, and
    ``transform.json`` in it or beside it; or a folder of ``cnts.*`` and ``locs.*``, in pixels of the analysis image. It
    must be placed on the mother image.
    """
    files, project = truth_files(path.absolute())
    if files.transform is None:
        # Ids and places that are wrong are told before a radius that lacks: who has to add one should do so once.
        radius_um, lacking = reading.radius_um, None
        if radius_um is None:
            try:
                radius_um = _radius_um(files, project, grid, None)
            except InputError as error:
                lacking = error
        capture = read_aligned_capture(
            files,
            radius_um=radius_um or grid.superpixel_um / 2,
            pixel_size_um=grid.pixel_size_um,
            analysis_shape_px=grid.content_shape_px,
            raw_to_analysis=grid.scale,
        )
        if lacking is not None:
            raise lacking
        return _spots(capture)
    assert files.source is not None
    platform = reading.platform or detect_platform(files.source)
    bin_um = _bin_um(platform, files.source, grid, reading)
    measured = read_measured(files.source, platform=platform, bin_um=bin_um)
    release()
    if measured.platform in IMAGING + BINNED:
        return _maps(files, measured, grid, reading, in_bins=bin_um is not None or measured.pitch_um is not None)
    transform = read_transform(files.transform)
    radius_um = reading.radius_um or _radius_um(files, project, grid, measured_radius_um(measured, transform, grid))
    return _spots(place_capture(files, measured, transform, grid, radius_um=radius_um))


def truth_files(path: Path) -> tuple[CaptureFiles, Path | None]:
    """Files of a capture that is given by its folder or file, and the project that it is of, if any."""
    folder = path if path.is_dir() and path.suffix.lower() not in SINGLE_SUFFIXES else path.parent
    if folder.parent.name in ALIGNED_FOLDERS + UNALIGNED_FOLDERS and folder.parents[1].name == CAPTURES_FOLDER:
        root = folder.parents[2]
        (files,) = find_captures(root, [folder.name])
        if files.is_aligned:
            return files, root
        raise InputError(
            f"Capture {files.name} is not placed on the mother image (no {TRANSFORM_FILE} nor locs.* in "
            f"{files.aligned}).",
            f"Align it: iscale align {root} --captures {files.name}.",
        )
    name, radius = path.stem if path.is_file() else path.name, optional_file(folder / "radius.txt")
    transform = optional_file(folder / TRANSFORM_FILE) or optional_file(folder.parent / TRANSFORM_FILE)
    if transform is not None:
        return CaptureFiles(name, None, None, radius, _source(path, folder), transform, folder), None
    counts, locs = with_suffix(folder, "cnts", COUNTS_SUFFIXES), with_suffix(folder, "locs", LOCS_SUFFIXES)
    if counts and locs:
        pair = one_of(counts, "the counts"), one_of(locs, "the locations")
        return CaptureFiles(name, *pair, radius, None, None, folder), None
    raise InputError(
        f"{path} is not placed on the mother image: {folder} has neither {TRANSFORM_FILE} nor cnts.* and locs.*.",
        f"Put the {TRANSFORM_FILE} of `iscale align` beside it, or name a capture of a project, as "
        f"{CAPTURES_FOLDER}/{UNALIGNED_FOLDERS[0]}/NAME. Maps of superpixels are .npz, .npy, Zarr or the published "
        "pickle.",
    )


def _source(path: Path, folder: Path) -> Path:
    """The measurement: the file or store that is named, the one alone in the folder, or the folder."""
    if path != folder:
        return path
    about = (TRANSFORM_FILE, "radius.txt")
    entries = [p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in about]
    alone = len(entries) == 1 and entries[0].suffix.lower() in SINGLE_SUFFIXES
    return entries[0] if alone else folder


def _radius_um(files: CaptureFiles, project: Path | None, grid: SlideGrid, stated: float | None) -> float:
    if project is not None:
        found = find_project(project, with_captures=False)
        raw_um = None if found.mother_is_analysis else grid.raw_pixel_size_um
        return spot_radius_um(
            found, files, raw_pixel_size_um=raw_um, pixel_size_um=grid.pixel_size_um, measured_um=stated
        )
    if files.radius is not None:
        return read_number(files.radius) * grid.pixel_size_um
    if stated is not None:
        return stated
    raise InputError(
        f"{files.aligned}: the spots' radius is not known.",
        f"Write it to {files.aligned / 'radius.txt'}, in pixels of the analysis image ({grid.pixel_size_um:g} um).",
    )


def _bin_um(platform: str, source: Path, grid: SlideGrid, reading: Reading) -> float | None:
    """Side of the bins that are asked for: those of Visium HD, fine ones of transcripts, where there are any."""
    if reading.bin_um is None and platform in BINNED:
        return default_bin_um(source)
    if reading.bin_um is not None or platform not in IMAGING:
        return reading.bin_um
    there = any(next(source.glob(pattern), None) is not None for pattern in TRANSCRIPTS)
    return grid.superpixel_um / POINTS_PER_SIDE if there else None


def _spots(capture: Capture) -> SpotTruth:
    what = f"{capture.name}: {len(capture.spot_ids):,} spots of radius {capture.radius_um:.4g} um"
    return SpotTruth(
        capture.name, capture.genes, capture.counts, capture.xy_px, capture.radius_um, what, capture.notices
    )


def _maps(files: CaptureFiles, measured: Measured, grid: SlideGrid, reading: Reading, in_bins: bool) -> MapTruth:
    """Counts per superpixel of a capture of bins or of cells."""
    assert files.transform is not None
    transform = read_transform(files.transform)
    capture = place_capture(files, measured, transform, grid, radius_um=grid.superpixel_um / 2)
    if measured.platform in BINNED and measured.pitch_um is not None:
        linear = transform.matrix[:2, :2] / transform.scale
        maps = bin_squares(capture, reading.genes, grid, measured.pitch_um, linear)
        unit = f"bins of {measured.pitch_um:g} um, each spread over the superpixels that it lies on"
    else:
        maps = bin_points(capture, reading.genes, grid)
        unit = "transcripts, counted where they lie" if in_bins else "cells, counted at their middles"
    notices = (
        ()
        if in_bins
        else (f"{files.name} has no transcripts: a cell's counts lie in one superpixel; see blocks of 2 up.",)
    )
    release()
    found = maps.truth
    return replace(
        found,
        name=files.name,
        what=f"{files.name}: {unit}, {found.what}",
        all_genes=capture.genes,
        notices=(*capture.notices, *notices),
    )

"""A capture as a check sees it: counts, positions and the distance of neighbouring spots, and what files state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from iscale.captures.counts import Counts, depth_of, whole_numbers
from iscale.captures.measured import unique_names
from iscale.captures.read import Readings, measured_radius_um, spot_radius_um
from iscale.captures.readers.lattice import ST_PITCH_UM
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.options import Options
from iscale.project.files import CaptureFiles, ProjectFiles
from iscale.transform import Transform, read_transform


@dataclass(frozen=True)
class Sample:
    """A capture that could be read.

    Attributes
    ----------
    counts
        (spot, gene), in memory or on disk.
    gene_ids
        (gene,) ids, the names again where there are none.
    xy_px, own_xy_px
        (spot, 2) in full-resolution pixels of the mother image, None where the capture is not aligned; and of its own
        image, None of aligned tables.
    platform_pitch_um, own_um_per_px
        The pitch that the platform fixes; what its files state of its own pixels, or its platform tells.
    radius_um, platform_radius_um
        Of its spots, as a run would take it; as its platform states it. None where that is not known.
    image, image_from_full
        Its own image, and the (3, 3) matrix from its own full-resolution pixels to that image's.
    scalefactors
        As its vendor wrote them.
    transform
        From its own pixels to the mother image's, None of aligned tables.
    notices
        What its reader did that the user should know of.
    """

    name: str
    spot_ids: tuple[str, ...]
    genes: tuple[str, ...]
    counts: Counts
    gene_ids: tuple[str, ...]
    xy_px: NDArray[np.float64] | None
    own_xy_px: NDArray[np.float64] | None = None
    platform: str = "tables"
    platform_pitch_um: float | None = None
    own_um_per_px: float | None = None
    radius_um: float | None = None
    platform_radius_um: float | None = None
    image: Path | None = None
    image_from_full: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    scalefactors: Mapping[str, float] = field(default_factory=dict)
    transform: Transform | None = None
    notices: tuple[str, ...] = ()

    @property
    def depth(self) -> NDArray[np.float64]:
        """(spot,) counts of all genes."""
        return depth_of(self.counts)

    @property
    def whole_numbers(self) -> bool:
        """Whether the counts are counts."""
        return whole_numbers(self.counts)

    def pitch(self, xy: NDArray[np.float64]) -> Pitch | None:
        """The pitch of the spots at these positions."""
        return find_pitch(xy, self.spot_ids, self.platform_pitch_um)


def read_sample(
    files: CaptureFiles,
    project: ProjectFiles,
    grid: SlideGrid,
    options: Options,
    root: Path,
    readings: Readings | None = None,
) -> Sample:
    """Read a capture, aligned or not, wherever its spots lie; what was read before is taken from ``readings``."""
    readings = readings or Readings()
    if files.transform is None and files.locs is not None:
        return _from_tables(files, project, grid, readings)
    assert files.source is not None
    measured = readings.measured(files.source, **options.reading(files.name, root))
    transform = None if files.transform is None else read_transform(files.transform)
    scaled = transform or Transform(np.eye(3))
    # Also of a capture that is not aligned: whether it is known at all is told before that work.
    radius_um = _radius_um(files, project, grid, measured_radius_um(measured, scaled, grid))
    return Sample(
        name=files.name,
        spot_ids=tuple(measured.spot_ids),
        genes=tuple(unique_names(measured.gene_symbols)),
        counts=measured.counts,
        gene_ids=tuple(measured.gene_ids),
        xy_px=None if transform is None else transform.apply(measured.xy_px),
        own_xy_px=measured.xy_px,
        platform=measured.platform,
        platform_pitch_um=measured.pitch_um,
        own_um_per_px=measured.um_per_px,
        radius_um=None if transform is None else radius_um,
        platform_radius_um=None if measured.spot_diameter_um is None else measured.spot_diameter_um / 2,
        image=measured.image,
        image_from_full=measured.image_from_full,
        scalefactors=measured.scalefactors,
        transform=transform,
        notices=measured.notices,
    )


def _from_tables(files: CaptureFiles, project: ProjectFiles, grid: SlideGrid, readings: Readings) -> Sample:
    assert files.counts is not None
    assert files.locs is not None
    matched = readings.matched(files.name, files.counts, files.locs)
    if depth_of(matched.counts).sum() == 0:
        raise InputError(
            f"{files.counts}: all counts of the {matched.counts.shape[0]} spots are 0.", "Give raw counts."
        )
    return Sample(
        name=files.name,
        spot_ids=tuple(matched.locations.ids),
        genes=tuple(matched.genes),
        counts=matched.counts,
        gene_ids=tuple(matched.genes),
        xy_px=matched.locations.xy / grid.scale,
        radius_um=_radius_um(files, project, grid, None),
    )


def _radius_um(files: CaptureFiles, project: ProjectFiles, grid: SlideGrid, measured_um: float | None) -> float:
    return spot_radius_um(
        project,
        files,
        raw_pixel_size_um=None if project.mother_is_analysis else grid.raw_pixel_size_um,
        pixel_size_um=grid.pixel_size_um,
        measured_um=measured_um,
    )


ST_LARGEST_INDEX = 36
"""Spatial Transcriptomics arrays have 33 x 35 spots, ids such as 22x5; other platforms with such ids have more."""

FEWEST = 4
"""A lattice is not fitted to fewer spots."""

LARGEST_RESIDUAL = 0.3
"""Spots farther from the places that their ids name, root mean square and in pitches, are not those of the ids."""

MOST = 20_000
"""Of more spots some are taken: the median distance of neighbours does not need all."""


@dataclass(frozen=True)
class Pitch:
    """The lattice of a capture's spots.

    ``px`` is the distance of neighbouring spots in the pixels of their positions, ``um`` as the platform makes it.
    Whether the array is seen from its back at these positions (None where the ids do not tell); whether the spots lie
    on a lattice at all: cells do not.
    """

    px: float
    um: float | None
    flipped: bool | None
    regular: bool


def find_pitch(xy: NDArray[np.float64], ids: Sequence[str], platform_um: float | None) -> Pitch | None:
    """The pitch of spots at (spot, 2), of which ids such as ``22x5`` are positions in an array.

    None where they are too few or all at one place.
    """
    if len(xy) < FEWEST:
        return None
    nearest = np.asarray(cKDTree(xy).query(xy[:: max(1, len(xy) // MOST)], 2)[0])[:, 1]
    px = float(np.median(nearest))
    if px <= 0:
        return None
    low, high = np.percentile(nearest, [10, 90])
    array = array_positions(ids)
    if array is None:
        return Pitch(px, platform_um, None, bool(high < 1.5 * max(low, 1e-9)))
    design = np.column_stack([array, np.ones(len(array))])
    if np.linalg.matrix_rank(design) < 3:
        return Pitch(px, platform_um, None, True)
    fitted = np.linalg.lstsq(design, xy, rcond=None)[0]
    area = float(np.linalg.det(fitted[:2]))
    off = float(np.sqrt(((design @ fitted - xy) ** 2).sum(axis=1).mean()))
    if off > LARGEST_RESIDUAL * abs(area) ** 0.5:  # these ids are not those of these positions
        return Pitch(px, platform_um, None, True)
    if _is_full_st_array(array):
        # Spots are printed with a jitter of some 20 um, which makes nearest neighbours nearer than the pitch.
        return Pitch(abs(area) ** 0.5, platform_um or ST_PITCH_UM, area < 0, True)
    return Pitch(px, platform_um, area < 0, True)


def array_positions(ids: Sequence[str]) -> NDArray[np.float64] | None:
    """(spot, 2) positions in an array that ids such as ``22x5`` name, or None where they are none.

    >>> array_positions(["22x5", "3x4"]).tolist(), array_positions(["ACGT-1"])
    ([[22.0, 5.0], [3.0, 4.0]], None)
    """
    found = [re.fullmatch(r"(\d+)x(\d+)", name) for name in ids]
    if not found or not all(found):
        return None
    return np.array([[float(match[1]), float(match[2])] for match in found if match])


def _is_full_st_array(array: NDArray[np.float64]) -> bool:
    """Whether it is the array of 33 x 35 spots; in denser ones every second position of a checkerboard is used."""
    parity = array.sum(axis=1) % 2
    return bool(array.max() <= ST_LARGEST_INDEX and parity.min() != parity.max())

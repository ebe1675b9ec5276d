"""Projects for benchmarks: synthetic slides, painted in a stream or only a header, with a capture of random counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffWriter

from iscale.demo.painting import write_synthetic_slide
from iscale.engine.plan import format_bytes
from iscale.geometry import SUPERPIXEL_PX

PIXEL_UM, SPOT_RADIUS_PX, SPOTS_PER_SIDE = 0.5, 55.0, 20
TILE_PX = 512

IMAGE_BYTES, GLASS_BYTES, FEATURE_BYTES = 4.0, 0.3, 170.0
"""What a run leaves on disk, at most: image pyramid and slide file per pixel of tissue and of glass, and the texture
encoder's features per superpixel of tissue."""


def lay_out(project: Path, side: int, n_genes: int, tissue: float = 0.5, *, off_tissue: bool = True) -> None:
    """A painted slide of ``side`` px, and a capture of random counts over its middle.

    Parameters
    ----------
    tissue
        Share of the slide that is tissue.
    off_tissue
        Whether the capture keeps its spots on glass.
    """
    mother = _mother(project)
    painted = write_synthetic_slide(
        mother / "he-raw.tif", (side, side), seed=0, tissue_fraction=tissue, pixel_size_um=PIXEL_UM
    )
    at = np.linspace(side * 0.2, side * 0.8, SPOTS_PER_SIDE)
    keep = np.ones((SPOTS_PER_SIDE, SPOTS_PER_SIDE), bool) if off_tissue else painted.share(*[at * PIXEL_UM] * 2) > 0.5
    write_capture(project, at, keep, n_genes)


def lay_out_empty(project: Path, side: int, n_genes: int, spots: int = 400) -> None:
    """A slide of ``side`` px that has a header and no pixels, and a capture: enough for plans, and for nothing else."""
    write_empty_slide(_mother(project) / "he-raw.tif", side)
    write_capture(project, np.linspace(side * 0.2, side * 0.8, round(spots**0.5)), None, n_genes)


def write_empty_slide(path: Path, side: int) -> None:
    """A tiled TIFF of ``side`` x ``side`` px none of whose tiles was written, which the format allows: small."""
    tiles = (-(-side // TILE_PX)) ** 2
    per_cm = 1e4 / PIXEL_UM
    with TiffWriter(path, bigtiff=True) as writer:
        writer.write(
            (b"" for _ in range(tiles)),
            shape=(side, side, 3),
            dtype=np.uint8,
            tile=(TILE_PX, TILE_PX),
            photometric="rgb",
            compression="jpeg",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            metadata=None,
        )


def _mother(project: Path) -> Path:
    """The folder of the mother image, with the spots' radius in it."""
    mother = project / "MotherImage"
    mother.mkdir(parents=True)
    (mother / "radius-raw.txt").write_text(f"{SPOT_RADIUS_PX}\n")
    return mother


def write_capture(project: Path, at: NDArray[np.float64], keep: NDArray[np.bool_] | None, n_genes: int) -> None:
    """A capture ``D1`` of random counts at the grid of positions ``at`` x ``at``, in px; (y, x) ``keep`` says which."""
    folder = project / "DaughterCaptures" / "AllignedToMother" / "D1"
    folder.mkdir(parents=True)
    counts = np.random.default_rng(0).poisson(3, (len(at) ** 2, n_genes))
    with (folder / "cnts.tsv").open("w") as cnts, (folder / "locs.tsv").open("w") as locs:
        cnts.write("\t".join(["spot", *(f"G{i}" for i in range(n_genes))]) + "\n")
        locs.write("spot\tx\ty\n")
        for k, row in enumerate(counts):
            if keep is None or keep.ravel()[k]:
                cnts.write("\t".join([f"s{k}", *map(str, row)]) + "\n")
                locs.write(f"s{k}\t{at[k % len(at)]:.1f}\t{at[k // len(at)]:.1f}\n")


def bytes_of_run(side: int, n_genes: int, tissue: float) -> int:
    """Disk that a slide and its run with the texture encoder take, at most.

    >>> round(bytes_of_run(40_000, 50, 0.3) / 1e9, 1)
    3.0
    """
    superpixels = side**2 / SUPERPIXEL_PX**2
    image = side**2 * (tissue * IMAGE_BYTES + (1 - tissue) * GLASS_BYTES)
    return round(image + superpixels * tissue * (FEATURE_BYTES + 2 * (2 * n_genes + 1)))


def check_room(folder: Path, needed: int) -> None:
    """Stop with a message where a disk has less than ``needed`` bytes, and a tenth, free."""
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        raise SystemExit(
            f"{folder}: {format_bytes(free)} free, this benchmark needs up to {format_bytes(1.1 * needed)} there. "
            "Make room, name another folder in TMPDIR, or choose smaller slides."
        )

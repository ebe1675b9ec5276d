"""The built-in demo: a synthetic tissue, three captures of parts of it, and what the model should find."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import imread

from iscale.demo.painting import write_synthetic_slide
from iscale.demo.tissue import LARGE_CELL_UM, REGION_TYPES, SMALL_CELL_UM, SyntheticTissue
from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX
from iscale.project.layout import ALIGNED_FOLDERS, CAPTURES_FOLDER, MOTHER_FOLDER, UNALIGNED_FOLDERS

MARKERS: dict[str, tuple[str, ...]] = {
    "tumour": ("ERBB2", "EPCAM", "KRT8", "KRT18", "KRT19", "CDH1", "MUC1", "GRB7", "ESR1", "FASN"),
    "stroma": ("COL1A1", "COL1A2", "COL3A1", "DCN", "LUM", "FN1", "SPARC", "ACTA2", "POSTN", "VIM"),
    "lymphoid": ("PTPRC", "CD3E", "CD3D", "CD2", "MS4A1", "CD79A", "CD19", "IGKC", "CCL19", "CXCL13"),
    "fat": ("ADIPOQ", "PLIN1", "PLIN4", "FABP4", "LPL", "LEP", "CFD", "G0S2"),
    "gland": ("SCGB2A2", "PIP", "KRT14", "KRT5", "KRT17", "LTF", "AZGP1", "OXTR"),
    "necrosis": ("S100A8", "S100A9", "CA9", "VEGFA", "NDRG1", "HIF1A"),
}
"""Genes that are high in one region type."""
HOUSEKEEPING = ("ACTB", "GAPDH", "B2M", "RPLP0", "EEF1A1", "TPT1", "MALAT1", "UBC")
"""Genes that every cell has."""
GENES = (*(gene for genes in MARKERS.values() for gene in genes), *HOUSEKEEPING)
LEAK = 0.06
"""Level of a marker outside of its region type, as a share of its level inside."""
SUPERPIXELS_AT_ONCE = 1 << 16


def levels(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts per cell of every gene in every region type, (gene, type), and its slope along the gradient, (gene,)."""
    rng = np.random.default_rng(seed + 77)
    high = rng.lognormal(np.log(12), 0.6, len(GENES))
    table = np.full((len(GENES), len(REGION_TYPES)), LEAK)
    for kind, genes in MARKERS.items():
        table[[GENES.index(gene) for gene in genes], REGION_TYPES.index(kind)] = 1
    table[-len(HOUSEKEEPING) :] = 0.5
    return table * high[:, None], rng.normal(0, 0.5, len(GENES))


def expected_counts(tissue: SyntheticTissue, superpixel_um: float) -> NDArray[np.float32]:
    """Expected counts of every gene in every superpixel; NaN on glass.

    (gene, y, x): cells per superpixel (the chance of a nucleus in a lattice cell by the lattices' cells per superpixel)
    times counts per cell in this mixture of region types times the exponential of the gene's slope by the gradient.
    """
    height, width = (int(n * tissue.pixel_size_um / superpixel_um) for n in tissue.shape_px)
    per_cell, slope = levels(tissue.seed)
    expected = np.empty((len(GENES), height, width), dtype=np.float32)
    x_um = (np.arange(width) + 0.5) * superpixel_um
    step = max(1, SUPERPIXELS_AT_ONCE // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        fields, large, small = tissue.nuclei((np.arange(rows.start, rows.stop) + 0.5) * superpixel_um, x_um)
        cells = large * (superpixel_um / LARGE_CELL_UM) ** 2 + small * (superpixel_um / SMALL_CELL_UM) ** 2
        mixture = np.tensordot(per_cell.astype(np.float32), fields.regions, axes=1)
        trend = np.exp(slope.astype(np.float32)[:, None, None] * fields.gradient)
        expected[:, rows] = np.where(fields.tissue > 0.5, cells * mixture * trend, np.nan)
    return expected


PIXEL_SIZE_UM = 0.5
"""Of the slide and of the analysis."""
RADIUS_UM = 27.5
CAPTURE_PIXEL_SIZE_UM = 1.0
"""Of the captures' own images."""
SHARE = 0.5
"""Side of a capture's area as a share of the slide's."""
LEAST_TISSUE = 0.5
"""Spots with less of their disc on tissue are not measured."""


@dataclass(frozen=True)
class CapturePlan:
    """How a capture lies on the mother image, and how it measures.

    ``middle`` is x, y as shares of the slide's width and height; ``pitch_um`` the distance of neighbouring spots, in
    rows shifted by half of it where ``hexagonal``, as in Visium; ``efficiency`` the share of the expected counts that
    it measures.
    """

    name: str
    middle: tuple[float, float]
    angle_deg: float
    pitch_um: float
    hexagonal: bool
    radius_um: float
    efficiency: float


CAPTURES = (
    CapturePlan("D1", (0.33, 0.34), 12.0, 100.0, True, RADIUS_UM, 1.0),
    CapturePlan("D2", (0.67, 0.42), -25.0, 100.0, True, RADIUS_UM, 0.7),
    CapturePlan("D3", (0.48, 0.70), 40.0, 80.0, False, 20.0, 1.2),
)


@dataclass(frozen=True)
class DemoTruth:
    """What the demo's tissue expresses: (gene, y, x) expected counts per superpixel at efficiency 1, NaN on glass.

    ``path`` is the ``.npz`` file, beside the project, that holds ``genes`` and ``expected``.
    """

    project: Path
    path: Path
    genes: tuple[str, ...]
    expected: NDArray[np.float32]


def write_demo(folder: Path, seed: int = 0, side_px: int = 4096) -> DemoTruth:
    """Write the demo as a published project folder, and the truth to ``<folder>-truth.npz`` beside it.

    The slide has ``side_px`` pixels of 0.5 um a side, 2048 or more; the seed says which tissue, and which noise.
    """
    refuse_project(folder)
    if side_px < 2048:
        raise InputError(f"A slide of {side_px} px is too small for three captures.", "Take 2048 px or more.")
    mother = folder / MOTHER_FOLDER
    mother.mkdir(parents=True)
    tissue = write_synthetic_slide(mother / "he-raw.tif", (side_px, side_px), seed, pixel_size_um=PIXEL_SIZE_UM)
    (mother / "pixel-size-raw.txt").write_text(f"{PIXEL_SIZE_UM}\n")
    (mother / "radius-raw.txt").write_text(f"{RADIUS_UM / PIXEL_SIZE_UM}\n")
    markers = [f"{gene},{kind}\n" for kind, genes in MARKERS.items() for gene in genes[:5]]
    (mother / "markers.csv").write_text("gene,label\n" + "".join(markers))

    expected = expected_counts(tissue, SUPERPIXEL_PX * PIXEL_SIZE_UM)
    finer = round(CAPTURE_PIXEL_SIZE_UM / PIXEL_SIZE_UM)
    picture = Image.fromarray(imread(mother / "he-raw.tif", level=0)).reduce(finer)
    for order, plan in enumerate(CAPTURES):
        rng = np.random.default_rng([seed, order])
        measured = _write_capture(folder / CAPTURES_FOLDER, tissue, expected, plan, rng)
        image = _capture_image(picture, tissue, plan, _side_um(tissue))
        image.save(measured / "he.jpg", quality=90)
    path = folder.with_name(folder.name + "-truth.npz")
    np.savez(path, genes=np.array(GENES), expected=expected)
    return DemoTruth(folder, path, GENES, expected)


def refuse_project(folder: Path) -> None:
    """Refuse a folder that holds a project already."""
    taken = [name for name in (MOTHER_FOLDER, CAPTURES_FOLDER) if (folder / name).exists()]
    if taken:
        raise InputError(f"{folder} has {' and '.join(taken)} already.", "Name another folder, or remove these.")


def read_truth(folder: Path) -> DemoTruth:
    """Read the truth of a demo that was written to ``folder``."""
    path = folder.with_name(folder.name + "-truth.npz")
    with np.load(path) as stored:
        return DemoTruth(folder, path, tuple(str(gene) for gene in stored["genes"]), stored["expected"])


def _write_capture(
    parent: Path, tissue: SyntheticTissue, expected: NDArray[np.float32], plan: CapturePlan, rng: np.random.Generator
) -> Path:
    """Write counts and locations in both frames; return the folder of the unaligned ones."""
    side_um = _side_um(tissue)
    own_um = _grid(plan, side_um)
    on_mother_um = _place(plan, tissue, own_um, side_um)
    sums, covered = _disc_sums(expected, on_mother_um, plan.radius_um)
    keep = covered >= LEAST_TISSUE
    depth = plan.efficiency * rng.lognormal(0, 0.2, (len(own_um), 1))
    counts = rng.poisson(sums * depth)[keep]
    ids = [f"{plan.name}_{number:04d}" for number in range(len(counts))]

    aligned = parent / ALIGNED_FOLDERS[0] / plan.name
    measured = parent / UNALIGNED_FOLDERS[0] / plan.name
    for folder, xy in (
        (aligned, on_mother_um[keep] / PIXEL_SIZE_UM),
        (measured, own_um[keep] / CAPTURE_PIXEL_SIZE_UM),
    ):
        folder.mkdir(parents=True)
        lines = (f"{name}\t{x:.2f}\t{y:.2f}\n" for name, (x, y) in zip(ids, xy, strict=True))
        (folder / "locs.tsv").write_text("spot\tx\ty\n" + "".join(lines))
        _write_counts(folder / "cnts.tsv.gz", ids, counts)
    if plan.radius_um != RADIUS_UM:
        (aligned / "radius.txt").write_text(f"{plan.radius_um / PIXEL_SIZE_UM}\n")
    return measured


def _side_um(tissue: SyntheticTissue) -> float:
    """Side of a capture's area, in um."""
    return SHARE * tissue.shape_px[0] * tissue.pixel_size_um


def _grid(plan: CapturePlan, side_um: float) -> NDArray[np.float64]:
    """(spot, 2): x, y of the spots in um from the capture's top left corner."""
    row_um = plan.pitch_um * (np.sqrt(3) / 2 if plan.hexagonal else 1)
    rows = np.arange(plan.radius_um, side_um - plan.radius_um, row_um)
    columns = np.arange(plan.radius_um, side_um - plan.radius_um - plan.pitch_um / 2, plan.pitch_um)
    shift = np.arange(len(rows)) % 2 * (plan.pitch_um / 2 if plan.hexagonal else 0)
    x = columns[None, :] + shift[:, None]
    return np.stack([x, np.broadcast_to(rows[:, None], x.shape)], axis=-1).reshape(-1, 2)


def _place(
    plan: CapturePlan, tissue: SyntheticTissue, own_um: NDArray[np.float64], side_um: float
) -> NDArray[np.float64]:
    """Positions of the capture's own frame in um of the mother image."""
    turn = np.deg2rad(plan.angle_deg)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array(plan.middle) * tissue.shape_px[::-1] * tissue.pixel_size_um
    return np.asarray((own_um - side_um / 2) @ rotation.T + middle)


def _disc_sums(
    expected: NDArray[np.float32], xy_um: NDArray[np.float64], radius_um: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected counts within each spot, (spot, gene), and the share of it that is tissue, (spot,).

    A superpixel belongs to a spot by the share of its 8 x 8 sample points that lie in the disc: the spot is where it
    is, not at the middle of a superpixel.
    """
    side_um, fine = SUPERPIXEL_PX * PIXEL_SIZE_UM, 8
    reach = int(radius_um / side_um) + 1
    sample = (np.arange((2 * reach + 1) * fine) + 0.5) / fine * side_um
    n_genes, height, width = expected.shape
    sums, covered = np.zeros((len(xy_um), n_genes)), np.zeros(len(xy_um))
    for spot, (x, y) in enumerate(xy_um):
        row, column = int(y // side_um) - reach, int(x // side_um) - reach
        if row < 0 or column < 0 or row + 2 * reach >= height or column + 2 * reach >= width:
            continue
        inside = (sample[:, None] + row * side_um - y) ** 2 + (sample + column * side_um - x) ** 2 <= radius_um**2
        share = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))
        block = expected[:, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        sums[spot] = (np.nan_to_num(block) * share).sum(axis=(1, 2))
        covered[spot] = share[np.isfinite(block[0])].sum() / share.sum()
    return sums, covered


def _write_counts(path: Path, ids: list[str], counts: NDArray[np.int64]) -> None:
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(("spot\t" + "\t".join(GENES) + "\n").encode())
        for name, row in zip(ids, counts.tolist(), strict=True):
            file.write("\t".join([name, *map(str, row)]).encode() + b"\n")


def _capture_image(picture: Image.Image, tissue: SyntheticTissue, plan: CapturePlan, side_um: float) -> Image.Image:
    """The capture's own image: its area of the mother image, turned upright; both at 1 um/px."""
    n = round(side_um / CAPTURE_PIXEL_SIZE_UM)
    corners = np.array([[0, 0], [side_um, 0], [0, side_um]])
    origin, right, bottom = _place(plan, tissue, corners, side_um) / CAPTURE_PIXEL_SIZE_UM
    (a, d), (b, e) = (right - origin) / n, (bottom - origin) / n
    affine = (a, b, origin[0], d, e, origin[1])
    return picture.transform(
        (n, n), Image.Transform.AFFINE, affine, resample=Image.Resampling.BICUBIC, fillcolor=(243, 242, 244)
    )

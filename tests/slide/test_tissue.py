from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from iscale.arrays import halve
from iscale.geometry import SUPERPIXEL_PX, Region, SlideGrid
from iscale.slide.flat_reader import DecodedImage
from iscale.slide.ingest import resample, source_region
from iscale.slide.reader import open_slide
from iscale.slide.tissue import TissueModel, learn_tissue, superpixel_mask

Pixels = npt.NDArray[np.uint8]
UM = 0.5


def tissue_mask(image: Pixels, um: float = UM, overview_px: int = 4_000_000) -> npt.NDArray[np.bool_]:
    """The mask of an analysis image whose sides are multiples of 256, through a pyramid as a run makes it."""
    levels = [image]
    while levels[-1].shape[0] * SUPERPIXEL_PX > image.shape[0]:
        levels.append(halve(levels[-1]))
    overview, factor = image, 1
    while overview.shape[0] * overview.shape[1] > overview_px:
        overview, factor = halve(overview), factor * 2
    model, classes = learn_tissue(overview, um * factor, factor)
    h, w = levels[4].shape[:2]
    return superpixel_mask(levels[4], Region(0, h, 0, w), model, classes)


def read_analysis(path: Path, scratch: Path, raw_um: float, um: float) -> tuple[Pixels, tuple[int, int]]:
    """The analysis image of a slide, and its height and width before padding."""
    reader = open_slide(path)
    if reader.needs_decoding:
        reader.decode_to(scratch / "slide.npy")
        reader = DecodedImage(scratch / "slide.npy", reader)
    grid = SlideGrid(reader.levels[0], raw_um, um)
    image = np.full((*grid.shape_px, 3), 255, np.uint8)
    for tile in Region(0, grid.shape_px[0], 0, grid.shape_px[1]).tiles(2048):
        window = source_region(grid, reader.levels[0], tile)
        if window is not None:
            image[tile.slices] = resample(reader.read(0, window), window, tile, grid, reader.levels[0])
    reader.close()
    return image, grid.content_shape_px


@cache
def painted(shape: tuple[int, int] = (1536, 2048), stain: float = 1.0) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Glass with three fragments of tissue (nuclei in eosin), and which superpixels they cover for the most part."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.hypot(y - 600, (x - 700) * 0.8) < 380
    inside |= np.hypot(y - 1200, x - 1600) < 200
    inside |= (np.abs(y - 300) < 90) & (np.abs(x - 1700) < 150)
    nuclei = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    density = 0.12 * np.array([0.1, 0.9, 0.4]) + (nuclei > 0.05)[..., None] * np.array([0.45, 0.5, 0.2])
    density = ndimage.gaussian_filter(density, (1.5, 1.5, 0)) * inside[..., None] * stain
    glass = np.array([238.0, 236, 239]) + rng.normal(0, 1.5, (*shape, 1))
    truth = inside.reshape(shape[0] // 16, 16, shape[1] // 16, 16).mean((1, 3)) > 0.5
    return (glass * 10**-density).clip(0, 255).astype(np.uint8), truth


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def strokes(image: Pixels, colour: tuple[int, int, int]) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Opaque pen strokes over glass and tissue, and the superpixels that are mostly ink."""
    h, w = image.shape[:2]
    layer = Image.new("L", (w, h))
    pen, width = ImageDraw.Draw(layer), max(24, w // 40)
    pen.line([(w * 0.05, h * 0.9), (w * 0.4, h * 0.3), (w * 0.9, h * 0.55)], fill=255, width=width)
    pen.ellipse([w * 0.6, h * 0.05, w * 0.6 + 9 * width, h * 0.05 + 9 * width], outline=255, width=width)
    cover = ndimage.gaussian_filter(np.asarray(layer) / 255.0, 1.5)[..., None]
    ink = (np.asarray(layer) > 0).reshape(h // 16, 16, w // 16, 16).mean((1, 3))
    return (image * (1 - cover) + cover * np.array(colour)).astype(np.uint8), ink


def shadow(image: Pixels) -> Pixels:
    across = np.clip(np.linspace(-1, 1, image.shape[1]), 0, 1)[:, None]
    return (image * (1 - 0.4 * across**1.5)).astype(np.uint8)


def hard_shadow(image: Pixels) -> Pixels:
    dark = image.copy()
    dark[:, :90] = (dark[:, :90] * 0.35).astype(np.uint8)
    return dark


def vignette(image: Pixels) -> Pixels:
    y, x = (np.linspace(-1, 1, n) for n in image.shape[:2])
    return (image * (1 - 0.15 * (y[:, None, None] ** 2 + x[:, None] ** 2))).astype(np.uint8)


def jpeg(image: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=15)
    return np.asarray(Image.open(buffer))


def noisy(image: Pixels) -> Pixels:
    noise = np.random.default_rng(1).normal(0, 8, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def tinted(red: int, green: int, blue: int) -> Callable[[Pixels], Pixels]:
    return lambda image: (image * (np.array([red, green, blue]) / 255)).astype(np.uint8)


DISTURBED: dict[str, Callable[[Pixels], Pixels]] = {
    "shadow": shadow,
    "hard shadow": hard_shadow,
    "vignette": vignette,
    "grey glass": tinted(205, 205, 205),
    "yellow glass": tinted(245, 230, 185),
    "jpeg": jpeg,
    "noise": noisy,
}
INKS = {"blue": (30, 50, 170), "green": (20, 130, 60), "black": (25, 25, 30), "red": (205, 30, 45)}


def test_fragments_are_found() -> None:
    image, truth = painted()
    assert overlap(tissue_mask(image), truth) > 0.95


@pytest.mark.parametrize("stain", [0.5, 0.25])
def test_pale_tissue_is_kept(stain: float) -> None:
    image, truth = painted(stain=stain)
    assert overlap(tissue_mask(image), truth) > 0.93


@pytest.mark.parametrize("what", DISTURBED)
def test_the_slide_may_be_shaded_tinted_or_noisy(what: str) -> None:
    image, truth = painted()
    assert overlap(tissue_mask(DISTURBED[what](image)), truth) > 0.92


@pytest.mark.parametrize("colour", INKS)
def test_pen_strokes_are_not_tissue(colour: str) -> None:
    image, truth = painted()
    marked, ink = strokes(image, INKS[colour])
    mask = tissue_mask(marked)
    assert mask[ink > 0.5].mean() < 0.1
    away = ~ndimage.binary_dilation(ink > 0, iterations=3)
    assert overlap(mask & away, truth & away) > 0.93


@pytest.mark.parametrize("grey", [255, 235, 190])
def test_a_slide_without_tissue_has_none(grey: int) -> None:
    image = np.full((1024, 1024, 3), grey, np.uint8)
    for disturb in (np.copy, shadow, hard_shadow, vignette, noisy):
        assert not tissue_mask(disturb(image)).any()


def test_the_mask_does_not_depend_on_regions_nor_on_the_level_read() -> None:
    image, _ = painted()
    overview = halve(image)
    model, classes = learn_tissue(overview, 2 * UM, 2)
    levels = [image]
    for _ in range(4):
        levels.append(halve(levels[-1]))
    h, w = levels[4].shape[:2]
    full = superpixel_mask(levels[4], Region(0, h, 0, w), model, classes)
    for side in (13, 32):
        for region in Region(0, h, 0, w).tiles(side):
            part = superpixel_mask(levels[4][region.slices], region, model, classes)
            assert np.array_equal(part, full[region.slices])
    finer = superpixel_mask(levels[2], Region(0, h, 0, w), model, classes)
    assert (finer != full).mean() < 0.002  # means of rounded means


def test_a_coarse_overview_decides_alike() -> None:
    """Where the overview is coarser than superpixels, each superpixel at an edge is decided by its own colour."""
    image, truth = painted((1536, 2304))
    mask = tissue_mask(image, overview_px=image.shape[0] * image.shape[1] // 32**2)
    assert overlap(mask, truth) > 0.9


def test_the_model_survives_json() -> None:
    model, _ = learn_tissue(halve(painted()[0]), 2 * UM, 2)
    assert TissueModel.from_json(json.loads(json.dumps(dataclasses.asdict(model)))) == model


def test_pixels_of_another_region_are_refused() -> None:
    model, classes = learn_tissue(halve(painted()[0]), 2 * UM, 2)
    with pytest.raises(ValueError, match="are not those of"):
        superpixel_mask(np.zeros((20, 10, 3), np.uint8), Region(0, 10, 0, 10), model, classes)


@pytest.mark.real
@pytest.mark.parametrize(
    "section", ["C3", pytest.param("C4", marks=pytest.mark.full), pytest.param("C5", marks=pytest.mark.full)]
)
def test_spots_under_tissue_are_tissue(data_dir: Path, tmp_path: Path, section: str) -> None:
    image, content = read_analysis(data_dir / f"her2st/{section}.jpg", tmp_path, 0.688, 0.75)
    mask = tissue_mask(image, 0.75)
    spots = pd.read_csv(data_dir / f"her2st/{section}.spots.tsv", sep="\t").query("selected == 1")
    rows, columns = (np.floor(spots[c] * 0.688 / 0.75 / 16).astype(int) for c in ("pixel_y", "pixel_x"))
    assert mask[rows, columns].mean() > 0.97
    assert 0.15 < mask.sum() * 16**2 / (content[0] * content[1]) < 0.22  # the haze of stain is not tissue


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "um", "low", "high"),
    [
        ("st_mob/MOB1.jpg", 4.6, 0.09, 0.12),
        ("st_mob/MOB2.jpg", 4.6, 0.10, 0.13),
        ("h5ad/NCBI858.jpg", 0.5, 0.70, 0.80),
        ("landmarks/Rat-Kidney_HE.jpg", 5, 0.60, 0.68),
        ("landmarks/Rat-Kidney_PanCytokeratin.jpg", 5, 0.60, 0.68),
        ("slides/cmu-1-small-region.svs", 0.5, 0.34, 0.42),
        ("slides/tcga-cr-7395-jp2k.svs", 0.5, 0.58, 0.67),
        ("slides/he.ome.tif", 0.5, 0.68, 0.78),
        ("visium/spatial/tissue_hires_image.png", 1, 0.0, 0.0),
    ],
)
def test_share_of_real_slides_that_is_tissue(
    data_dir: Path, tmp_path: Path, name: str, um: float, low: float, high: float
) -> None:
    """Bounds around masks that were checked by eye; all darker or more colourful than what is outside."""
    image, content = read_analysis(data_dir / name, tmp_path, um, um)
    mask = tissue_mask(image, um)
    assert low <= mask.sum() * 16**2 / (content[0] * content[1]) <= high
    if mask.any():
        means = image.reshape(mask.shape[0], 16, mask.shape[1], 16, 3).mean((1, 3))
        assert means[mask].min(-1).mean() < means[~mask].min(-1).mean() - 10


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "y", "x"), [("slides/tcga-cr-7395-jp2k.svs", 1400, 1200), ("slides/he.ome.tif", 300, 400)]
)
def test_a_slide_that_is_tissue_to_its_borders_is_all_tissue(data_dir: Path, name: str, y: int, x: int) -> None:
    reader = open_slide(data_dir / name)
    crop = reader.read(0, Region(y, y + 768, x, x + 768))
    reader.close()
    assert tissue_mask(crop).mean() > 0.98

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide import reader as reader_module
from iscale.slide.base import SlideReader
from iscale.slide.flat_reader import DecodedImage, FlatImage
from iscale.slide.reader import OpenSlideReader
from iscale.slide.tiff_reader import TiffReader


def picture(h: int = 700, w: int = 900) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([x % 256, y % 256, (x + y) // 7 % 256], axis=-1).astype(np.uint8)


IMAGE = picture()
PLANES = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
OPENED: list[SlideReader] = []


def open_slide(path: Path) -> SlideReader:
    OPENED.append(reader_module.open_slide(path))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def _close_readers() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


REGION = Region(201, 517, 130, 702)

KINDS: dict[str, tuple[Any, dict[str, Any], type]] = {
    "tiled.tif": (IMAGE, {"tile": (256, 256)}, OpenSlideReader),
    "tiled-deflate.tiff": (IMAGE, {"tile": (256, 256), "compression": "zlib", "predictor": True}, OpenSlideReader),
    "strips.tif": (IMAGE, {"rowsperstrip": 37, "compression": "lzw"}, TiffReader),
    "strips-plain.tif": (IMAGE, {"rowsperstrip": 64}, TiffReader),
    "one-strip.tif": (IMAGE, {"rowsperstrip": 700, "compression": "zlib"}, TiffReader),
    "planar.tif": (PLANES, {"tile": (128, 128), "photometric": "rgb", "planarconfig": "separate"}, TiffReader),
    "planar-strips.tif": (PLANES, {"rowsperstrip": 50, "photometric": "rgb", "planarconfig": "separate"}, TiffReader),
    "pages.ome.tif": (
        PLANES,
        {"tile": (128, 128), "photometric": "minisblack", "metadata": {"axes": "CYX"}},
        TiffReader,
    ),
    "rgb.ome.tiff": (IMAGE, {"tile": (256, 256), "compression": "zlib", "metadata": {"axes": "YXS"}}, TiffReader),
    "big.tif": (IMAGE, {"tile": (256, 256), "bigtiff": True}, OpenSlideReader),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_lossless_tiff_gives_its_pixels(tmp_path: Path, name: str) -> None:
    data, options, reader_class = KINDS[name]
    tifffile.imwrite(tmp_path / name, data, **options)
    reader = open_slide(tmp_path / name)
    assert isinstance(reader, reader_class)
    assert reader.levels == ((700, 900),)
    assert np.array_equal(reader.read(0, REGION), IMAGE[REGION.slices])
    assert np.array_equal(reader.read(0, Region(0, 700, 0, 900)), IMAGE)


@pytest.mark.parametrize("tiled", [True, False])
def test_grey_is_expanded_and_inverted_grey_turned(tmp_path: Path, tiled: bool) -> None:
    grey, layout = IMAGE[..., 0], {"tile": (256, 256)} if tiled else {"rowsperstrip": 90}
    tifffile.imwrite(tmp_path / "g.tif", grey, photometric="minisblack", **layout)
    tifffile.imwrite(tmp_path / "w.tif", 255 - grey, photometric="miniswhite", **layout)
    expected = np.repeat(grey[REGION.slices][..., None], 3, 2)
    for name in ("g.tif", "w.tif"):
        assert np.array_equal(open_slide(tmp_path / name).read(0, REGION), expected), name


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.full((700, 900, 1), 255, np.uint8)
    alpha[:300] = 0
    rgba = np.concatenate([IMAGE, alpha], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", rgba, tile=(256, 256), photometric="rgb", extrasamples=["unassalpha"])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    png = open_slide(tmp_path / "a.png")
    png.decode_to(tmp_path / "a.npy")
    for reader in (open_slide(tmp_path / "a.tif"), DecodedImage(tmp_path / "a.npy", png)):
        pixels = reader.read(0, Region(0, 700, 0, 900))
        assert (pixels[:300] == 255).all()
        assert np.array_equal(pixels[300:], IMAGE[300:])


def test_pyramids_in_subifds_and_in_pages(tmp_path: Path) -> None:
    half = IMAGE[::2, ::2]
    with tifffile.TiffWriter(tmp_path / "sub.ome.tif") as tiff:
        tiff.write(IMAGE, tile=(128, 128), subifds=1, metadata={"axes": "YXS"})
        tiff.write(half, tile=(128, 128), subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as tiff:
        tiff.write(IMAGE, tile=(128, 128))
        tiff.write(half, tile=(128, 128), subfiletype=1)
    for name in ("sub.ome.tif", "pages.tif"):
        reader = open_slide(tmp_path / name)
        assert reader.levels == ((700, 900), (350, 450))
        inside = Region(17, 300, 33, 411)
        assert np.array_equal(reader.read(1, inside), half[inside.slices]), name


@pytest.mark.parametrize(
    ("options", "um"),
    [
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (96, 96), "resolutionunit": "INCH"}, None),
        ({"resolution": (20000, 20000), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("tiled", [True, False])
def test_tiff_resolution_tags(tmp_path: Path, options: dict[str, Any], um: float | None, tiled: bool) -> None:
    layout = {"tile": (256, 256)} if tiled else {"rowsperstrip": 64}
    tifffile.imwrite(tmp_path / "r.tif", IMAGE, **layout, **options)
    reader = open_slide(tmp_path / "r.tif")
    assert reader.pixel_size_um == (None if um is None else pytest.approx(um))
    assert "r.tif" in reader.pixel_size_source or um is None


@pytest.mark.parametrize(
    ("size", "unit", "um"), [(0.25, "µm", 0.25), (250, "nm", 0.25), (0.0005, "mm", 0.5), (3, "pixel", None)]
)
def test_ome_units(tmp_path: Path, size: float, unit: str, um: float | None) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeXUnit": unit}
    metadata |= {"PhysicalSizeY": size, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "o.ome.tif", IMAGE, tile=(256, 256), metadata=metadata)
    assert open_slide(tmp_path / "o.ome.tif").pixel_size_um == (None if um is None else pytest.approx(um))


def test_pixels_that_are_not_square_are_no_size(tmp_path: Path) -> None:
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.6}
    tifffile.imwrite(tmp_path / "o.ome.tif", IMAGE, tile=(256, 256), metadata=metadata)
    reader = open_slide(tmp_path / "o.ome.tif")
    assert reader.pixel_size_um is None
    assert "0.5 um wide, 0.6 um high" in reader.pixel_size_source


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "L"), ("a.png", "P"), ("a.jpg", "L")])
def test_flat_images_are_decoded_once_then_read(tmp_path: Path, name: str, mode: str) -> None:
    image = Image.fromarray(IMAGE).convert(mode)
    image.save(tmp_path / name)
    flat = open_slide(tmp_path / name)
    assert flat.needs_decoding
    assert flat.pixel_size_um is None
    flat.decode_to(tmp_path / "a.npy")
    decoded = DecodedImage(tmp_path / "a.npy", flat)
    assert not decoded.needs_decoding
    with Image.open(tmp_path / name) as again:
        assert np.array_equal(decoded.read(0, REGION), np.asarray(again.convert("RGB"))[REGION.slices])
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_honest_slides_beyond_pillows_limit_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    flat = open_slide(tmp_path / "big.png")
    flat.decode_to(tmp_path / "big.npy")
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_what_does_not_fit_into_memory_is_refused_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    flat = open_slide(tmp_path / "a.png")
    flat.decoding_bytes = 1 << 50
    with pytest.raises(InputError, match=r"(?s)700 x 900 px.*GB of memory.*are free.*tiled"):
        flat.decode_to(tmp_path / "a.npy")
    assert not (tmp_path / "a.npy").exists()


def bad_files(folder: Path) -> dict[str, str]:
    """File name -> what the message must say."""
    (folder / "empty.svs").touch()
    (folder / "folder.tif").mkdir()
    (folder / "text.png").write_text("spot\tx\ty\n")
    (folder / "text.tif").write_text("spot\tx\ty\n")
    (folder / "text.svs").write_text("spot\tx\ty\n")
    (folder / "text.mrxs").write_text("spot\tx\ty\n")
    (folder / "slide.bmp").write_text("BM")
    tifffile.imwrite(folder / "deep.tif", IMAGE.astype(np.uint16) * 200, tile=(256, 256), photometric="rgb")
    tifffile.imwrite(folder / "deep-grey.tif", IMAGE[..., 0].astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(folder / "float.tif", IMAGE[..., 0].astype(np.float32))
    tifffile.imwrite(folder / "stack.tif", np.zeros((5, 64, 64), np.uint8), photometric="minisblack")
    tifffile.imwrite(
        folder / "five.ome.tif", np.zeros((5, 64, 64), np.uint8), photometric="minisblack", metadata={"axes": "CYX"}
    )
    Image.fromarray(IMAGE[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    for name, options in {"cut.tif": {"tile": (256, 256)}, "cut-strips.tif": {"rowsperstrip": 64}}.items():
        tifffile.imwrite(folder / name, IMAGE, **options)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    whole = (folder / "cut.tif").read_bytes()
    (folder / "cut-in-header.tif").write_bytes(whole[:60])
    return {
        "missing.svs": "does not exist",
        "empty.svs": "is empty",
        "folder.tif": "is a folder",
        "text.png": "it is text",
        "text.tif": "not a readable TIFF",
        "text.svs": "not a readable TIFF",
        "text.mrxs": "not a MIRAX slide",
        "slide.bmp": "suffix '.bmp'",
        "deep.tif": "16 bits",
        "deep-grey.tif": "16 bits",
        "float.tif": "32 bits",
        "stack.tif": "stack",
        "five.ome.tif": "5 channels",
        "deep.png": "16 bits",
        "cut.tif": "is cut off",
        "cut-strips.tif": "is cut off",
        "cut-in-header.tif": "not a readable TIFF",
    }


def test_every_bad_file_has_one_clear_message(tmp_path: Path) -> None:
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            open_slide(tmp_path / name)
        assert words in str(caught.value), name
        assert str(tmp_path / name) in str(caught.value), name
        assert caught.value.remedy, name


@pytest.mark.parametrize("name", ["t.tif", "t.ome.tif"])
def test_a_damaged_tile_is_told_when_it_is_read(tmp_path: Path, name: str) -> None:
    tifffile.imwrite(tmp_path / name, IMAGE, tile=(256, 256), compression="zlib", metadata={"axes": "YXS"})
    with tifffile.TiffFile(tmp_path / name) as tiff:
        offset, count = tiff.pages[0].dataoffsets[-1], tiff.pages[0].databytecounts[-1]
    data = bytearray((tmp_path / name).read_bytes())
    data[offset : offset + count] = bytes(count)
    (tmp_path / name).write_bytes(data)
    reader = open_slide(tmp_path / name)
    assert np.array_equal(reader.read(0, Region(0, 100, 0, 100)), IMAGE[:100, :100])
    with pytest.raises(InputError, match=rf"{name}: region y .* of level 0 cannot be read"):
        reader.read(0, Region(600, 700, 800, 900))


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_a_cut_flat_image_is_told_when_it_is_decoded(tmp_path: Path, name: str) -> None:
    Image.fromarray(IMAGE).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    flat = open_slide(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} cannot be decoded"):
        flat.decode_to(tmp_path / "cut.npy")
    assert not (tmp_path / "cut.npy").exists()


def test_a_region_outside_is_the_callers_mistake(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", IMAGE, tile=(256, 256))
    with pytest.raises(ValueError, match="reaches out"):
        open_slide(tmp_path / "t.tif").read(0, Region(0, 701, 0, 10))


@pytest.mark.parametrize("name", ["wide.tif", "wide.ome.tif"])
def test_memory_of_a_read_is_that_of_the_region(tmp_path: Path, name: str) -> None:
    image = np.zeros((6000, 6000, 3), np.uint8)
    tifffile.imwrite(tmp_path / name, image, tile=(512, 512), compression="zlib", metadata={"axes": "YXS"})
    reader = open_slide(tmp_path / name)
    region = Region(1000, 2000, 1000, 2000)
    reader.read(0, region)
    tracemalloc.start()
    reader.read(0, region)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * region.area + 14 * 1024**2


def test_strips_too_large_or_too_wide_ask_for_decoding(tmp_path: Path) -> None:
    tall = np.zeros((6000, 6000), np.uint8)
    tall[100, 200] = 9
    tifffile.imwrite(tmp_path / "one.tif", tall, rowsperstrip=6000, compression="zlib")
    rgb = np.zeros((20, 17000, 3), np.uint8)
    tifffile.imwrite(tmp_path / "wide.tif", rgb, rowsperstrip=4, compression="zlib")
    tifffile.imwrite(tmp_path / "mapped.tif", np.zeros((5000, 5000, 3), np.uint8), rowsperstrip=5000)
    assert not open_slide(tmp_path / "mapped.tif").needs_decoding  # uncompressed in one piece: memory-mapped
    assert not open_slide(tmp_path / "one.tif").needs_decoding  # 36 MB
    assert open_slide(tmp_path / "wide.tif").needs_decoding
    reader = open_slide(tmp_path / "wide.tif")
    reader.decode_to(tmp_path / "wide.npy")
    assert np.array_equal(DecodedImage(tmp_path / "wide.npy", reader).read(0, Region(0, 20, 0, 17000)), rgb)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "shape", "um", "kind"),
    [
        ("slides/cmu-1-small-region.svs", (2967, 2220), 0.499, OpenSlideReader),
        ("slides/tcga-cr-7395-jp2k.svs", (3567, 4443), None, OpenSlideReader),
        ("slides/he.ome.tif", (1484, 1380), 0.50008, TiffReader),
        ("real/ndpi/test3-DAPI-2-_387_.ndpi", (4864, 3968), 0.228175, OpenSlideReader),
        ("st_mob/MOB1.jpg", (1905, 1905), None, FlatImage),
        ("visium/spatial/tissue_hires_image.png", (1998, 2000), None, FlatImage),
    ],
)
def test_real_slides(
    data_dir: Path, tmp_path: Path, name: str, shape: tuple[int, int], um: float | None, kind: type
) -> None:
    reader = open_slide(data_dir / name)
    assert isinstance(reader, kind)
    assert reader.levels[0] == shape
    assert reader.pixel_size_um == (None if um is None else pytest.approx(um, rel=1e-4))
    if reader.needs_decoding:
        reader.decode_to(tmp_path / "image.npy")
        reader = DecodedImage(tmp_path / "image.npy", reader)
        with Image.open(data_dir / name) as image:
            white = Image.new("RGBA", image.size, "white")
            expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    else:
        expected = tifffile.imread(data_dir / name, series=0)
    region = Region(shape[0] // 3, shape[0] // 2, shape[1] // 3, shape[1] // 2)
    assert np.array_equal(reader.read(0, region), expected[region.slices])


@pytest.mark.real
def test_lower_levels_of_openslide_do_not_depend_on_the_region(data_dir: Path) -> None:
    """The level is 2.0005 times smaller: OpenSlide by itself shifts by part of a pixel, depending on the region."""
    reader = open_slide(data_dir / "slides/tcga-cr-7395-jp2k.svs")
    h, w = reader.levels[1]
    full = reader.read(1, Region(0, h, 0, w))
    for region in (Region(501, 900, 1001, 1400), Region(1000, 1500, 1000, 2000), Region(7, 8, 2000, 2221)):
        assert np.array_equal(reader.read(1, region), full[region.slices])


@pytest.mark.real
def test_a_cut_svs_is_refused(data_dir: Path, tmp_path: Path) -> None:
    whole = (data_dir / "slides/cmu-1-small-region.svs").read_bytes()
    for share in (0.02, 0.3, 0.6):
        (tmp_path / "cut.svs").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"cut\.svs"):
            open_slide(tmp_path / "cut.svs").read(0, Region(0, 2967, 0, 2220))

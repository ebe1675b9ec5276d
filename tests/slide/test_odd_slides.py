"""Slides as people have them: other images in the file, odd metadata, other compressions, names and alpha."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide import reader as reader_module
from iscale.slide import tiff_reader
from iscale.slide.base import SlideReader
from iscale.slide.openslide_reader import OpenSlideReader

Y, X = np.mgrid[:600, :900]
IMAGE = np.stack([X % 256, Y % 256, (X + Y) // 7 % 256], axis=-1).astype(np.uint8)
SMALL = np.ascontiguousarray(IMAGE[::8, ::8])
WHOLE = Region(0, 600, 0, 900)
UM4 = {"resolution": (2500, 2500), "resolutionunit": "CENTIMETER"}
HALF_UM = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
LAYOUTS: list[dict[str, Any]] = [
    {"tile": (128, 128), "compression": "zlib"},
    {"rowsperstrip": 64, "compression": "lzw"},
    {"tile": (128, 128)},
    {"rowsperstrip": 32},
]


OPENED: list[SlideReader] = []


def open_slide(path: Path) -> SlideReader:
    OPENED.append(reader_module.open_slide(path))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def _close_readers() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def opened(path: Path) -> SlideReader:
    """The reader of a slide that shows `IMAGE`."""
    reader = open_slide(path)
    assert reader.levels[0] == (600, 900)
    assert np.array_equal(reader.read(0, WHOLE), IMAGE)
    return reader


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("first", [True, False])
def test_the_pixel_size_is_that_of_the_slide_not_of_a_thumbnail(
    tmp_path: Path, layout: dict[str, Any], first: bool
) -> None:
    images = [(SMALL, UM4), (IMAGE, HALF_UM)]
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        for data, size in images if first else images[::-1]:
            tiff.write(data, photometric="rgb", metadata=None, **size, **layout)
    reader = opened(tmp_path / "s.tif")
    assert reader.pixel_size_um == pytest.approx(0.5)
    assert reader.notices == (
        f"the file holds 2 images ({'113 x 75, 900 x 600' if first else '900 x 600, 113 x 75'} px): the slide is taken "
        "to be that of 900 x 600 px",
    )


def test_a_slide_without_a_size_does_not_take_that_of_its_thumbnail(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        tiff.write(SMALL, photometric="rgb", metadata=None, **UM4)
        tiff.write(IMAGE, photometric="rgb", metadata=None, tile=(128, 128))
    assert opened(tmp_path / "s.tif").pixel_size_um is None


def write_ome(path: Path, images: list[tuple[np.ndarray, str, float]]) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for data, name, um in images:
            size = {"PhysicalSizeX": um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um, "PhysicalSizeYUnit": "µm"}
            levels = 1 if data.shape == IMAGE.shape else 0
            tiff.write(
                data, photometric="rgb", tile=(128, 128), subifds=levels, metadata={"axes": "YXS", "Name": name, **size}
            )
            if levels:
                tiff.write(data[::2, ::2], photometric="rgb", tile=(128, 128), subfiletype=1)


@pytest.mark.parametrize(
    "images",
    [
        [(SMALL, "overview", 4.0), (IMAGE, "slide", 0.5)],
        [(IMAGE, "slide", 0.5), (SMALL, "overview", 4.0)],
        [(IMAGE.max() - IMAGE, "macro image", 4.0), (IMAGE, "slide", 0.5)],
        [(IMAGE, "tissue", 0.5), (IMAGE.max() - IMAGE, "other tissue", 0.25)],
        [(np.pad(IMAGE, ((0, 99), (0, 0), (0, 0))), "label", 9.0), (IMAGE, "", 0.5)],
    ],
)
def test_ome_metadata_are_those_of_the_slide(tmp_path: Path, images: list[tuple[np.ndarray, str, float]]) -> None:
    write_ome(tmp_path / "s.ome.tif", images)
    reader = opened(tmp_path / "s.ome.tif")
    assert reader.levels == ((600, 900), (300, 450))
    assert reader.pixel_size_um == pytest.approx(0.5)


APERIO = "Aperio Image Library v11.2.1 \n900x600 [0,0 900x600] (128x128) JPEG/RGB Q=70|AppMag = 20"


@pytest.mark.parametrize(
    ("said", "um"),
    [
        ("|MPP = 0", None),
        ("|MPP = -0.25", None),
        ("|MPP = 1e9", None),
        ("|MPP = ?", None),
        ("", None),
        ("|MPP = 0.5", 0.5),
        ("|MPP = 0.2500|Left = 3", 0.25),
    ],
)
@pytest.mark.parametrize("compression", ["jpeg", "webp"])
def test_an_impossible_size_of_a_scanner_is_no_size(
    tmp_path: Path, said: str, um: float | None, compression: str
) -> None:
    """OpenSlide does not read WebP: tifffile then does, and knows the size as well."""
    tifffile.imwrite(
        tmp_path / "s.svs",
        IMAGE,
        tile=(128, 128),
        photometric="rgb",
        compression=compression,
        compressionargs={"level": 101 if compression == "webp" else 95},
        description=APERIO + said,
        metadata=None,
    )
    reader = open_slide(tmp_path / "s.svs")
    assert isinstance(reader, OpenSlideReader) == (compression == "jpeg")
    assert reader.levels == ((600, 900),)
    assert reader.pixel_size_um == um
    if said in ("|MPP = 0", "|MPP = 1e9"):
        assert "um, which no slide has" in reader.pixel_size_source
    if compression == "webp":
        assert np.array_equal(reader.read(0, WHOLE), IMAGE)


@pytest.mark.parametrize("compression", ["webp", "zstd", "jpegxl", "jpeg2000", "lerc"])
def test_what_openslide_does_not_read_tifffile_does(tmp_path: Path, compression: str) -> None:
    lossless = {"webp": {"level": 101}, "jpegxl": {"lossless": True}, "jpeg2000": {"reversible": True}}
    with tifffile.TiffWriter(tmp_path / "s.tif") as tiff:
        kinds: dict[str, Any] = {"compression": compression, "compressionargs": lossless.get(compression)}
        tiff.write(IMAGE, tile=(128, 128), photometric="rgb", metadata=None, **kinds, **HALF_UM)
        tiff.write(IMAGE[::2, ::2], tile=(128, 128), photometric="rgb", metadata=None, subfiletype=1, **kinds)
    reader = opened(tmp_path / "s.tif")
    assert reader.levels == ((600, 900), (300, 450))
    assert np.array_equal(reader.read(1, Region(0, 300, 0, 450)), IMAGE[::2, ::2])
    assert reader.pixel_size_um == pytest.approx(0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_compression_that_nobody_reads_is_said_so(tmp_path: Path, layout: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "s.tif", IMAGE, photometric="rgb", metadata=None, **layout)
    with tifffile.TiffFile(tmp_path / "s.tif", mode="r+b") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(32908)
    with pytest.raises(InputError, match=r"s\.tif is compressed in a way that is not read \(.*32908.*\)") as caught:
        open_slide(tmp_path / "s.tif")
    assert "JPEG" in caught.value.remedy


def test_a_tile_that_only_one_reader_decodes_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "s.tif", IMAGE, tile=(128, 128), photometric="rgb", metadata=None, compression="zlib")
    reader = open_slide(tmp_path / "s.tif")
    assert isinstance(reader, OpenSlideReader)

    def fails(*_: object) -> None:
        raise openslide.OpenSlideError("no such decoder")

    monkeypatch.setattr(openslide.OpenSlide, "read_region", fails)
    assert np.array_equal(reader.read(0, WHOLE), IMAGE)
    assert np.array_equal(opened(tmp_path / "s.tif").read(0, WHOLE), IMAGE)


ALPHA = np.where((Y // 100 % 2 == 0)[..., None], 255, X[..., None] % 256).astype(np.uint8)
SHARE = ALPHA / 255
PREMULTIPLIED = np.round(IMAGE * SHARE).astype(np.uint8)
ON_WHITE = np.floor((IMAGE * SHARE + 255 * (1 - SHARE)) + 0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    ("kind", "colours", "alpha", "expected", "off"),
    [
        ("unspecified", IMAGE, ALPHA, IMAGE, 0),
        ("unspecified", IMAGE, ALPHA * 0, IMAGE, 0),
        ("unassalpha", IMAGE, ALPHA, ON_WHITE, 0),
        ("unassalpha", IMAGE, ALPHA * 0 + 255, IMAGE, 0),
        ("assocalpha", PREMULTIPLIED, ALPHA, ON_WHITE, 1),
        ("assocalpha", IMAGE, ALPHA * 0 + 255, IMAGE, 0),
    ],
)
def test_a_sample_beside_the_colours_is_what_the_file_says(
    tmp_path: Path, layout: dict[str, Any], grey: bool, kind: str, colours: Any, alpha: Any, expected: Any, off: int
) -> None:
    data = np.concatenate([colours[..., :1] if grey else colours, alpha], axis=2)
    photometric = "minisblack" if grey else "rgb"
    tifffile.imwrite(
        tmp_path / "s.tif", data, photometric=photometric, planarconfig="contig", extrasamples=[kind], **layout
    )
    reader = open_slide(tmp_path / "s.tif")
    wanted = np.repeat(expected[..., :1], 3, axis=2) if grey else expected
    assert np.abs(reader.read(0, WHOLE) - wanted.astype(float)).max() <= off
    assert any("not said to be alpha" in notice for notice in reader.notices) == (kind == "unspecified")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_a_slide_that_is_transparent_everywhere_is_told(tmp_path: Path, layout: dict[str, Any], kind: str) -> None:
    data = np.concatenate([IMAGE, ALPHA * 0], axis=2)
    tifffile.imwrite(tmp_path / "s.tif", data, photometric="rgb", extrasamples=[kind], **layout)
    with pytest.raises(InputError, match=r"s\.tif is transparent everywhere: alpha is 0 in all 600 x 900 px"):
        open_slide(tmp_path / "s.tif")


def test_a_png_that_is_transparent_everywhere_is_told(tmp_path: Path) -> None:
    Image.fromarray(np.concatenate([IMAGE, ALPHA * 0], axis=2)).save(tmp_path / "s.png")
    with pytest.raises(InputError, match=r"s\.png is transparent everywhere"):
        open_slide(tmp_path / "s.png").decode_to(tmp_path / "s.npy")


def test_of_a_large_slide_some_alpha_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_reader, "ALPHA_PX", 1000)
    for level, name in ((0, "none.tif"), (9, "some.tif")):
        alpha = np.where(X[..., None] > 800, level, 0).astype(np.uint8)
        data = np.concatenate([IMAGE, alpha], axis=2)
        tifffile.imwrite(tmp_path / name, data, photometric="rgb", extrasamples=["unassalpha"], tile=(128, 128))
    with pytest.raises(InputError, match="256 windows of 64 px"):
        open_slide(tmp_path / "none.tif")
    open_slide(tmp_path / "some.tif")


@pytest.mark.parametrize("name", ["s.btf", "s.BTF", "s.ome.btf", "s.tf8", "s.tif", "s.svs", "s.ndpi", "s.jpg", "s.png"])
@pytest.mark.parametrize("bigtiff", [True, False])
def test_a_tiff_is_read_whatever_its_suffix(tmp_path: Path, name: str, bigtiff: bool) -> None:
    tifffile.imwrite(
        tmp_path / name, IMAGE, tile=(128, 128), photometric="rgb", bigtiff=bigtiff, metadata=None, ome=False, **HALF_UM
    )
    assert opened(tmp_path / name).pixel_size_um == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["s.png", "s.jpg", "s.tif", "s.svs", "s.dcm"])
def test_a_png_is_read_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    Image.fromarray(IMAGE).save(tmp_path / name, "PNG")
    reader = open_slide(tmp_path / name)
    reader.decode_to(tmp_path / "s.npy")
    assert np.array_equal(np.load(tmp_path / "s.npy"), IMAGE)


@pytest.mark.parametrize("written", [0, 1])
def test_a_tiff_that_leaves_tiles_out_is_white_there_and_has_no_bounds(tmp_path: Path, written: int) -> None:
    data = np.full((600, 900, 3), 90, np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", data, tile=(128, 128), photometric="rgb", compression="zlib", metadata=None)
    with tifffile.TiffFile(tmp_path / "s.tif", mode="r+b") as tiff:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tiff.pages[0].tags[name]
            tag.overwrite([value if written and i == 9 else 0 for i, value in enumerate(tag.value)])
    reader = open_slide(tmp_path / "s.tif")
    assert reader.bounds is None
    expected = np.full((600, 900, 3), 255, np.uint8)
    if written:
        expected[128:256, 128:256] = 90
    assert np.array_equal(reader.read(0, WHOLE), expected)

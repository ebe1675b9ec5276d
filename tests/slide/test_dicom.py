from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide.dicom import held_by, ycbcr_to_rgb
from iscale.slide.reader import open_slide

COLOURS = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def test_what_a_jpeg_holds_is_told_by_its_markers() -> None:
    for options in ({}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:0"}):
        file = io.BytesIO()
        Image.fromarray(COLOURS).save(file, "JPEG", **options)
        assert held_by(file.getvalue()) == "YCbCr", options
    as_rgb = imagecodecs.jpeg8_encode(COLOURS, colorspace="RGB", outcolorspace="RGB")
    assert held_by(as_rgb) == "RGB"
    assert held_by(b"") is None
    assert held_by(b"\xff\xd8\xff") is None


def test_colours_are_those_that_libjpeg_makes() -> None:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "JPEG", quality=90)
    stored = imagecodecs.jpeg8_decode(file.getvalue(), colorspace="YCBCR", outcolorspace="YCBCR")
    with Image.open(file) as image:
        assert np.array_equal(ycbcr_to_rgb(stored), np.asarray(image))


@pytest.mark.real
def test_a_dicom_slide_has_the_pixels_of_the_slide_that_it_was_made_of(data_dir: Path, tmp_path: Path) -> None:
    """Its header says RGB, its frames hold YCbCr; they were compressed anew."""
    original = open_slide(data_dir / "slides/cmu-1-small-region.svs")
    folder = data_dir / "real/dicom"
    data = (folder / "level-0-frames-0-30.dcm").read_bytes()
    with Image.open(io.BytesIO(data[data.index(b"\xff\xd8\xff") :])) as image:
        frame = np.asarray(image)
    file = folder / "level-3-frames-0-1.dcm"  # any file of the series stands for all of it
    (tmp_path / "link.dcm").symlink_to(file)
    whole = Region(0, 2967, 0, 2220)
    expected = original.read(0, whole).astype(int)
    for path in (file, tmp_path / "link.dcm"):
        reader = open_slide(path)
        assert len(reader.levels) == 12
        assert reader.levels[:3] == ((2967, 2220), (1483, 1110), (741, 555))
        assert reader.pixel_size_um == pytest.approx(0.499, rel=1e-4)
        assert "YCbCr" in reader.notices[0]
        pixels = reader.read(0, whole)
        assert np.array_equal(pixels[:500, :500], frame)
        assert np.abs(pixels - expected).mean() < 4
        assert np.abs((pixels - expected).mean((0, 1))).max() < 0.5
        reader.close()
    original.close()


SAYS_RGB = b"\x28\x00\x04\x00CS\x04\x00RGB "
SAYS_YBR = b"\x28\x00\x04\x00CS\x0c\x00YBR_FULL_422"
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00d\x00\x00\x00\x00\x00"


@pytest.mark.real
def test_a_dicom_slide_is_read_alike_where_its_header_is_right(data_dir: Path, tmp_path: Path) -> None:
    data = (data_dir / "real/dicom/level-3-frames-0-1.dcm").read_bytes()
    assert data.count(SAYS_RGB) == 1
    pixels = []
    for name, header in (("wrong", SAYS_RGB), ("right", SAYS_YBR)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.dcm").write_bytes(data.replace(SAYS_RGB, header))
        reader = open_slide(tmp_path / name / "s.dcm")
        pixels.append(reader.read(0, Region(0, 370, 0, 277)))
        assert len(reader.notices) == (name == "wrong")
        reader.close()
    assert np.array_equal(*pixels)
    assert pixels[0].std() > 10


@pytest.mark.real
def test_a_dicom_slide_whose_header_would_make_wrong_colours_is_refused(data_dir: Path, tmp_path: Path) -> None:
    data = (data_dir / "real/dicom/level-3-frames-0-1.dcm").read_bytes().replace(SAYS_RGB, SAYS_YBR)
    start = data.index(b"\xff\xd8\xff\xe0")
    (tmp_path / "s.dcm").write_bytes(data[: start + 2] + ADOBE_RGB + data[start + 20 :])  # in the place of JFIF's
    with pytest.raises(InputError, match=r"header says YBR_FULL_422, its JPEG frames say that they hold RGB"):
        open_slide(tmp_path / "s.dcm")


@pytest.mark.real
def test_dicom_that_openslide_does_not_read_is_refused_by_name(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "renamed.tif").write_bytes((data_dir / "slides/small_wsi.dcm").read_bytes())
    for path in (data_dir / "slides/small_wsi.dcm", tmp_path / "renamed.tif"):
        with pytest.raises(InputError, match=rf"{path.name} is a DICOM file that OpenSlide does not read") as caught:
            open_slide(path)
        assert "series" in caught.value.remedy
    with pytest.raises(InputError, match="is a folder") as caught:
        open_slide(data_dir / "real/dicom")
    assert "one of its .dcm files" in caught.value.remedy
    (tmp_path / "no.dcm").write_text("no DICOM at all")
    with pytest.raises(InputError, match="no DICOM slide"):
        open_slide(tmp_path / "no.dcm")

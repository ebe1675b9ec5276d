"""Folders of the first arrays: counts, detected spots and image of a section."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iscale.captures.platforms import detect_platform, read_measured
from iscale.errors import InputError


def section(folder: Path, source: Path, name: str) -> Path:
    folder.mkdir()
    for end in (".counts.tsv.gz", ".spots.tsv", ".jpg"):
        shutil.copy(source / f"{name}{end}", folder)
    return folder


def written(folder: Path, spots: str = "", counts: str = "") -> Path:
    folder.mkdir()
    (folder / "a.spots.tsv").write_text(
        spots or "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n1\t1\t1\t1\t10\t20\t1\n2\t1\t2\t1\t30\t20\t0\n"
    )
    (folder / "a.counts.tsv").write_text(counts or "\tA\tB\n1x1\t1\t0\n2x1\t2\t3\n")
    return folder


@pytest.mark.parametrize(("source", "name"), [("her2st", "C3"), ("st_mob", "MOB1")])
def test_a_real_section(data_dir: Path, tmp_path: Path, source: str, name: str) -> None:
    folder = section(tmp_path / "s", data_dir / source, name)
    measured = read_measured(folder)
    counts = pd.read_csv(folder / f"{name}.counts.tsv.gz", sep="\t", index_col=0)
    spots = pd.read_csv(folder / f"{name}.spots.tsv", sep="\t")
    spots.index = pd.Index([f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)])
    spots = spots[(spots.selected == 1) & spots.index.isin(counts.index)]
    assert detect_platform(folder) == "st"
    assert measured.spot_ids == spots.index.tolist()
    np.testing.assert_array_equal(measured.xy_px, spots[["pixel_x", "pixel_y"]])
    np.testing.assert_array_equal(measured.counts.toarray(), counts.loc[spots.index])
    assert measured.gene_symbols == counts.columns.tolist()
    assert measured.image == folder / f"{name}.jpg"


def test_an_array_of_1000_spots_tells_the_pixel_size(data_dir: Path, tmp_path: Path) -> None:
    measured = read_measured(section(tmp_path / "s", data_dir / "her2st", "C3"))
    assert measured.um_per_px == pytest.approx(0.688, rel=0.01)
    assert (measured.pitch_um, measured.spot_diameter_um) == (200, 100)


def test_spots_that_are_not_under_tissue_are_left_out(tmp_path: Path) -> None:
    measured = read_measured(written(tmp_path / "s"))
    assert measured.spot_ids == ["1x1"]
    assert "1 of 2 counted spots are not under tissue" in measured.notices[0]


@pytest.mark.parametrize(
    ("spots", "counts", "message"),
    [
        ("x\ty\tselected\n1\t1\t1\n", "", "has no column pixel_x, pixel_y"),
        ("x\ty\tpixel_x\tpixel_y\n1\t1\tten\t1\n", "", "1 of 1 rows hold something that is no number"),
        ("x\ty\tpixel_x\tpixel_y\n1\t1\t1\t1\n1\t1\t2\t2\n", "", "names a place of the array twice"),
        ("x\ty\tpixel_x\tpixel_y\tselected\n1\t1\t1\t1\t0\n", "", "names no spot under tissue"),
        ("", "\tA\n9x9\t1\n", "Only 0 of the 1 spots"),
    ],
)
def test_bad_tables_are_one_error(tmp_path: Path, spots: str, counts: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_measured(written(tmp_path / "s", spots, counts))


def test_two_images_are_one_too_many(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(InputError, match="holds 2 images"):
        read_measured(folder)


def test_counts_cut_off_are_one_error(tmp_path: Path) -> None:
    folder = written(tmp_path / "s")
    (folder / "a.counts.tsv").unlink()
    (folder / "a.counts.tsv.gz").write_bytes(gzip.compress(b"\tA\n1x1\t1\n" * 50)[:-20])
    with pytest.raises(InputError, match="truncated"):
        read_measured(folder)

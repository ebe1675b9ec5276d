"""The published pair in pixels of the capture's own image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iscale.captures.readers.tables import looks_like, read
from iscale.errors import InputError

GENES = ["ERBB2", "CD3E", "ACTB"]
ARRAY = [(i, j) for i in range(3, 9) for j in range(5, 10)]
IDS = [f"{i}x{j}" for i, j in ARRAY]
COUNTS = pd.DataFrame(np.random.default_rng(0).poisson(3, (30, 3)), index=pd.Index(IDS, name="spot"), columns=GENES)
UM = 0.625  # of a pixel


def places(um: float = UM) -> pd.DataFrame:
    """The array, turned by a third of a circle."""
    turn = np.exp(2j * np.pi / 3)
    at = np.array([complex(i, j) for i, j in ARRAY]) * turn * 200 / um
    return pd.DataFrame({"x": at.real + 3800, "y": at.imag + 1000}, index=COUNTS.index)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    COUNTS.to_csv(tmp_path / "cnts.tsv", sep="\t")
    places().to_csv(tmp_path / "locs.tsv", sep="\t")
    return tmp_path


def say(folder: Path, **numbers: float) -> None:
    for name, value in numbers.items():
        (folder / f"{name.replace('_', '-')}.txt").write_text(f"{value}\n")


def test_counts_and_positions(folder: Path) -> None:
    found = read(folder)
    assert (found.platform, found.spot_ids, found.gene_symbols, found.gene_ids) == ("tables", IDS, GENES, GENES)
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS.to_numpy())
    np.testing.assert_allclose(found.xy_px, places().to_numpy())
    assert found.image is None


def test_turned_and_compressed_with_spots_of_one_file_only(folder: Path) -> None:
    (folder / "cnts.tsv").unlink()
    COUNTS.iloc[2:].T.rename_axis("gene").to_csv(folder / "cnts.tsv.gz", sep="\t")
    found = read(folder)
    assert found.spot_ids == IDS[2:]
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS.iloc[2:].to_numpy())
    assert "2 of 30 spots in locs.tsv are not in cnts.tsv.gz" in found.notices[0]


def test_names_of_an_array_tell_the_pixel_size(folder: Path) -> None:
    found = read(folder)
    assert found.um_per_px == pytest.approx(UM)
    assert (found.pitch_um, found.spot_diameter_um) == (200, 100)
    assert "0.625 um, is that of an array whose spots are 200 um apart" in found.notices[0]


def rename(folder: Path, names: list[str]) -> None:
    for file, table in (("cnts.tsv", COUNTS), ("locs.tsv", places())):
        table.set_axis(pd.Index(names, name="spot"), axis=0).to_csv(folder / file, sep="\t")


def test_other_names_and_other_lattices_tell_nothing(folder: Path) -> None:
    rename(folder, [f"s{i}" for i in range(30)])
    assert (read(folder).um_per_px, read(folder).pitch_um, read(folder).notices) == (None, None, ())
    rename(folder, [f"{i + j}x{i - j + 20}" for i, j in ARRAY])  # every second place of each row
    assert read(folder).um_per_px is None
    rename(folder, IDS[::2] + IDS[1::2])  # not where the names say
    assert read(folder).um_per_px is None


def test_a_stated_pixel_size_counts_before_the_array(folder: Path) -> None:
    say(folder, pixel_size=0.63, radius=80)
    found = read(folder)
    assert (found.um_per_px, found.pitch_um) == (0.63, 200)
    assert found.scalefactors == {"spot_diameter_fullres": 160}
    assert found.spot_diameter_um == pytest.approx(160 * 0.63)
    say(folder, pixel_size=0.25)
    other = read(folder)
    assert (other.um_per_px, other.pitch_um) == (0.25, None)
    assert "at a pixel size of 0.625 um, not 0.25 um: check pixel-size.txt" in other.notices[-1]


def test_the_image_and_the_sizes_that_are_of_its_pixels(folder: Path) -> None:
    high, wide = 3000, 4000
    Image.new("L", (wide, high)).save(folder / "he-raw.png")
    say(folder, pixel_size_raw=0.64, radius_raw=70, pixel_size=1.28, radius=35)
    raw = read(folder)
    assert raw.image == folder / "he-raw.png"
    assert (raw.um_per_px, raw.scalefactors["spot_diameter_fullres"]) == (0.64, 140)
    Image.new("L", (wide, high)).save(folder / "he.jpg")
    own = read(folder)
    assert own.image == folder / "he.jpg"
    assert (own.um_per_px, own.scalefactors["spot_diameter_fullres"]) == (1.28, 70)
    (folder / "pixel-size.txt").unlink()
    assert read(folder).um_per_px == pytest.approx(UM)  # that of he-raw.png is another image's


def test_spots_beside_the_image_are_refused(folder: Path) -> None:
    Image.new("L", (400, 300)).save(folder / "he.png")
    with pytest.raises(InputError, match=r"100 % of 30 positions lie outside of he\.png, which is 400 px wide and 300"):
        read(folder)


def test_a_missing_half_is_one_clear_error(folder: Path) -> None:
    assert looks_like(folder)
    (folder / "locs.tsv").unlink()
    assert looks_like(folder)
    with pytest.raises(InputError, match=r"does not hold the spots' locations: looked for locs\.tsv or .* cnts\.tsv"):
        read(folder)
    (folder / "cnts.tsv").unlink()
    assert not looks_like(folder)
    assert not looks_like(folder / "cnts.tsv")


@pytest.mark.real
@pytest.mark.parametrize("section", ["C3", "C4", "C5"])
def test_her2st_has_the_pixel_size_of_its_array(data_dir: Path, tmp_path: Path, section: str) -> None:
    source = data_dir / "her2st"
    (tmp_path / "cnts.tsv.gz").write_bytes((source / f"{section}.counts.tsv.gz").read_bytes())
    spots = pd.read_csv(source / f"{section}.spots.tsv", sep="\t")
    spots["spot"] = [f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)]
    named = spots.rename(columns={"x": "array_x", "y": "array_y", "pixel_x": "x", "pixel_y": "y"})
    named.to_csv(tmp_path / "locs.tsv", sep="\t", index=False)
    (tmp_path / "he.jpg").write_bytes((source / f"{section}.jpg").read_bytes())
    found = read(tmp_path)
    assert found.um_per_px == pytest.approx(0.688, rel=0.01)
    assert (found.pitch_um, found.spot_diameter_um, found.image) == (200, 100, tmp_path / "he.jpg")
    at = {spot: (x, y) for spot, x, y in zip(spots.spot, spots.pixel_x, spots.pixel_y, strict=True)}
    np.testing.assert_allclose(found.xy_px, [at[spot] for spot in found.spot_ids])

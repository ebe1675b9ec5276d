"""Reading one capture: every accepted format gives the same capture, every fault one clear message."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from iscale.captures.measured import Measured
from iscale.captures.read import measured_radius_um, place_capture, read_aligned_capture
from iscale.captures.spots import Capture
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.project.files import CaptureFiles
from iscale.transform import Transform

GENES = ["ERBB2", "CD3E", "KRT8", "COL1A1", "ACTB"]
SPOTS = [f"s{i}" for i in range(12)]


def counts() -> pd.DataFrame:
    values = np.random.default_rng(0).poisson(2, size=(12, 5)) * np.array([100, 1, 1, 1, 0])
    return pd.DataFrame(values, index=pd.Index(SPOTS, name="spot"), columns=GENES)


def locs() -> pd.DataFrame:
    return pd.DataFrame(
        {"x": np.linspace(50, 900, 12), "y": np.linspace(400, 60, 12)}, index=pd.Index(SPOTS, name="spot")
    )


def write_tsv(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path, sep="\t")
    return path


def read(folder: Path, counts_name: str = "cnts.tsv", **options: object) -> Capture:
    files = CaptureFiles("D1", folder / counts_name, folder / "locs.tsv", None)
    settings = {"radius_um": 27.5, "pixel_size_um": 0.5, "analysis_shape_px": (512, 1024)} | options
    return read_aligned_capture(files, **settings)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tsv(counts(), tmp_path / "cnts.tsv")
    write_tsv(locs(), tmp_path / "locs.tsv")
    return tmp_path


def assert_is_the_capture(capture: Capture) -> None:
    assert (capture.spot_ids, capture.genes) == (tuple(SPOTS), tuple(GENES))
    assert capture.counts.dtype == np.float32
    np.testing.assert_array_equal(capture.counts.toarray(), counts().to_numpy())
    np.testing.assert_allclose(capture.xy_px, locs()[["x", "y"]].to_numpy())
    assert capture.notices == ()


def as_r_writes(table: pd.DataFrame, path: Path) -> Path:
    header = "\t".join(f'"{name}"' for name in table.columns)
    rows = [f'"{name}"\t' + "\t".join(map(str, row)) for name, row in zip(table.index, table.to_numpy(), strict=True)]
    path.write_bytes(("\ufeff" + "\r\n".join([header, *rows]) + "\r\n\r\n").encode())
    return path


FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame, Path], object]]] = {
    "tsv": ("cnts.tsv", write_tsv),
    "gzip": ("cnts.tsv.gz", write_tsv),
    "floats": ("cnts.tsv", lambda t, p: write_tsv(t.astype(float), p)),
    "as R writes": ("cnts.tsv", as_r_writes),
    "parquet with index": ("cnts.parquet", lambda t, p: t.to_parquet(p)),
    "parquet with column": ("cnts.parquet", lambda t, p: t.reset_index().to_parquet(p, index=False)),
    "h5ad dense": ("cnts.h5ad", lambda t, p: anndata.AnnData(t.astype(np.float32)).write_h5ad(p)),
    "h5ad sparse": (
        "cnts.h5ad",
        lambda t, p: anndata.AnnData(
            sparse.csr_matrix(t.to_numpy()), obs=pd.DataFrame(index=t.index), var=pd.DataFrame(index=t.columns)
        ).write_h5ad(p),
    ),
}


@pytest.mark.parametrize("turned", [False, True], ids=["spots x genes", "genes x spots"])
@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_format_and_orientation_is_the_same_capture(tmp_path: Path, kind: str, turned: bool) -> None:
    name, write = FORMATS[kind]
    write_tsv(locs(), tmp_path / "locs.tsv")
    write(counts().T.rename_axis("gene") if turned else counts(), tmp_path / name)
    assert_is_the_capture(read(tmp_path, name))


@pytest.mark.parametrize(
    "header", ["spot\tx\ty", "x\ty", "Barcode\tX\tY", "\tx\ty"], ids=["published", "index", "case", "pandas"]
)
def test_locations_are_found_by_name(folder: Path, header: str) -> None:
    body = (folder / "locs.tsv").read_text().split("\n", 1)[1]
    (folder / "locs.tsv").write_text(f"{header}\n{body}")
    assert_is_the_capture(read(folder))


def test_more_columns_in_another_order(folder: Path) -> None:
    write_tsv(locs().reset_index()[["y", "spot", "x"]].assign(selected=1), folder / "locs.tsv")
    assert_is_the_capture(read(folder))


def test_locations_are_scaled_to_the_analysis_image(folder: Path) -> None:
    np.testing.assert_allclose(read(folder, to_analysis=0.5).xy_px, locs().to_numpy() / 2)


def test_few_unmatched_spots_are_left_out_with_a_notice(folder: Path) -> None:
    write_tsv(counts().iloc[[3, 1, 0, 2, 4, 5, 6, 7, 8, 9]], folder / "cnts.tsv")
    write_tsv(locs().iloc[1:], folder / "locs.tsv")
    capture = read(folder)
    assert capture.spot_ids == tuple(SPOTS[1:10])
    np.testing.assert_array_equal(capture.counts.toarray(), counts().iloc[1:10].to_numpy())
    assert "2 of 11 spots in locs.tsv are not in cnts.tsv" in capture.notices[0]
    assert "1 of 10 spots in cnts.tsv are not in locs.tsv" in capture.notices[1]


def test_fractions_are_accepted_with_a_notice(folder: Path) -> None:
    write_tsv(counts() * 0.5 + 0.25, folder / "cnts.tsv")
    assert "not whole" in read(folder).notices[0]


def cell(value: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        table = counts().astype(object)
        table.loc["s3", "KRT8"] = value
        write_tsv(table, folder / "cnts.tsv")

    return write


def edit_locs(**columns: object) -> Callable[[Path], object]:
    return lambda folder: write_tsv(locs().assign(**columns), folder / "locs.tsv")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (cell("many"), r"cnts\.tsv: the count in row 's3', column 'KRT8' is 'many', not a number"),
    "no count": (cell(""), r"row 's3', column 'KRT8' is empty"),
    "NA": (cell("NA"), r"row 's3', column 'KRT8' is 'NA'"),
    "nan": (cell("nan"), r"row 's3', column 'KRT8' is nan"),
    "infinite": (cell("inf"), r"row 's3', column 'KRT8' is inf"),
    "negative": (cell(-2), r"row 's3', column 'KRT8' is -2"),
    "all zero": (lambda f: write_tsv(counts() * 0, f / "cnts.tsv"), "all counts of the 12 spots are 0"),
    "empty counts": (lambda f: (f / "cnts.tsv").write_text(""), r"cnts\.tsv holds no counts"),
    "header only": (lambda f: (f / "cnts.tsv").write_text("spot\tA\tB\n"), "ends after 1 lines"),
    "commas": (lambda f: counts().to_csv(f / "cnts.tsv"), "not separated by tabs: it looks separated by commas"),
    "cut off": (
        lambda f: (f / "cnts.tsv").write_text((f / "cnts.tsv").read_text()[:-5]),
        r"row 12 \('s11'\) has \d cells, the header names 5 columns",
    ),
    "binary": (lambda f: (f / "cnts.tsv").write_bytes(b"\xff\xfe\t\xff\n\xff\t\xff\n"), "not a text file"),
    "spot twice": (
        lambda f: write_tsv(counts().rename({"s4": "s3"}), f / "cnts.tsv"),
        "names 1 spots more than once: s3",
    ),
    "gene twice": (
        lambda f: write_tsv(counts().rename(columns={"CD3E": "ACTB"}), f / "cnts.tsv"),
        "names 1 genes more than once: ACTB",
    ),
    "other ids": (
        lambda f: write_tsv(counts().rename(lambda s: "t" + s), f / "cnts.tsv"),
        r"no spot id in common: the rows of the counts are 'ts0', .* the 12 located spots 's0'",
    ),
    "other suffix": (
        lambda f: write_tsv(counts().rename(lambda s: s + "-1"), f / "cnts.tsv"),
        r"without the suffix after '-'",
    ),
    "few ids match": (
        lambda f: write_tsv(counts().rename({s: "t" + s for s in SPOTS[:7]}), f / "cnts.tsv"),
        r"Only 5 spots are in both .*\(12 spots\) and locs\.tsv \(12 spots\)",
    ),
    "locs twice": (lambda f: write_tsv(locs().rename({"s4": "s3"}), f / "locs.tsv"), r"locs\.tsv names 1 spots more"),
    "no x": (lambda f: write_tsv(locs().rename(columns={"x": "lon"}), f / "locs.tsv"), "no columns x and y .*lon"),
    "locs by commas": (lambda f: locs().to_csv(f / "locs.tsv"), r"locs\.tsv is not separated by tabs"),
    "locs empty": (lambda f: (f / "locs.tsv").write_text("\n"), r"locs\.tsv is empty"),
    "no spots": (lambda f: (f / "locs.tsv").write_text("spot\tx\ty\n"), r"locs\.tsv names no spots"),
    "position text": (edit_locs(x=["1", "here", *"3456789012"]), r"1 of 12 spots .* first 's1' at \(here"),
    "position infinite": (edit_locs(y=np.inf), "12 of 12 spots have no finite position"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_has_one_clear_message(folder: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        read(folder)
    assert caught.value.remedy


def test_truncated_gzip(folder: Path) -> None:
    whole = gzip.compress((folder / "cnts.tsv").read_bytes())
    (folder / "cnts.tsv.gz").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"cnts\.tsv\.gz is truncated or no gzip file"):
        read(folder, "cnts.tsv.gz")
    (folder / "cnts.tsv.gz").write_bytes(b"spot\tA\ns0\t1\n")
    with pytest.raises(InputError, match="truncated or no gzip file"):
        read(folder, "cnts.tsv.gz")


@pytest.mark.parametrize("name", ["cnts.parquet", "cnts.h5ad"])
def test_text_under_another_name(folder: Path, name: str) -> None:
    (folder / "cnts.tsv").rename(folder / name)
    with pytest.raises(InputError, match=rf"{name} cannot be read as"):
        read(folder, name)


def test_faults_in_parquet_and_anndata_name_the_cell(folder: Path) -> None:
    table = counts().astype(np.float32)
    table.loc["s3", "KRT8"] = -1
    table.to_parquet(folder / "cnts.parquet")
    anndata.AnnData(table).write_h5ad(folder / "dense.h5ad")
    anndata.AnnData(
        sparse.csr_matrix(table.to_numpy()), obs=table[[]], var=pd.DataFrame(index=table.columns)
    ).write_h5ad(folder / "sparse.h5ad")
    for name in ("cnts.parquet", "dense.h5ad", "sparse.h5ad"):
        with pytest.raises(InputError, match=rf"{name}: the count in row 's3', column 'KRT8' is -1"):
            read(folder, name)
    table.astype(str).to_parquet(folder / "cnts.parquet")
    with pytest.raises(InputError, match="column 'ERBB2' holds"):
        read(folder, "cnts.parquet")


def test_spots_outside_of_the_image(folder: Path) -> None:
    with pytest.raises(InputError, match=r"4 of 12 spots .* x 50 to 900, y 60 to 400; .* 640 px wide and 512 px high"):
        read(folder, analysis_shape_px=(512, 640))
    with pytest.raises(InputError, match="With x and y swapped all lie inside"):
        read(folder, analysis_shape_px=(1024, 512))
    with pytest.raises(InputError, match=r"constant factor of 0\.5[0-9]+ or less"):
        read(folder, analysis_shape_px=(512, 512))
    with pytest.raises(InputError, match=r"Multiplied by 0\.5 all lie inside: they look like pixels of the raw image"):
        read(folder, analysis_shape_px=(512, 512), raw_to_analysis=0.5)
    write_tsv(locs() - 100, folder / "locs.tsv")
    with pytest.raises(InputError, match="Check the alignment"):
        read(folder)


def test_radius(folder: Path) -> None:
    for radius in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="spot radius is"):
            read(folder, radius_um=radius)
    with pytest.raises(InputError, match=r"radius 150 um \(300 px .*larger than the image \(1024 x 512 px\)"):
        read(folder, radius_um=150.0)


def test_aligned_tables_have_the_pixels_of_the_mother_image(folder: Path) -> None:
    capture = read(folder, raw_to_analysis=0.5)
    np.testing.assert_allclose(capture.source_xy_px, 2 * locs().to_numpy())
    np.testing.assert_array_equal(capture.transform, np.eye(3))
    assert (capture.platform, capture.own_um_per_px) == ("tables", 0.25)
    assert capture.gene_ids == tuple(GENES)


GRID = SlideGrid((2000, 4000), 0.25, 0.5)
TURN = Transform(np.array([[0.0, -2.0, 3000.0], [2.0, 0.0, 100.0], [0, 0, 1]]), "landmarks")
"""A quarter turn, from 0.5 um per pixel to 0.25."""


def measured(**changes: object) -> Measured:
    """The table's spots as an instrument would give them, one gene's symbol there twice."""
    values: dict[str, object] = {
        "platform": "visium",
        "spot_ids": SPOTS,
        "gene_symbols": ["ERBB2", "CD3E", "KRT8", "CD3E", "ACTB"],
        "gene_ids": [f"ENSG{i}" for i in range(5)],
        "counts": sparse.csr_matrix(counts().to_numpy(), dtype=np.float32),
        "xy_px": np.column_stack([np.linspace(50, 500, 12), np.linspace(400, 60, 12)]),
        "spot_diameter_um": 55.0,
        "um_per_px": 0.5,
        "notices": ("3 controls were left out.", "Warning: all is odd.", "Capture D1: 1 of 13 spots was left out."),
    }
    return Measured(**(values | changes))  # type: ignore[arg-type]


def place(found: Measured, transform: Transform = TURN, locations: Path | None = None) -> Capture:
    files = CaptureFiles("D1", None, locations, None, Path("run7"), Path("D1/transform.json"))
    return place_capture(files, found, transform, GRID, radius_um=27.5)


def test_a_measurement_is_placed_by_its_transform() -> None:
    found = measured()
    capture = place(found)
    x, y = found.xy_px.T
    np.testing.assert_allclose(capture.xy_px, np.column_stack([(3000 - 2 * y) / 2, (2 * x + 100) / 2]))
    np.testing.assert_array_equal(capture.source_xy_px, found.xy_px)
    np.testing.assert_array_equal(capture.transform, TURN.matrix)
    assert capture.genes == ("ERBB2", "CD3E", "KRT8", "CD3E-1", "ACTB")
    assert capture.gene_ids == tuple(found.gene_ids)
    assert (capture.platform, capture.own_um_per_px, capture.radius_um) == ("visium", 0.5, 27.5)
    np.testing.assert_array_equal(capture.counts.toarray(), counts().to_numpy())
    assert capture.notices == (
        "Capture D1: 12 spots of visium, radius 27.5 um; turned by 90.0 degrees, scaled by 2 (landmarks)",
        "Capture D1: 3 controls were left out.",
        "Warning: capture D1: all is odd.",
        "Capture D1: 1 of 13 spots was left out.",
    )


def test_spots_beside_the_mother_image_are_left_out_where_they_are_fewer_than_half() -> None:
    found = measured()
    right = Transform(np.array([[1.0, 0, 3700.0], [0, 1, 0], [0, 0, 1]]))
    inside = found.xy_px[:, 0] < 300
    capture = place(found, right)
    assert 6 < inside.sum() < 12
    assert capture.spot_ids == tuple(np.array(SPOTS)[inside])
    np.testing.assert_array_equal(capture.source_xy_px, found.xy_px[inside])
    np.testing.assert_array_equal(capture.counts.toarray(), counts().to_numpy()[inside])
    assert f"{(~inside).sum()} of 12 spots lie outside of the mother image and were left out" in capture.notices[-1]
    far = Transform(np.array([[1.0, 0, 3725.0], [0, 1, 0], [0, 0, 1]]))  # the border lies amid the spots
    with pytest.raises(InputError, match=r"takes 6 of 12 spots outside .* x 1888 to 2112, .*2000 px wide.*\n.*align"):
        place(found, far)


def test_aligned_locations_beside_a_transform_are_compared_with_it(tmp_path: Path) -> None:
    found = measured()
    on_mother = pd.DataFrame(place(found).xy_px, index=pd.Index(SPOTS, name="spot"), columns=["x", "y"])
    path = tmp_path / "locs.tsv"
    for shift_px, told in ((40, False), (80, True)):  # of 0.5 um: 20 and 40 um, at a radius of 27.5
        write_tsv(on_mother.assign(x=on_mother["x"] + shift_px).iloc[::-1], path)
        notices = place(found, locations=path).notices
        assert any("transform.json and locs.tsv are 40 um apart, the mean of 12" in n for n in notices) == told
    write_tsv(on_mother.rename(lambda name: "t" + name), path)
    assert "locs.tsv names none of the spots measured" in place(found, locations=path).notices[-1]


def test_a_measurement_without_counts_or_with_fractions() -> None:
    with pytest.raises(InputError, match="run7: all counts of the 12 spots are 0"):
        place(measured(counts=sparse.csr_matrix(np.zeros((12, 5), np.float32))))
    assert "run7 holds numbers that are not whole" in place(measured(counts=measured().counts * 0.3)).notices[-1]


def test_the_radius_of_a_measurement() -> None:
    assert measured_radius_um(measured(), TURN, GRID) == 27.5
    pixels = measured(spot_diameter_um=None, scalefactors={"spot_diameter_fullres": 100.0})
    assert measured_radius_um(pixels, TURN, GRID) == pytest.approx(100 * 2 * 0.25 / 2)
    assert measured_radius_um(measured(spot_diameter_um=None), TURN, GRID) is None


@pytest.mark.real
def test_real_counts_are_read_as_pandas_reads_them(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "her2st/C3.counts.tsv.gz"
    spots = pd.read_csv(data_dir / "her2st/C3.spots.tsv", sep="\t").query("selected == 1")
    table = pd.DataFrame(
        {
            "spot": [f"{x}x{y}" for x, y in zip(spots["x"], spots["y"], strict=True)],
            "x": spots["pixel_x"],
            "y": spots["pixel_y"],
        }
    )
    table.to_csv(tmp_path / "locs.tsv", sep="\t", index=False)
    files = CaptureFiles("C3", path, tmp_path / "locs.tsv", None)
    capture = read_aligned_capture(files, radius_um=50, pixel_size_um=0.688, analysis_shape_px=(9936, 9270))
    expected = pd.read_csv(path, sep="\t", index_col=0).loc[list(capture.spot_ids)]
    assert capture.genes == tuple(expected.columns)
    np.testing.assert_array_equal(capture.counts.toarray(), expected.to_numpy())


@pytest.mark.real
def test_real_anndata(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "h5ad/NCBI858.h5ad"
    cells = anndata.read_h5ad(path)
    cells.obs[["x_pixel", "y_pixel"]].rename(columns={"x_pixel": "x", "y_pixel": "y"}).to_csv(
        tmp_path / "locs.tsv", sep="\t"
    )
    files = CaptureFiles("cells", path, tmp_path / "locs.tsv", None)
    capture = read_aligned_capture(files, radius_um=5, pixel_size_um=0.5, analysis_shape_px=(60000, 60000))
    assert capture.counts.shape == (200, 338)
    np.testing.assert_array_equal(capture.counts.toarray(), np.asarray(cells.X))

"""Finding the files of a project: the layout that works, and one clear message for each way it can be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iscale.errors import InputError
from iscale.project.files import find_captures, find_project, read_gene_names, read_number
from iscale.regions.marker_table import named_markers


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def project(bare_project: Path) -> Path:
    return bare_project


def test_published_layout_is_found(project: Path) -> None:
    files = find_project(project)
    assert [c.name for c in files.captures] == ["D1", "D2"]
    assert files.unaligned == ("D3",)
    assert files.captures[0].counts.name == "cnts.tsv.gz"
    assert (files.mother_image.name, files.mother_is_analysis) == ("he-raw.svs", False)
    assert files.radius is None
    assert files.radius_raw is not None
    assert read_number(files.radius_raw) == 110


@pytest.mark.parametrize(
    ("names", "chosen", "is_analysis"),
    [
        (["he-raw.ome.tif", "he.png"], "he-raw.ome.tif", False),
        (["he-scaled.jpg", "he.jpg"], "he-scaled.jpg", True),
        (["he.PNG", "he-note.txt"], "he.PNG", True),
    ],
)
def test_raw_image_is_preferred(project: Path, names: list[str], chosen: str, is_analysis: bool) -> None:
    (project / "MotherImage/he-raw.svs").unlink()
    for name in names:
        write(project / "MotherImage" / name)
    files = find_project(project)
    assert (files.mother_image.name, files.mother_is_analysis) == (chosen, is_analysis)


def test_mask_is_found_in_both_places_but_only_once(project: Path) -> None:
    assert find_project(project).user_mask is None
    write(project / "mask-tissue.geojson")
    mask = find_project(project).user_mask
    assert mask is not None
    assert mask.name == "mask-tissue.geojson"
    write(project / "MotherImage/mask-raw.png")
    with pytest.raises(InputError, match="2 tissue masks"):
        find_project(project)


def test_bad_folders_have_one_clear_message(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_project(tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not exist"):
        find_captures(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file, not a folder"):
        find_project(project / "MotherImage/he-raw.svs")
    with pytest.raises(InputError, match="no folder MotherImage"):
        find_project(project / "DaughterCaptures")
    with pytest.raises(InputError, match=r"no capture 'D11'.*\n.*Did you mean 'D1'\? There are: D1, D2, D3"):
        find_project(project, ["D11"])
    with pytest.raises(InputError, match=r"Not yet aligned.*D3"):
        find_project(project, ["D1", "D3"])


def test_bad_images(project: Path) -> None:
    image = project / "MotherImage/he-raw.svs"
    image.write_bytes(b"")
    with pytest.raises(InputError, match=r"he-raw\.svs is empty"):
        find_project(project)
    write(project / "MotherImage/he-raw.tif")
    with pytest.raises(InputError, match=r"2 files that could be the mother image: he-raw\.svs, he-raw\.tif"):
        find_project(project)
    (project / "MotherImage/he-raw.tif").rename(project / "MotherImage/he-raw.bmp")
    image.unlink()
    with pytest.raises(InputError, match=r"no mother image.*he-raw\.bmp"):
        find_project(project)


@pytest.mark.parametrize("text", ["", "half", "0", "-1", "nan", "inf", "1 2"])
def test_a_number_must_be_one_positive_number(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"radius\.txt holds"):
        read_number(write(tmp_path / "radius.txt", text))


def test_gene_names_are_one_a_line(tmp_path: Path) -> None:
    assert read_gene_names(write(tmp_path / "a.txt", "ERBB2\n\n CD3E \nERBB2\n")) == ("ERBB2", "CD3E")
    with pytest.raises(InputError, match="line 2"):
        read_gene_names(write(tmp_path / "b.txt", "ERBB2\nCD3E, CD4\n"))


def test_importing_is_light() -> None:
    heavy = "[m for m in ('numpy', 'pandas', 'torch', 'zarr') if m in sys.modules]"
    found = subprocess.check_output(
        [sys.executable, "-c", f"import sys, iscale.project.files; print({heavy})"], text=True
    )
    assert found.strip() == "[]"


def test_a_plan_is_made_without_what_only_workers_need(tiny_project: Path) -> None:
    (tiny_project / "MotherImage" / "markers.csv").write_text("gene,label\nG0,left\nG1,left\nG2,right\n")
    code = """
import sys
from iscale.pipeline.run import describe_plan
plan = describe_plan(sys.argv[1], encoder="texture", device="cpu", dask="local", workers=2)
print([step for step in ("features", "fit", "annotate", "holdout", "report") if step not in plan])
print([module for module in ("torch", "sklearn") if module in sys.modules])
"""
    found = subprocess.check_output([sys.executable, "-c", code, str(tiny_project)], text=True)
    assert found.split("\n")[:2] == ["[]", "[]"]


def test_marker_genes_may_be_separated_by_commas_or_tabs(bare_project: Path) -> None:
    mother = bare_project / "MotherImage"
    assert find_project(bare_project).markers is None
    (mother / "markers.tsv").write_text("gene\tlabel\nG0\tleft\nG1\tright\n")
    assert find_project(bare_project).markers == mother / "markers.tsv"
    assert named_markers(mother / "markers.tsv") == ("G0", "G1")
    (mother / "markers.csv").write_text("gene,label\nG0,left\n")
    with pytest.raises(InputError, match=r"2 tables of marker genes: markers\.csv, markers\.tsv"):
        find_project(bare_project)
    (mother / "markers.tsv").unlink()
    assert find_project(bare_project).markers == mother / "markers.csv"

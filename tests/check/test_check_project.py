"""Faults made on purpose from a real project are named, each by its own code and no other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from iscale.check.finding import CheckReport
from iscale.check.project import run_check
from iscale.demo.her2st import PIXEL_SIZE_UM, RAW_PIXEL_SIZE_UM, lay_out_her2st
from iscale.slide.base import any_size
from iscale.transform import Transform, write_transform

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("tissue_learnt_once")]
OPTIONS: dict[str, Any] = {"pixel_size": PIXEL_SIZE_UM, "n_genes": 100}
SCALE = RAW_PIXEL_SIZE_UM / PIXEL_SIZE_UM
MOTHER = "MotherImage"
ALIGNED, UNALIGNED = "DaughterCaptures/AllignedToMother", "DaughterCaptures/UnallignedToMother"
full = partial(pytest.param, marks=pytest.mark.full)
"""A case that differs from one beside it by which section, or how large a factor, alone."""


@pytest.fixture(scope="module")
def laid_out(her2st_few_genes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project: mother C4, captures C3 and C5."""
    return lay_out_her2st(her2st_few_genes, tmp_path_factory.mktemp("her2st") / "C4").project


@pytest.fixture
def project(laid_out: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(laid_out, tmp_path / "project", symlinks=True))


def checked(project: Path, **options: Any) -> tuple[set[str], CheckReport]:
    report = run_check(project, OPTIONS | options)
    return {finding.code for finding in report.findings}, report


def edit_locs(project: Path, edit: Callable[[pd.DataFrame], Any], captures: tuple[str, ...] = ("C3",)) -> None:
    for name in captures:
        path = project / ALIGNED / name / "locs.tsv"
        locs = pd.read_csv(path, sep="\t", index_col=0)
        edit(locs)
        locs.to_csv(path, sep="\t")


def edit_counts(project: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], captures: tuple[str, ...]) -> None:
    for name in captures:
        path = project / ALIGNED / name / "cnts.tsv.gz"
        edit(pd.read_csv(path, sep="\t", index_col=0)).to_csv(path, sep="\t")


def size_px(project: Path) -> tuple[float, float]:
    """Width and height of the analysis image."""
    with any_size(), Image.open(project / MOTHER / "he-raw.jpg") as image:
        return image.size[0] * SCALE, image.size[1] * SCALE


@pytest.mark.parametrize("mother", [full("C3"), "C4", full("C5")])
@pytest.mark.parametrize("setting", ["covered", "uncovered"])
def test_nothing_is_wrong_with_what_is_right(her2st_few_genes: Path, tmp_path: Path, mother: str, setting: Any) -> None:
    project = lay_out_her2st(her2st_few_genes, tmp_path / "case", mother=mother, setting=setting).project
    codes, report = checked(project)
    assert codes == set(), report.text()
    assert not report.fails
    assert {"mother image", "genes", "memory", "disk", "time", "device", "weights"} <= set(report.facts)
    assert "overlap" in " ".join(report.facts.values())
    assert not (project / "iSCALE_output").exists()


SWAPPED = {"x": "y", "y": "x"}


def mirror_x(width: float, _: float) -> Callable[[pd.DataFrame], Any]:
    return lambda locs: locs.update(width - locs[["x"]])


def mirror_y(_: float, height: float) -> Callable[[pd.DataFrame], Any]:
    return lambda locs: locs.update(height - locs[["y"]])


def swap(*_: float) -> Callable[[pd.DataFrame], Any]:
    return lambda locs: locs.rename(columns=SWAPPED, inplace=True)


def turn(width: float, height: float) -> Callable[[pd.DataFrame], Any]:
    return lambda locs: locs.update([width, height] - locs[["x", "y"]])


@pytest.mark.parametrize(
    ("fault", "code", "captures"),
    [
        (mirror_x, "coordinates-mirrored", ("C3",)),
        full(mirror_x, "coordinates-mirrored", ("C3", "C5")),
        (mirror_y, "coordinates-mirrored", ("C5",)),
        (swap, "coordinates-swapped", ("C3",)),
        (swap, "coordinates-swapped", ("C3", "C5")),
        (turn, "coordinates-rotated", ("C5",)),
    ],
)
def test_orientation_of_the_positions(
    project: Path, fault: Callable[..., Callable[[pd.DataFrame], Any]], code: str, captures: tuple[str, ...]
) -> None:
    edit_locs(project, fault(*size_px(project)), captures)
    codes, report = checked(project)
    assert codes == {code}, report.text()
    assert len(report.findings) == 1
    assert report.findings[0].capture == (captures[0] if len(captures) == 1 else None)
    assert report.fails


@pytest.mark.parametrize(
    ("factor", "said", "captures"),
    [
        (1 / SCALE, "pixels of he-raw.*", ("C3",)),
        (1 / SCALE, "pixels of he-raw.*", ("C3", "C5")),
        (SCALE, "twice", ("C3",)),
        full(0.172, "about 5.8", ("C5",)),
        (0.0516, "about 19", ("C3",)),
        (1 / 4.6, "about 4.6", ("C3", "C5")),
        (2.0, "about 1/2", ("C3",)),
    ],
)
def test_scale_of_the_positions(project: Path, factor: float, said: str, captures: tuple[str, ...]) -> None:
    edit_locs(project, lambda locs: locs.update(locs[["x", "y"]] * factor), captures)
    codes, report = checked(project)
    assert codes == {"coordinates-scaled"}, report.text()
    (finding,) = report.findings
    assert said in finding.message
    assert finding.capture == (captures[0] if len(captures) == 1 else None)


def test_the_analysis_resolution_of_the_tables_is_told(project: Path) -> None:
    codes, report = checked(project, pixel_size=0.5)
    assert codes == {"coordinates-scaled"}, report.text()
    assert "--pixel-size 0.75" in report.findings[0].remedy


@pytest.mark.parametrize("stated", [full(0.25), 0.5, full(0.75)])
def test_pixel_size_of_the_mother_image(project: Path, stated: float) -> None:
    (project / MOTHER / "pixel-size-raw.txt").write_text(f"{stated}\n")
    (project / MOTHER / "radius-raw.txt").write_text("72.674\n")
    codes, report = checked(project)
    assert codes == {"pixel-size-mother"}, report.text()
    (finding,) = report.findings
    true = float(finding.remedy.split("about ")[1].rstrip(")."))
    assert true == pytest.approx(RAW_PIXEL_SIZE_UM, rel=0.03)


@pytest.mark.parametrize("how", [full("mirrored"), "rotated"])
def test_orientation_of_the_mother_image(project: Path, how: str) -> None:
    path = project / MOTHER / "he-raw.jpg"
    with any_size(), Image.open(path) as image:
        turned = ImageOps.mirror(image) if how == "mirrored" else image.transpose(Image.Transpose.ROTATE_90)
    path.unlink()
    turned.save(path, quality=70)
    codes, report = checked(project)
    assert codes == {f"coordinates-{how}"}, report.text()
    assert [finding.capture for finding in report.findings] == [None]


def test_an_image_without_tissue(project: Path) -> None:
    path = project / MOTHER / "he-raw.jpg"
    path.unlink()
    Image.new("RGB", (9278, 9916), (240, 238, 241)).save(path)
    codes, report = checked(project)
    assert codes == {"no-tissue"}, report.text()


def test_spots_beside_the_image(project: Path) -> None:
    edit_locs(project, lambda locs: locs.update(locs[["x"]] + 4000))
    codes, report = checked(project)
    assert codes == {"spots-outside-image"}, report.text()
    assert report.findings[0].capture == "C3"


def test_spots_beside_the_tissue(project: Path) -> None:
    edit_locs(project, lambda locs: locs.update(locs[["x", "y"]] + [1500, -300]))
    codes, report = checked(project)
    assert codes == {"spots-mostly-off-tissue"}, report.text()
    assert report.fails
    x = float(report.findings[0].message.split("Moved by ")[1].split(" px")[0])
    assert x == pytest.approx(-1500 / SCALE, abs=300)


@pytest.mark.parametrize(("factor", "code"), [(2.0, "radius-too-large"), (0.2, "radius-too-small")])
def test_radius(project: Path, factor: float, code: str) -> None:
    (project / MOTHER / "radius-raw.txt").write_text(f"{72.674 * factor}\n")
    codes, report = checked(project)
    assert codes == {code}, report.text()


def as_ensembl(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis([f"ENSG{100000 + i:011d}" for i in range(table.shape[1])], axis=1)


def as_mouse(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis([name.capitalize() for name in table.columns], axis=1)


def others(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis([f"{name}X" for name in table.columns], axis=1)


def half_others(table: pd.DataFrame) -> pd.DataFrame:
    names = [name if i % 5 == 0 else f"{name}X" for i, name in enumerate(table.columns)]
    return table.set_axis(names, axis=1)


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (as_ensembl, "genes-ids-and-symbols"),
        (as_mouse, "genes-species-mixed"),
        (others, "genes-none-shared"),
        (half_others, "genes-few-shared"),
    ],
)
def test_genes(project: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], code: str) -> None:
    edit_counts(project, edit, ("C5",))
    codes, report = checked(project)
    assert codes == {code}, report.text()


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("gene-names.txt", "NOSUCHGENE\n", "genes-not-measured"),
        ("markers.csv", "gene,label\nNOSUCHGENE,tumour\nFN1,stroma\n", "markers-not-measured"),
    ],
)
def test_named_genes(project: Path, file: str, text: str, code: str) -> None:
    (project / MOTHER / file).write_text(text)
    codes, report = checked(project)
    assert codes == {code}, report.text()
    assert "NOSUCHGENE" in report.findings[0].message


def test_the_same_capture_twice(project: Path) -> None:
    shutil.copytree(project / ALIGNED / "C3", project / ALIGNED / "C3-again")
    codes, report = checked(project)
    assert codes == {"capture-twice"}, report.text()
    edit_locs(project, lambda locs: locs.update(locs[["x", "y"]] + 3), ("C3-again",))
    assert checked(project)[0] == {"capture-twice"}


def test_captures_that_disagree(project: Path) -> None:
    def shuffle(locs: pd.DataFrame) -> None:
        locs.index = pd.Index(np.random.default_rng(0).permutation(locs.index), name="spot")

    edit_locs(project, shuffle)
    codes, report = checked(project)
    assert codes == {"captures-disagree"}, report.text()


def thinned(share: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: pd.DataFrame(
        np.random.default_rng(0).binomial(table.to_numpy(), share), index=table.index, columns=table.columns
    )


@pytest.mark.parametrize(
    ("edit", "captures", "code"),
    [
        (thinned(0.03), ("C3",), "depth-low"),
        (thinned(0.03), ("C3", "C5"), "depth-low"),
        (lambda table: table * 15, ("C3",), "depth-uneven"),
        (lambda table: np.log1p(table), ("C3",), "counts-not-whole"),
    ],
)
def test_depth(project: Path, edit: Any, captures: tuple[str, ...], code: str) -> None:
    edit_counts(project, edit, captures)
    codes, report = checked(project)
    assert codes == {code}, report.text()
    assert len(report.findings) == len(captures)


def test_a_capture_that_is_not_aligned(project: Path) -> None:
    shutil.rmtree(project / ALIGNED / "C3")
    image = project / UNALIGNED / "C3" / "he.jpg"
    target = image.resolve()
    image.unlink()
    shutil.copyfile(target, image)
    codes, report = checked(project)
    assert codes == {"not-aligned"}, report.text()
    (finding,) = report.findings
    assert finding.capture == "C3"
    assert f"iscale align {project}" in finding.remedy
    assert "C5" in report.facts
    locs = project / UNALIGNED / "C3" / "locs.tsv"
    pd.read_csv(locs, sep="\t", index_col=0).rename(columns=SWAPPED).to_csv(locs, sep="\t")
    codes, report = checked(project)
    assert codes == {"not-aligned", "coordinates-swapped"}, report.text()
    assert any("own image" in finding.message for finding in report.findings)


def test_swapped_positions_of_a_capture_placed_by_its_image(project: Path, data_dir: Path) -> None:
    """Its image lies right, its spots do not: that shows on its own image only."""
    layout = project / UNALIGNED / "C3"
    image = (layout / "he.jpg").resolve()
    (layout / "he.jpg").unlink()
    shutil.copyfile(image, layout / "he.jpg")
    affine = json.loads((data_dir / "her2st" / "alignment.json").read_text())["C3"]["affine_xy_to_C4_px"]
    shutil.rmtree(project / ALIGNED / "C3")
    write_transform(project / ALIGNED / "C3" / "transform.json", Transform(np.vstack([affine, [0, 0, 1.0]])))
    codes, report = checked(project)
    assert codes == set(), report.text()
    locs = layout / "locs.tsv"
    pd.read_csv(locs, sep="\t", index_col=0).rename(columns=SWAPPED).to_csv(locs, sep="\t")
    codes, report = checked(project)
    assert codes == {"coordinates-swapped"}, report.text()
    assert "own image" in report.findings[0].message


def test_a_file_that_cannot_be_read_does_not_hide_the_rest(project: Path) -> None:
    counts = project / ALIGNED / "C5" / "cnts.tsv.gz"
    counts.write_bytes(counts.read_bytes()[:5000])
    edit_locs(project, swap(), ("C3",))
    report = checked(project)[1]
    assert [(f.code, f.capture) for f in report.findings] == [("input", "C5"), ("coordinates-swapped", "C3")]
    (project / ALIGNED / "C3" / "locs.tsv").unlink()
    report = checked(project)[1]
    assert sorted((f.code, f.capture) for f in report.findings) == [("input", "C3"), ("input", "C5")]


def test_no_project_is_one_finding(tmp_path: Path) -> None:
    report = run_check(tmp_path / "nowhere")
    assert {finding.code for finding in report.findings} == {"input"}
    assert len(report.findings) == 1
    assert "does not exist" in " ".join(report.text().split())  # lines break where the path is long


def test_what_the_machine_lacks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil
    import torch

    assert checked(project, memory="200MB")[0] == {"memory-short"}
    assert checked(project, dist_st=1e5)[0] == {"too-few-spots"}
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert checked(project, device="cuda")[0] == {"gpu-missing"}
    usage = shutil.disk_usage(project)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        assert checked(project)[0] == {"disk-short"}
    memory = psutil.virtual_memory()
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=700 << 20))
        assert checked(project)[0] == {"memory-short"}


def test_the_report_for_programs(project: Path) -> None:
    edit_locs(project, swap(), ("C5",))
    document = json.loads(checked(project)[1].to_json())
    assert document["fails"] is True
    assert document["findings"][0].keys() == {"code", "severity", "capture", "message", "remedy"}
    assert document["findings"][0]["code"] == "coordinates-swapped"


def test_spots_at_one_place_are_told(project: Path) -> None:
    def edit(locs: pd.DataFrame) -> None:
        locs.iloc[:40] = locs.iloc[0].to_numpy()

    edit_locs(project, edit)
    codes, report = checked(project)
    assert codes == {"spots-at-one-place"}
    assert "40 of " in report.text()
    assert "up to 40 of them one" in report.text()


def test_counts_that_no_map_can_hold_are_an_error(project: Path) -> None:
    def edit(counts: pd.DataFrame) -> pd.DataFrame:
        counts.iloc[3, 0] = 50_000_000
        return counts

    edit_counts(project, edit, ("C3",))
    codes, report = checked(project)
    assert codes == {"counts-too-large"}
    assert report.fails
    assert "5e+07 counts" in report.text()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_an_output_folder_that_cannot_be_made_is_told(project: Path) -> None:
    codes, report = checked(project, out="/proc/nowhere/out")
    assert codes == {"out-not-writable"}
    assert "/proc is not writable" in report.text()


def test_tissue_that_the_user_has_drawn_is_tissue_of_grey_slides_too(project: Path) -> None:
    mother = project / MOTHER
    with any_size(), Image.open(mother / "he-raw.jpg") as image:
        grey, size = image.convert("L"), image.size
    (mother / "he-raw.jpg").unlink()
    grey.convert("RGB").save(mother / "he-raw.jpg")
    codes, _ = checked(project)
    assert codes == {"no-tissue"}
    small = np.asarray(grey.reduce(8)) < 190
    Image.fromarray(small.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST).save(mother / "mask-raw.png")
    codes, report = checked(project)
    assert codes == set(), report.text()
    share = float(re.search(r"([0-9]+)% of the slide", report.facts["tissue mask"])[1]) / 100  # type: ignore[index]
    assert share == pytest.approx(float(small.mean()), abs=0.02)

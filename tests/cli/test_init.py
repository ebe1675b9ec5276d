"""A project of files where they are: ``iscale init``, the settings of captures, and a run from there."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

import iscale
from iscale.captures.platforms import PLATFORMS
from iscale.cli import init as module
from iscale.cli.app import main
from iscale.cli.init import init_project
from iscale.demo.synthetic import write_demo
from iscale.errors import InputError
from iscale.options import CaptureOptions, Options, Platform, load_options, settings_text
from iscale.plan.job import Job
from iscale.project.files import find_captures, find_project
from iscale.transform import Transform, write_transform

MATRIX = np.array([[0.0, -1.0, 900.0], [1.0, 0.0, 100.0], [0, 0, 1]])
"""From pixels of 0.5 um of the capture to those of the mother image: a quarter turn."""


def write_h5ad(path: Path, seed: int = 0) -> ad.AnnData:
    """An AnnData of 6 x 6 spots as scanpy keeps it: pixels of 0.5 um, spots of 40 um."""
    counts = sparse.csr_matrix(np.random.default_rng(seed).poisson(5, (36, 8)), dtype=np.float32)
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(6)), axis=-1).reshape(-1, 2) * 100.0 + 120
    factors = {"spot_diameter_fullres": 80.0, "microns_per_pixel": 0.5}
    data = ad.AnnData(
        counts,
        obs=pd.DataFrame(index=[f"s{i}" for i in range(36)]),
        var=pd.DataFrame({"gene_ids": [f"ENSG{i}" for i in range(8)]}, index=[f"G{i}" for i in range(8)]),
        obsm={"spatial": grid},
        uns={"spatial": {"lib": {"images": {}, "scalefactors": factors}}},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data.write_h5ad(path)
    return data


@pytest.fixture
def files(tiny_project: Path) -> Path:
    """A slide without a pixel size and three captures, each where its instrument left it."""
    folder = tiny_project.parent / "lab"
    folder.mkdir()
    (tiny_project / "MotherImage" / "he-raw.png").rename(folder / "block 7.PNG")
    write_h5ad(folder / "run1" / "cells.h5ad")
    shutil.copytree(tiny_project / "DaughterCaptures/AllignedToMother/D2", folder / "run2")
    Image.new("RGB", (900, 900), "white").save(folder / "run2" / "he.png")
    shutil.rmtree(tiny_project)
    return folder


def init(files: Path, project: Path | None = None, **changes: object) -> str:
    arguments: dict[str, object] = {
        "mother": files / "block 7.PNG",
        "captures": [f"D1={files}/run1/cells.h5ad", f"D2={files}/run2"],
        "pixel_size_raw": 0.5,
    }
    return init_project(project or files.parent / "P", **(arguments | changes))  # type: ignore[arg-type]


def everything(folder: Path) -> dict[str, object]:
    """All that a folder holds: links as what they lead to, files as their bytes."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def test_a_project_is_links_to_files_where_they_are(files: Path) -> None:
    told = init(files)
    project = files.parent / "P"
    links = {
        "MotherImage/he-raw.PNG": files / "block 7.PNG",
        "DaughterCaptures/UnallignedToMother/D1/cells.h5ad": files / "run1" / "cells.h5ad",
        "DaughterCaptures/UnallignedToMother/D2": files / "run2",
    }
    assert {name: target for name, target in everything(project).items() if isinstance(target, Path)} == links
    assert list((project / "DaughterCaptures/AllignedToMother").iterdir()) == []
    assert (project / "MotherImage/pixel-size-raw.txt").read_text() == "0.5\n"
    assert sorted(p.name for p in project.parent.iterdir()) == ["P", "lab"], "nothing is left beside the project"

    assert find_project(project, with_captures=False).mother_image.name == "he-raw.PNG"
    d1, d2 = find_captures(project)
    assert d1.source == project / "DaughterCaptures/UnallignedToMother/D1/cells.h5ad"
    assert d2.source == project / "DaughterCaptures/UnallignedToMother/D2"
    assert not d1.is_aligned
    options = load_options(project, {})
    assert {name: capture.platform for name, capture in options.capture.items()} == {"D1": "h5ad", "D2": "tables"}

    assert "mother image: 1024 x 1024 px of 0.5 um (--pixel-size-raw)" in told
    assert f"capture D1: h5ad, {files}/run1/cells.h5ad" in told
    assert [line.split()[1] for line in told.splitlines()[-3:]] == ["check", "align", "run"]


@pytest.mark.real
def test_of_a_slide_that_states_its_pixel_size_no_file_is_made(files: Path, data_dir: Path) -> None:
    told = init(files, mother=data_dir / "slides" / "he.ome.tif", pixel_size_raw=None)
    assert re.search(r"px of 0\.50008 um \(.*OME", told)
    assert [p.name for p in (files.parent / "P" / "MotherImage").iterdir()] == ["he-raw.ome.tif"]


@pytest.mark.real
def test_the_platform_is_the_one_that_the_files_tell(files: Path, data_dir: Path) -> None:
    init(files, captures=[f"A={data_dir}/visium", f"B={data_dir}/visium_hd"])
    platforms = load_options(files.parent / "P", {}).capture
    assert {name: capture.platform for name, capture in platforms.items()} == {"A": "visium", "B": "visium_hd"}


def test_a_mirax_slide_brings_its_folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_describe_slide", lambda mother, pixel_size_raw: "a MIRAX slide")
    (files / "s.mrxs").write_bytes(b"x")
    (files / "s").mkdir()
    init(files, mother=files / "s.mrxs")
    image = files.parent / "P" / "MotherImage"
    assert (image / "he-raw.mrxs").readlink() == files / "s.mrxs"
    assert (image / "he-raw").readlink() == files / "s"


def test_paths_may_be_relative_and_links_last(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    init(files, Path("../P"), mother=Path("block 7.PNG"), captures=["D2=./run2/"])
    assert (files.parent / "P/MotherImage/he-raw.PNG").readlink() == files / "block 7.PNG"
    assert (files.parent / "P/DaughterCaptures/UnallignedToMother/D2").readlink() == files / "run2"


def test_the_platform_that_is_given_needs_no_detection(files: Path) -> None:
    (files / "odd").mkdir()
    told = init(files, captures=[f"D1={files}/odd"], platform="xenium")
    assert "capture D1: xenium" in told
    assert load_options(files.parent / "P", {}).capture["D1"].platform == "xenium"


def test_the_settings_are_the_defaults_as_comments() -> None:
    text = settings_text({"D1": "visium", "b.2": "xenium"})
    own = tomllib.loads(text)
    assert own == {"capture": {"D1": {"platform": "visium"}, "b.2": {"platform": "xenium"}}}
    head, tables = text.split("\n[capture.", 1)
    settings = [line[2:] for line in head.splitlines() if re.match(r"# \w+ =", line)]
    names = [line.split(" =")[0] for line in settings]
    assert names == [name for name in Options.model_fields if name != "capture"]
    said = tomllib.loads("\n".join(line for line in settings if not line.endswith("(not set)")))
    assert Options.model_validate(said) == Options.model_validate({})
    unsaid = {line.split(" =")[0] for line in settings if line.endswith("(not set)")}
    assert unsaid == {name for name, field in Options.model_fields.items() if field.default is None}
    described = [field.description for name, field in Options.model_fields.items() if name != "capture"]
    assert all(f"# {description}\n" in head for description in described)
    assert all(f"# {name} =" in tables for name in CaptureOptions.model_fields if name != "platform")


def test_the_same_again_changes_nothing(files: Path) -> None:
    init(files)
    project = files.parent / "P"
    (project / "iSCALE_output").mkdir()
    before = everything(project)
    assert "is there already, as it would be made" in init(files)
    assert everything(project) == before


def test_an_empty_folder_is_filled_and_stays_the_folder_it_is(files: Path) -> None:
    project = files.parent / "P"
    project.mkdir()
    inode = project.stat().st_ino
    init(files)
    assert project.stat().st_ino == inode
    assert sorted(p.name for p in project.iterdir()) == ["DaughterCaptures", "MotherImage", "iscale.toml"]


def test_a_folder_that_holds_something_else_is_left_alone(files: Path) -> None:
    init(files)
    project = files.parent / "P"
    with (project / "iscale.toml").open("a") as settings:
        settings.write("\n# mine\n")
    before = everything(project)
    with pytest.raises(InputError, match=r"P is not empty .* is not this project: iscale\.toml is missing or diff"):
        init(files)
    with pytest.raises(InputError, match=r"D3, iscale\.toml are missing or different"):
        init(files, captures=[f"D1={files}/run1/cells.h5ad", f"D2={files}/run2", f"D3={files}/run2"])
    assert everything(project) == before
    with pytest.raises(InputError, match=r"lab is not empty \(there is: block 7\.PNG, run1, run2\)"):
        init(files, files)


def broken_link(files: Path) -> dict[str, object]:
    (files / "gone").symlink_to("/nowhere/run9")
    return {"captures": [f"D1={files}/gone"]}


def no_capture_at_all(files: Path) -> dict[str, object]:
    (files / "empty").mkdir()
    return {"captures": [f"D1={files}/empty"]}


FAULTS: dict[str, tuple[Callable[[Path], dict[str, object]], str]] = {
    "no slide": (lambda f: {"mother": f / "block8.svs"}, r"block8\.svs does not exist"),
    "no image": (lambda f: {"mother": f / "run2" / "locs.tsv"}, r"locs\.tsv has the suffix '\.tsv'"),
    "pixel size unknown": (lambda f: {"pixel_size_raw": None}, r"pixel size is unknown.*\n.*--pixel-size-raw"),
    "pixel size 0": (lambda f: {"pixel_size_raw": 0.0}, r"pixel size 0 um from --pixel-size-raw"),
    "no captures": (lambda f: {"captures": []}, r"No capture is given\.\n.*--capture NAME=FOLDER"),
    "no name": (lambda f: {"captures": [f"={f}/run2"]}, r"not NAME=FOLDER"),
    "no folder": (lambda f: {"captures": ["D1"]}, r"--capture D1: not NAME=FOLDER"),
    "slash": (lambda f: {"captures": [f"a/b={f}/run2"]}, r"'a/b' is no name"),
    "dots": (lambda f: {"captures": [f"..={f}/run2"]}, r"'\.\.' is no name"),
    "dots within": (lambda f: {"captures": [f"a..b={f}/run2"]}, r"'a\.\.b' is no name"),
    "hidden": (lambda f: {"captures": [f".a={f}/run2"]}, r"'\.a' is no name"),
    "blank": (lambda f: {"captures": [f"D 1={f}/run2"]}, r"'D 1' is no name"),
    "twice": (lambda f: {"captures": [f"D1={f}/run2", f"D1={f}/run1"]}, r"a capture D1 already, .*run2"),
    "not there": (lambda f: {"captures": [f"D1={f}/run3"]}, r"run3 does not exist"),
    "broken link": (broken_link, r"gone is a link to /nowhere/run9, which is not there"),
    "a file": (lambda f: {"captures": [f"D1={f}/run2/cnts.tsv"]}, r"cnts\.tsv is a file\.\n.*folder"),
    "empty folder": (no_capture_at_all, r"empty"),
    "unknown platform": (lambda f: {"platform": "merfish"}, r"--platform merfish: not known\.\n.*visium_hd"),
    "a file is there": (lambda f: {"project": f / "block 7.PNG"}, r"block 7\.PNG is a file"),
    "below a file": (lambda f: {"project": f / "block 7.PNG" / "P"}, r"cannot be made: Not a directory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_and_nothing_is_written(files: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    changes = change(files)
    before = everything(files.parent)
    with pytest.raises(InputError, match=message) as caught:
        init(files, **changes)  # type: ignore[arg-type]
    assert caught.value.remedy
    assert everything(files.parent) == before


def test_a_file_system_without_links_is_told_and_nothing_is_copied(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path, target_is_directory: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    before = everything(files.parent)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(InputError, match=r"cannot be made a link to .*: Operation not permitted\.\n.*symbolic links"):
        init(files)
    assert everything(files.parent) == before


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["iscale", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_line_lays_out_a_project(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--mother", files / "block 7.PNG", "--capture", f"D1={files}/run1/cells.h5ad", "--capture"]
    assert command(monkeypatch, "init", files.parent / "P", *given, f"D2={files}/run2") == 2
    assert "Error: the slide's pixel size is unknown" in capsys.readouterr().err
    assert not (files.parent / "P").exists()
    arguments = (*given, f"D2={files}/run2", "--pixel-size-raw", "0.5")
    assert command(monkeypatch, "init", files.parent / "P", *arguments) == 0
    assert "capture D2: tables" in capsys.readouterr().out
    assert command(monkeypatch, "run", files.parent / "P") == 2
    error = capsys.readouterr().err
    assert "Capture D1 has no image of its own to search for" in error
    assert "--landmarks" in error


def align(project: Path, name: str, matrix: np.ndarray) -> None:
    path = project / "DaughterCaptures/AllignedToMother" / name / "transform.json"
    write_transform(path, Transform(matrix, "given"))


def test_a_run_from_a_measurement_and_its_transform(files: Path) -> None:
    init(files)
    project = files.parent / "P"
    align(project, "D1", MATRIX)
    iscale.run(project, stage="plot", n_plots=1, dist_st=0, captures=("D1",))
    run = iscale.open_run(project)
    data, given = run.captures["D1"], ad.read_h5ad(files / "run1" / "cells.h5ad")
    np.testing.assert_array_equal(data.obsm["spatial"], given.obsm["spatial"])
    np.testing.assert_array_equal(data.uns["transform"], MATRIX)
    np.testing.assert_array_equal(data.X.toarray(), given.X.toarray())
    assert list(data.var["gene_ids"]) == list(given.var["gene_ids"])
    x, y = given.obsm["spatial"].T
    np.testing.assert_allclose(iscale.on_mother(data), np.column_stack([900 - y, x + 100]) * 0.5)
    assert run.training["radius"].values.tolist() == [20.0] * 36, "the measurement states the spots' diameter"
    np.testing.assert_allclose(run.training["xy"].values, iscale.on_mother(data))
    assert len(list((project / "iSCALE_output/spot_level_st_plots/D1").glob("*.png"))) == 1
    notices = json.loads((project / "iSCALE_output/report.json").read_text())["notices"]
    assert any(n.startswith("Capture D1: 36 spots of h5ad, radius 20 um; turned by 90.0 degrees") for n in notices)


def test_the_same_captures_by_tables_and_by_a_transform(tmp_path: Path) -> None:
    """The demo's tables in the captures' own pixels, placed by a transform, are its aligned tables."""
    demo_project = write_demo(tmp_path / "demo", side_px=2048).project
    captures = demo_project / "DaughterCaptures"
    names = ["D1", "D2", "D3"]
    project = tmp_path / "P"
    slide = demo_project / "MotherImage" / "he-raw.tif"
    init_project(project, slide, [f"{name}={captures}/UnallignedToMother/{name}" for name in names])
    shutil.copy(demo_project / "MotherImage" / "radius-raw.txt", project / "MotherImage")
    for name in names:
        own, aligned = (
            pd.read_csv(captures / folder / name / "locs.tsv", sep="\t", index_col=0).to_numpy()
            for folder in ("UnallignedToMother", "AllignedToMother")
        )
        fitted = np.linalg.lstsq(np.column_stack([own, np.ones(len(own))]), aligned, rcond=None)[0]
        align(project, name, np.vstack([fitted.T, [0, 0, 1]]))
    shutil.copy(captures / "AllignedToMother/D3/radius.txt", project / "DaughterCaptures/AllignedToMother/D3")

    by_tables = Job(demo_project, load_options(demo_project, {})).captures
    by_transform = Job(project, load_options(project, {})).captures
    assert [c.name for c in by_transform] == names
    for one, other in zip(by_tables, by_transform, strict=True):
        assert (one.spot_ids, one.genes, one.radius_um) == (other.spot_ids, other.genes, other.radius_um)
        np.testing.assert_allclose(one.xy_px, other.xy_px, atol=0.05)
        np.testing.assert_array_equal(one.counts.toarray(), other.counts.toarray())
        assert not np.allclose(other.source_xy_px, one.source_xy_px, atol=10)


def test_another_transform_is_another_run(files: Path) -> None:
    init(files)
    project = files.parent / "P"
    align(project, "D1", MATRIX)
    first = iscale.run(project, stage="fit", dist_st=0, captures=("D1",))
    moved = MATRIX + np.array([[0, 0, 4.0], [0, 0, 0], [0, 0, 0]])
    before = iscale.on_mother(iscale.open_run(first).captures["D1"])
    model = (first / "model" / "ensemble.safetensors").read_bytes()
    align(project, "D1", moved)
    iscale.run(project, stage="fit", dist_st=0, captures=("D1",))
    np.testing.assert_allclose(iscale.on_mother(iscale.open_run(first).captures["D1"]), before + np.array([2.0, 0.0]))
    assert (first / "model" / "ensemble.safetensors").read_bytes() != model


def settings(project: Path, text: str) -> Options:
    (project / "iscale.toml").write_text(text)
    return load_options(project, {})


def test_settings_of_single_captures(files: Path) -> None:
    project = files.parent / "P"
    init(files)
    Image.new("RGB", (9, 9)).save(project / "mine.png")
    options = settings(
        project, 'platform = "visium"\n[capture.D1]\nplatform = "h5ad"\nbin_um = 16\nimage = "mine.png"\n'
    )
    assert options.reading("D1", project) == {
        "platform": "h5ad",
        "bin_um": 16.0,
        "pixel_size_um": None,
        "section": None,
        "unit": None,
        "image": project / "mine.png",
    }
    nothing = {"bin_um": None, "pixel_size_um": None, "section": None, "unit": None, "image": None}
    assert options.reading("D2", project) == {"platform": "visium", **nothing}
    flagged = load_options(project, {"platform": "tables"})
    assert [flagged.reading(name, project)["platform"] for name in ("D1", "D2")] == ["tables", "tables"]
    assert flagged.capture["D1"].bin_um == 16


BAD_SETTINGS = {
    "[capture.D1]\nbin = 8": r"iscale\.toml: capture\.D1\.bin = 8: no such option",
    "[capture.D1]\nbin_um = -8": r"capture\.D1\.bin_um = -8 cannot be used\.\n  Give a number above 0, at most 1000",
    '[capture.D1]\npixel_size_um = "small"': r"capture\.D1\.pixel_size_um = 'small' .*\n  Give a number above 0, at",
    '[capture.D1]\nplatform = "merfish"': r"capture\.D1\.platform = 'merfish' .*\n  Give visium, visium_hd, ",
    'platform = "merfish"': r"iscale\.toml: platform = 'merfish'",
    "capture = 3": r"iscale\.toml: capture = 3 cannot be used\.\n  Give a table of keys and values",
    "[capture]\nD1 = 3": r"capture\.D1 = 3",
}


@pytest.mark.parametrize("text", BAD_SETTINGS)
def test_settings_that_are_wrong(files: Path, text: str) -> None:
    files.joinpath("iscale.toml").write_text(text)
    with pytest.raises(InputError, match=BAD_SETTINGS[text]):
        load_options(files, {})


def test_a_flag_that_is_wrong_is_named_as_a_flag(files: Path) -> None:
    (files / "iscale.toml").write_text("[capture]\nD1 = 3")
    with pytest.raises(InputError, match=r"--platform = 'merfish'"):
        load_options(files, {"platform": "merfish"})


def test_settings_of_a_capture_or_an_image_that_is_not_there(files: Path) -> None:
    init(files)
    project = files.parent / "P"
    align(project, "D1", MATRIX)
    job = Job(project, settings(project, "[capture.D9]\nbin_um = 8\n"))
    with pytest.raises(InputError, match=r"iscale\.toml: \[capture\]: There is no capture 'D9'.*\n.*There are: D1, D2"):
        _ = job.files
    assert Job(project, job.options, with_captures=False).files.captures == ()
    job = Job(project, settings(project, '[capture.D1]\nimage = "he.tif"\n'))
    with pytest.raises(InputError, match=r"\[capture\.D1\] image = 'he\.tif': there is no file .*P/he\.tif"):
        _ = job.captures


def test_a_radius_of_its_own_counts_before_the_platforms(files: Path) -> None:
    init(files)
    project = files.parent / "P"
    align(project, "D1", MATRIX)
    (project / "DaughterCaptures/AllignedToMother/D1/radius.txt").write_text("30")
    (capture,) = Job(project, load_options(project, {})).captures
    assert capture.radius_um == 15.0
    assert os.fspath(capture.name) == "D1"


def test_platforms_are_those_that_are_read() -> None:
    assert get_args(Platform) == PLATFORMS

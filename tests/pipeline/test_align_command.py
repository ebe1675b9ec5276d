"""``iscale align`` on a small project: the ways, what is written, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iscale import on_mother
from iscale.cli.app import main
from iscale.pipeline.run import run
from iscale.results import open_run
from iscale.transform import read_transform

OWN = Path("DaughterCaptures") / "UnallignedToMother"
ALIGNED = Path("DaughterCaptures") / "AllignedToMother"
pytestmark = pytest.mark.usefixtures("tissue_learnt_once")
PIXEL_UM = 4.0
CORNER = np.array([90, 105])
"""x, y on the mother image of the first pixel of a capture's image."""


@pytest.fixture
def project(tiny_project: Path) -> Path:
    """One capture, D1, whose own image is a piece of the mother image: the tiny project at half its pixels, coarse."""
    path = tiny_project / "MotherImage" / "he-raw.png"
    mother = np.asarray(Image.open(path).reduce(2))
    Image.fromarray(mother).save(path)
    (path.parent / "pixel-size-raw.txt").write_text(f"{PIXEL_UM}\n")
    (path.parent / "radius-raw.txt").write_text("20\n")
    (tiny_project / "iscale.toml").write_text(f"pixel_size = {PIXEL_UM}\ndist_st = 0\n")
    measured = tiny_project / OWN / "D1"
    measured.mkdir(parents=True)
    x, y = CORNER
    Image.fromarray(mother[y : y + 350, x : x + 370]).save(measured / "he.png")
    (measured / "pixel-size.txt").write_text(f"{PIXEL_UM}\n")
    (measured / "radius.txt").write_text("20\n")
    shutil.copy(tiny_project / ALIGNED / "D1" / "cnts.tsv", measured)
    rows = [line.split("\t") for line in (tiny_project / ALIGNED / "D1" / "locs.tsv").read_text().splitlines()[1:]]
    moved = [f"{name}\t{float(at) / 2 - x}\t{float(down) / 2 - y}" for name, at, down in rows]
    (measured / "locs.tsv").write_text("\n".join(["spot\tx\ty", *moved]) + "\n")
    shutil.rmtree(tiny_project / ALIGNED)
    (tiny_project / ALIGNED).mkdir()
    return tiny_project


def align(monkeypatch: pytest.MonkeyPatch, *arguments: object, drawn: bool = False) -> int:
    """The exit code of the command, which draws its figures where that is asked for."""
    with monkeypatch.context() as patch:
        if not drawn:
            patch.setattr("iscale.plots.alignment.draw_alignment", lambda *_: None)
        patch.setattr("sys.argv", ["iscale", "align", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)


def placed(project: Path) -> np.ndarray:
    return read_transform(project / ALIGNED / "D1" / "transform.json").matrix


SHIFT = np.array([[1, 0, CORNER[0]], [0, 1, CORNER[1]], [0, 0, 1.0]])


def pairs(project: Path, count: int, wrong: int | None = None, unit: str = "") -> Path:
    at = np.array([[25, 30], [325, 40], [45, 300], [320, 310], [150, 175], [250, 100]])[:count]
    to = at + CORNER
    if wrong is not None:
        to[wrong] += 150
    path = project.parent / "pairs.csv"
    head = f"name,capture_x{unit},capture_y{unit},mother_x,mother_y"
    rows = [f"p{i},{a[0]},{a[1]},{b[0]},{b[1]}" for i, (a, b) in enumerate(zip(at, to, strict=True))]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_by_the_images_and_a_run_follows(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(monkeypatch, project, drawn=True) == 0
    corners = np.array([[0, 0, 1], [370, 0, 1], [0, 350, 1], [370, 350, 1.0]])
    assert np.abs(corners @ placed(project).T - corners @ SHIFT.T).max() < 6
    out = capsys.readouterr().out
    assert "D1" in out
    folder = project / "iSCALE_output" / "alignment"
    with Image.open(folder / "D1.png") as figure:
        assert figure.size[0] >= 1000
    said = json.loads((folder / "alignment.json").read_text())["D1"]
    assert said["how"] == "automatic"
    assert said["quality"]["residual_um"] is None
    assert len((folder / "alignment.tsv").read_text().splitlines()) == 2


def test_a_run_aligns_what_nothing_places(project: Path) -> None:
    run(project, stage="predict", n_genes=4)
    capture = open_run(project).captures["D1"]
    own = np.loadtxt(project / OWN / "D1" / "locs.tsv", skiprows=1, usecols=(1, 2))
    np.testing.assert_allclose(capture.obsm["spatial"], own)
    np.testing.assert_allclose(capture.uns["transform"], placed(project))
    np.testing.assert_allclose(on_mother(capture), (own + CORNER) * PIXEL_UM, atol=6 * PIXEL_UM)


def test_by_landmarks_with_one_wrong(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(monkeypatch, project, "--landmarks", pairs(project, 6, wrong=2)) == 0
    np.testing.assert_allclose(placed(project), SHIFT, atol=1e-6)
    assert "p2" in capsys.readouterr().err
    assert read_transform(project / ALIGNED / "D1" / "transform.json").measures["outliers"] == ["p2"]


def test_landmarks_in_the_capture_s_folder_are_found(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ALIGNED / "D1").mkdir()
    shutil.copy(pairs(project, 4), project / ALIGNED / "D1" / "landmarks.csv")
    assert align(monkeypatch, project) == 0
    np.testing.assert_allclose(placed(project), SHIFT, atol=1e-6)


def test_by_aligned_tables(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ALIGNED / "D1").mkdir()
    lines = (project / OWN / "D1" / "locs.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    moved = [f"{n}\t{float(x) + CORNER[0]}\t{float(y) + CORNER[1]}" for n, x, y in rows]
    (project / ALIGNED / "D1" / "locs.tsv").write_text("\n".join([lines[0], *moved]) + "\n")
    assert align(monkeypatch, project) == 0
    np.testing.assert_allclose(placed(project), SHIFT, atol=1e-6)
    assert read_transform(project / ALIGNED / "D1" / "transform.json").how == "tables"


def test_the_mother_image_as_own_image_needs_no_search(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = project / OWN / "D1" / "he.png"
    image.unlink()
    image.symlink_to(project / "MotherImage" / "he-raw.png")
    locs = project / OWN / "D1" / "locs.tsv"
    rows = [line.split("\t") for line in locs.read_text().splitlines()[1:]]
    moved = [f"{name}\t{float(x) + CORNER[0]}\t{float(y) + CORNER[1]}" for name, x, y in rows]
    locs.write_text("\n".join(["spot\tx\ty", *moved]) + "\n")
    assert align(monkeypatch, project) == 0
    np.testing.assert_array_equal(placed(project), np.eye(3))


def test_a_transform_is_kept_until_told_otherwise(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = project.parent / "matrix.json"
    matrix.write_text(json.dumps({"matrix": [[1, 0, 93], [0, 1, 105], [0, 0, 1]]}))
    assert align(monkeypatch, project, "--matrix", matrix) == 0
    target = project / ALIGNED / "D1" / "transform.json"
    edited = target.read_text().replace("93.0", "94.0")
    target.write_text(edited)
    assert align(monkeypatch, project) == 0
    assert target.read_text() == edited
    assert placed(project)[0, 2] == 94
    assert align(monkeypatch, project, "--again") == 0
    assert placed(project)[0, 2] != 94


def test_a_matrix_is_refined_by_the_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = project.parent / "matrix.json"
    matrix.write_text(json.dumps([[1, 0, 102], [0, 1, 95], [0, 0, 1]]))
    assert align(monkeypatch, project, "--matrix", matrix, "--refine") == 0
    assert np.abs(placed(project)[:2, 2] - CORNER).max() < 6
    assert "refined" in read_transform(project / ALIGNED / "D1" / "transform.json").how


def test_bad_landmarks_do_not_replace_a_transform(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = project.parent / "matrix.json"
    matrix.write_text(json.dumps(SHIFT.tolist()))
    assert align(monkeypatch, project, "--matrix", matrix) == 0
    before = (project / ALIGNED / "D1" / "transform.json").read_bytes()
    far = project.parent / "far.csv"
    rows = [
        f"p{i},{x},{y},{x + 450},{y - 250}" for i, (x, y) in enumerate([(25, 30), (325, 40), (45, 300), (320, 310)])
    ]
    far.write_text("\n".join(["name,capture_x,capture_y,mother_x,mother_y", *rows]) + "\n")
    assert align(monkeypatch, project, "--landmarks", far, drawn=True) == 2
    error = capsys.readouterr().err
    assert "but badly" in error
    assert (project / ALIGNED / "D1" / "transform.json").read_bytes() == before
    refused = project / "iSCALE_output" / "alignment" / "D1-refused.json"
    assert str(refused) in error
    assert align(monkeypatch, project, "--matrix", refused) == 1
    assert placed(project)[0, 2] == pytest.approx(450)
    assert (project / ALIGNED / "D1" / "transform-earlier.json").read_bytes() == before


def test_a_broken_transform_is_no_hindrance_to_align_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ALIGNED / "D1").mkdir()
    (project / ALIGNED / "D1" / "transform.json").write_text('{"matrix": [[1, 2')
    assert align(monkeypatch, project) == 2
    assert align(monkeypatch, project, "--again") == 0
    assert np.abs(placed(project)[:2, 2] - CORNER).max() < 6


REFUSED = {
    "a matrix that is no JSON": ("--matrix", '{"matrix": [[1, 0', r"cannot be read as JSON"),
    "a singular matrix": ("--matrix", '{"matrix": [[1, 2, 0], [2, 4, 0], [0, 0, 1]]}', r"singular"),
    "one landmark": ("--landmarks", "name,capture_x,capture_y,mother_x,mother_y\na,1,1,2,2\n", r"1 landmark"),
    "landmarks at one place": (
        "--landmarks",
        "name,capture_x,capture_y,mother_x,mother_y\na,1,1,2,2\nb,1,1,2,2\nc,1,1,2,2\n",
        r"lie within 0 px",
    ),
    "other columns": ("--landmarks", "a,b,c\n1,2,3\n", r"column"),
    "no such file": ("--landmarks", None, r"does not exist|cannot be read|no file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_place_is_one_error_and_nothing_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    flag, text, message = REFUSED[case]
    path = project.parent / ("given.json" if flag == "--matrix" else "given.csv")
    if text is not None:
        path.write_text(text)
    assert align(monkeypatch, project, flag, path) == 2
    error = capsys.readouterr().err
    assert error.count("Error: ") == 1
    assert "Traceback" not in error
    assert re.search(message, error), error
    assert not list((project / ALIGNED).rglob("*.json"))
    assert not (project / "iSCALE_output").exists()


def test_an_affine_of_landmarks_on_a_line_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project.parent / "line.csv"
    rows = [f"p{i},{25 * i},{35 * i},{25 * i + 90},{35 * i + 105}" for i in range(6)]
    path.write_text("\n".join(["name,capture_x,capture_y,mother_x,mother_y", *rows]) + "\n")
    assert align(monkeypatch, project, "--landmarks", path, "--kind", "affine") == 2
    assert "line" in capsys.readouterr().err


def test_a_capture_without_image_or_landmarks_says_what_to_give(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / OWN / "D1" / "he.png").unlink()
    assert align(monkeypatch, project) == 2
    error = capsys.readouterr().err
    assert "no image of its own" in error
    assert "--landmarks" in error


def test_one_that_is_refused_does_not_keep_the_other_from_being_placed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project / OWN / "D1", project / OWN / "A")
    (project / OWN / "A" / "he.png").unlink()
    assert align(monkeypatch, project) == 2
    assert "Placed, and kept: D1" in capsys.readouterr().err
    assert (project / ALIGNED / "D1" / "transform.json").is_file()
    assert not (project / ALIGNED / "A").exists()


def test_one_file_of_landmarks_is_not_for_two_captures(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project / OWN / "D1", project / OWN / "D2")
    assert align(monkeypatch, project, "--landmarks", pairs(project, 4)) == 2
    assert "--captures D1" in capsys.readouterr().err


def test_a_unit_without_a_pixel_size_is_missing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / OWN / "D1" / "pixel-size.txt").unlink()
    assert align(monkeypatch, project, "--landmarks", pairs(project, 4, unit="_um")) == 2
    assert "pixel size" in capsys.readouterr().err

"""Every kind of bad input: exit code 2, one message that names file, numbers and remedy, and nothing written."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from iscale import open_run
from iscale.cli.app import main
from iscale.errors import StoreError
from iscale.pipeline import run as pipeline

COUNTS, PLACES = "DaughterCaptures/AllignedToMother/D1/cnts.tsv", "DaughterCaptures/AllignedToMother/D1/locs.tsv"


def iscale(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["iscale", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def replace(path: str, old: str, new: str, count: int = 1) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        text = (project / path).read_text()
        assert re.search(old, text, re.M)
        (project / path).write_text(re.sub(old, new, text, count=count, flags=re.M))

    return change


def write(path: str, content: str | bytes) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (project / path).write_bytes(data)

    return change


def no_captures(project: Path) -> None:
    shutil.rmtree(project / "DaughterCaptures")


def scale_locations(factor: float) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        head, *rows = (project / PLACES).read_text().splitlines()
        cells = [row.split("\t") for row in rows]
        scaled = [f"{c[0]}\t{float(c[1]) * factor}\t{float(c[2]) * factor}" for c in cells]
        (project / PLACES).write_text("\n".join([head, *scaled]) + "\n")

    return change


def swapped_on_a_wide_slide(project: Path) -> None:
    from PIL import Image

    path = project / "MotherImage" / "he-raw.png"
    image = np.asarray(Image.open(path))
    Image.fromarray(np.ascontiguousarray(image[:, :512])).save(path)
    for name in ("D1", "D2"):
        places = project / PLACES.replace("D1", name)
        head, *rows = places.read_text().splitlines()
        cells = [row.split("\t") for row in rows]
        places.write_text("\n".join([head, *(f"{c[0]}\t{c[2]}\t{float(c[1]) / 2}" for c in cells)]) + "\n")


def truncated_tiff(project: Path) -> None:
    (project / "MotherImage" / "he-raw.png").unlink()
    path = project / "MotherImage" / "he-raw.tif"
    noise = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), np.uint8)
    tifffile.imwrite(path, noise, tile=(256, 256), compression="zlib", photometric="rgb")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def other_genes(project: Path) -> None:
    replace(COUNTS, r"G(\d)", r"ENSG0000\1", 8)(project)


def few_spots(project: Path) -> None:
    shutil.rmtree(project / "DaughterCaptures" / "AllignedToMother" / "D2")
    text = (project / PLACES).read_text().splitlines()
    (project / PLACES).write_text("\n".join(text[:9]) + "\n")


CASES: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no captures": (no_captures, [], r"captures"),
    "unknown capture": (lambda p: None, ["--captures", "D1", "D7"], r"D7.*D1, D2"),
    "spots outside": (scale_locations(3.7), [], r"locs\.tsv.*\d+ of (the )?36 "),
    "scale off by a constant": (scale_locations(4.0), [], r"factor|divide|0\.25|4"),
    "x and y swapped": (swapped_on_a_wide_slide, [], r"swap"),
    "ids that differ": (replace(PLACES, "^s", "spot_", 36), [], r"spot_00.*s00|s00.*spot_00"),
    "duplicate ids": (replace(COUNTS, "^s01", "s00"), [], r"cnts\.tsv.*s00"),
    "duplicate genes": (replace(COUNTS, "G1", "G0"), [], r"cnts\.tsv.*G0"),
    "NaN count": (replace(COUNTS, r"^s02\t\d+", "s02\tnan"), [], r"cnts\.tsv.*s02.*G0|cnts\.tsv.*G0.*s02"),
    "negative count": (replace(COUNTS, r"^s02\t\d+", "s02\t-3"), [], r"cnts\.tsv.*-3"),
    "count that is text": (replace(COUNTS, r"^s02\t\d+", "s02\tmany"), [], r"cnts\.tsv.*many"),
    "empty counts": (write(COUNTS, ""), [], r"cnts\.tsv.*empty"),
    "truncated TIFF": (truncated_tiff, ["--pixel-size-raw", "0.5"], r"he-raw\.tif"),
    "text renamed png": (write("MotherImage/he-raw.png", "not an image"), [], r"he-raw\.png"),
    "pixel size 0": (write("MotherImage/pixel-size-raw.txt", "0"), [], r"pixel-size-raw\.txt"),
    "pixel size negative": (lambda p: None, ["--pixel-size-raw", "-1"], r"-1.*--pixel-size-raw|--pixel-size-raw.*-1"),
    "pixel size 100": (lambda p: None, ["--pixel-size-raw", "100"], r"100 um"),
    "pixel sizes that contradict": (lambda p: None, ["--pixel-size-raw", "0.25"], r"0\.25.*0\.5|0\.5.*0\.25"),
    "analysis pixel size 0": (lambda p: None, ["--pixel-size", "0"], r"--pixel-size = 0"),
    "radius larger than the image": (write("MotherImage/radius-raw.txt", "5000"), [], r"radius"),
    "no gene shared": (other_genes, [], r"share.*ENSG|ENSG.*share"),
    "fewer spots than a batch": (few_spots, [], r"8 .*16"),
    "memory not a size": (lambda p: None, ["--memory", "lots"], r"--memory = 'lots'"),
    "memory too small": (
        lambda p: None,
        ["--memory", "100MB"],
        r"the most of all steps; the budget is 100MB\.\n.*--memory \d+MB",
    ),
    "no such encoder": (lambda p: None, ["--encoder", "resnet"], r"--encoder resnet: no encoder.*texture, hipt"),
    "no CUDA": (lambda p: None, ["--device", "cuda"], r"CUDA"),
    "settings not TOML": (write("iscale.toml", "n_genes = = 3"), [], r"iscale\.toml"),
    "no cluster": (lambda p: None, ["--n-clusters", "0"], r"--n-clusters = '0' .*Give whole numbers from 2 to 100"),
    "one cluster": (
        lambda p: None,
        ["--n-clusters", "1", "8"],
        r"--n-clusters = '1', '8' .*Give whole numbers from 2 to",
    ),
    "clusters in words": (lambda p: None, ["--n-clusters", "ten"], r"'ten' .*Give whole numbers .*--n-clusters 6 10"),
    "half a cluster": (lambda p: None, ["--n-clusters", "2.5"], r"--n-clusters = '2\.5' .*Give whole numbers"),
    "minus one cluster": (lambda p: None, ["--n-clusters", "-1"], r"--n-clusters = '-1' .*Give whole numbers"),
    "a seed that is too large": (lambda p: None, ["--seed", "3000000000"], r"a whole number from 0 to 2,147,483,647"),
    "a choice that is none": (
        lambda p: None,
        ["--recipe", "new"],
        r"--recipe = 'new' cannot be used\.\n  Give default or published\.",
    ),
    "setting unknown": (
        write("iscale.toml", "n_gene = 3"),
        [],
        r"n_gene = 3: no such option; did you mean n_genes\?",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_error(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, flags, message = CASES[case]
    change(tiny_project)
    assert iscale(monkeypatch, "run", tiny_project, *flags) == 2
    error = capsys.readouterr().err
    found = error[error.index("Error: ") :]
    assert re.search(message, found, re.S), found
    assert "Traceback" not in error
    assert len(found.strip().splitlines()) >= 2, f"no remedy: {found}"
    if case != "truncated TIFF":
        assert not (tiny_project / "iSCALE_output").exists()


def test_the_tiny_project_itself_runs(tiny_original_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (tiny_original_run / "iSCALE_output" / "super_res_ST_plots").is_dir()
    assert iscale(monkeypatch, "run", tiny_original_run, "--dry-run") == 0


def test_dry_run_writes_nothing(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert iscale(monkeypatch, "run", tiny_project, "--dry-run") == 0
    assert re.search(r"^predict +1 +0 ", capsys.readouterr().out, re.M)
    assert not (tiny_project / "iSCALE_output").exists()


def test_a_run_of_another_version_is_refused_and_kept(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    zarr.create_group(tiny_project / "iSCALE_output" / "run.zarr", attributes={"iscale": {"store_version": 0}})
    assert iscale(monkeypatch, "run", tiny_project) == 2
    assert re.search(r"store version 0.*\n.*--restart", capsys.readouterr().err)


def test_a_disk_without_room_is_refused_before_any_work(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))
    assert iscale(monkeypatch, "run", tiny_project) == 2
    assert re.search(r"1 KB of disk are free, the run needs up to .*\n.*--out", capsys.readouterr().err)
    assert not (tiny_project / "iSCALE_output").exists()


def test_a_disk_that_fills_up_stops_the_run_with_what_is_done_kept(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iscale.store.run_store import RunStore

    writing = RunStore.write

    def full(self: RunStore, path: str, *rest: object) -> None:
        if path == "expression/depth":
            raise OSError(28, "No space left on device", str(self.folder))
        writing(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(RunStore, "write", full)
    with pytest.raises(StoreError, match="No space left on device"):
        pipeline.run(tiny_project, stage="predict")
    monkeypatch.undo()
    pipeline.run(tiny_project, stage="predict")
    report = (tiny_project / "iSCALE_output" / "report.json").read_text()
    assert '"step": "features"' in report


def test_stages_of_the_image_need_no_captures(tiny_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_captures(tiny_project)
    assert iscale(monkeypatch, "tissue", tiny_project) == 0


def shift_locations(project: Path) -> None:
    for name in ("D1", "D2"):
        path = project / PLACES.replace("D1", name)
        head, *rows = path.read_text().splitlines()
        cells = [row.split("\t") for row in rows]
        path.write_text("\n".join([head, *(f"{c[0]}\t{c[1]}\t{float(c[2]) + 140}" for c in cells)]) + "\n")


def test_spots_off_the_tissue_are_told(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shift_locations(tiny_project)
    assert iscale(monkeypatch, "fit", tiny_project) == 0
    assert re.search(
        r"Warning: \d+ of \d+ spots \(.*\) lie off the tissue\. Check the alignment", capsys.readouterr().err
    )
    assert iscale(monkeypatch, "info", tiny_project) == 0
    assert "lie off the tissue" in capsys.readouterr().out


def test_a_run_at_another_pixel_size_is_not_overwritten(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert iscale(monkeypatch, "ingest", tiny_project) == 0
    assert iscale(monkeypatch, "ingest", tiny_project, "--pixel-size", 1.0) == 2
    assert "at 0.5 um per pixel, this one would be at 1.\n  Say --pixel-size 0.5" in capsys.readouterr().err


def test_two_runs_do_not_work_in_one_folder(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from iscale.store.run_store import RunStore

    with RunStore(tiny_project / "iSCALE_output").lock():
        assert iscale(monkeypatch, "ingest", tiny_project) == 2
    assert re.search(r"another iscale run is at work here \(process \d+ on ", capsys.readouterr().err)
    assert iscale(monkeypatch, "ingest", tiny_project) == 0


def test_lost_and_damaged_outputs_are_made_anew_or_told(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tiny_run / "iSCALE_output"
    shutil.rmtree(out / "super_res_ST_plots")
    shutil.rmtree(out / "model")
    (out / "run.zarr" / "expression" / "expression" / "zarr.json").unlink()
    assert iscale(monkeypatch, "run", tiny_run, "--n-plots", 1) == 0
    sheet, gene = sorted((out / "super_res_ST_plots").glob("*.png"), key=lambda path: path.name != "contact-sheet.png")
    assert (sheet.name, gene.stem[0]) == ("contact-sheet.png", "G")
    assert (out / "model" / "ensemble.safetensors").is_file()
    assert "expression (gene, y, x: 8 x 64 x 64) float16" in open_run(tiny_run).describe()
    capsys.readouterr()

    (out / "run.zarr" / "image" / "0" / "zarr.json").write_text("{")
    assert iscale(monkeypatch, "info", tiny_run) == 2
    assert re.search(r"run\.zarr/image: cannot be read .*\n.*--restart", capsys.readouterr().err)
    assert iscale(monkeypatch, "predict", tiny_run, "--seed", 1, "--restart") == 0
    shard = next((out / "run.zarr" / "features" / "texture" / "c").rglob("0"))
    while shard.is_dir():
        shard = next(shard.iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    assert iscale(monkeypatch, "predict", tiny_run, "--seed", 2) == 3
    assert "--restart makes it anew" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_one_clear_error(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny_project / "file"
    file.write_text("")
    for out in (file, file / "out"):
        assert iscale(monkeypatch, "run", tiny_project, "--out", out) == 2
        assert f"--out {out}: {file} is a file." in capsys.readouterr().err


def test_a_demo_at_a_file_is_refused_before_it_is_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "afile").write_text("")
    monkeypatch.setattr("iscale.demo.command.write_demo", lambda *_: pytest.fail("it was painted"))
    assert iscale(monkeypatch, "demo", tmp_path / "afile") == 2
    assert "afile is a file, not a folder" in capsys.readouterr().err


def test_a_run_is_no_project_to_hold_out_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "run.zarr").mkdir(parents=True)
    for run in (tmp_path / "out", tmp_path / "out" / "run.zarr"):
        assert iscale(monkeypatch, "evaluate", run, "--hold-out", "spots") == 2
        assert "Name the project: iscale evaluate PROJECT --hold-out spots." in capsys.readouterr().err


def test_more_clusters_than_superpixels_are_refused_once_there_is_a_mask(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    mask = np.zeros((1024, 1024), np.uint8)
    mask[320:400, 320:400] = 255
    Image.fromarray(mask).save(tiny_project / "MotherImage" / "mask-raw.png")
    assert iscale(monkeypatch, "cluster", tiny_project, "--n-clusters", 40) == 2
    error = capsys.readouterr().err
    assert "There cannot be 40 clusters: the tissue has 25 superpixels." in error
    assert "Ask for 25 or fewer with --n-clusters" in error

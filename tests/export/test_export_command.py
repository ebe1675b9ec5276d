"""What is refused, and what is left behind when a disk is full or the user stops it: nothing."""

from __future__ import annotations

import inspect
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import pytest
from whole_runs import GENES, tissue_of, write_whole_run

from iscale.engine.watchers import Silence
from iscale.errors import InputError, StoreError
from iscale.export import command, h5ad
from iscale.export.command import KINDS, export_run
from iscale.results import Run, open_run
from iscale.store.lock import hold

SMALL = (64, 96)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_whole_run(tmp_path / "PROJECT" / "iSCALE_output", SMALL)


def files(folder: Path) -> list[str]:
    """All files and folders, but those of a run."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if "run.zarr" not in name and ".iscale" not in name)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("h5da", {}, "--to h5da: there is no such format.\n  Did you mean h5ad\\? Choose one of h5ad, spatialdata"),
        ("h5ad", {"genes": "KRT9"}, "'KRT9'.*\n.*KRT8"),
        ("h5ad", {"genes": ["hla-a"]}, "'hla-a'.*\n.*HLA-A"),
        ("h5ad", {"genes": ","}, "No gene is named"),
        ("h5ad", {"genes": "nowhere/genes.txt"}, "neither such a file"),
        (
            "h5ad",
            {"bin_um": 12},
            "--bin 12: bins are 1, 2, 4, 8 or 16 superpixels wide, which are 8 um.*\n.*8, 16, 32, 64, 128",
        ),
        ("h5ad", {"bin_um": -8}, "--bin -8"),
        ("h5ad", {"bin_um": float("nan")}, "--bin nan"),
        ("ome-zarr", {"bin_um": 8}, "ome-zarr has no bins"),
        ("pickle", {"window": "0,0,9,9"}, "pickle holds whole slides"),
        ("parquet", {"window": "800,0,900,100"}, "lies outside of the slide, which is 768 x 512 um"),
        ("parquet", {"window": "10,10,10,20"}, "--window 10,10,10,20 is empty"),
        ("parquet", {"window": (0, 0, float("nan"), 5)}, "four numbers are needed"),
        ("parquet", {"window": "0,0,10"}, "four numbers are needed"),
        ("parquet", {"window": "0,480,40,510"}, r"no tissue in the window \(x 0 to 40, y 480 to 512 um\)"),
        ("h5ad", {"window": "0,480,40,510"}, "no tissue in the window"),
        ("spatialdata", {"window": "0,480,40,510"}, "no tissue in the window"),
        ("ome-zarr", {"window": "0,480,40,510"}, "no tissue in the window"),
        ("h5ad", {"out": "bins.parquet"}, "the name must end in .h5ad"),
        ("ome-tiff", {"out": "image.tif"}, "the name must end in .ome.tif or .ome.tiff"),
    ],
)
def test_what_cannot_be_is_one_message(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, object], said: str
) -> None:
    assert not tissue_of(SMALL)[60:64, :5].any()
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    with pytest.raises(InputError, match=said):
        export_run(tmp_path / "PROJECT", kind, **options)
    assert [name for name in files(tmp_path) if not name.endswith("export")] == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_is_there_stays_unless_it_is_to_be_replaced(run: Run, tmp_path: Path, kind: str) -> None:
    text = export_run(run.store.folder, kind, genes="KRT8,ERBB2")
    target = Path(text.splitlines()[-1])
    assert run.store.folder in target.parents
    begun = target.stat().st_ino
    with pytest.raises(InputError, match=r"is there already.\n  Give --overwrite"):
        export_run(run.store.folder, kind)
    assert target.stat().st_ino == begun
    export_run(run.store.folder, kind, genes="KRT8", overwrite=True)
    assert target.stat().st_ino != begun
    assert not [name for name in files(tmp_path) if name.endswith(".part") or "levels" in name]


def test_pickles_that_go_with_their_folder_are_told(run: Run, tmp_path: Path) -> None:
    export_run(run.store.folder, "pickle", genes="KRT8,ERBB2", out=tmp_path / "p")
    text = export_run(run.store.folder, "pickle", genes="IGKC,KRT8", out=tmp_path / "p", overwrite=True)
    assert "with it went 1 pickle of other genes (ERBB2)" in text
    assert "went" not in export_run(run.store.folder, "pickle", genes="IGKC,KRT8", out=tmp_path / "p", overwrite=True)


@pytest.mark.parametrize("kind", ["spatialdata", "pickle"])
def test_a_folder_that_is_no_export_is_never_replaced(run: Run, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "mine.zarr"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is no export"):
        export_run(run.store.folder, kind, out=target, overwrite=True)
    assert (target / "thesis.txt").exists()


def test_the_run_itself_is_never_replaced(run: Run, tmp_path: Path) -> None:
    for target in (run.store.folder / "run.zarr", run.store.folder / "run.zarr" / "image.zarr"):
        with pytest.raises(InputError, match="is the run itself"):
            export_run(run.store.folder, "ome-zarr", out=target, overwrite=True)
    for target in (run.store.folder, tmp_path):
        with pytest.raises(InputError, match="is the run itself"):
            export_run(run.store.folder, "pickle", out=target, overwrite=True)
    assert open_run(run.store.folder).expression.sizes["gene"] == len(GENES)


def test_a_run_that_is_not_ready_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run.zarr"):
        export_run(tmp_path / "nowhere", "h5ad")
    with hold(run.store.folder), pytest.raises(InputError, match=r"a run is being written \(process \d+"):
        export_run(run.store.folder, "h5ad")
    run.store.mark("clusters/refined", "refine was made anew since")
    with pytest.raises(InputError, match=r"clusters/refined is of an earlier run.*\n.*iscale run PROJECT"):
        export_run(run.store.folder, "h5ad")
    run.store.mark("clusters", "--n-clusters is another")
    with pytest.raises(InputError, match=r"clusters is of an earlier run: --n-clusters is another.\n.*iscale run"):
        export_run(run.store.folder, "h5ad")
    export_run(run.store.folder, "ome-zarr")  # has no clusters in it
    run.store.mark("expression", "the captures are others")
    with pytest.raises(InputError, match=r"expression is of an earlier run.*\n.*iscale run"):
        export_run(run.store.folder, "ome-zarr", overwrite=True)
    store = write_whole_run(tmp_path / "other" / "iSCALE_output", SMALL).store
    store.make_group("expression", {})
    with pytest.raises(InputError, match=r"has no expression yet.\n.*iscale predict"):
        export_run(store.folder, "h5ad")


def test_genes_come_from_a_file_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("IGKC\nACTB\nIGKC\n")
    export_run(run.store.folder, "h5ad", genes=str(tmp_path / "genes.txt"), out=tmp_path / "bins.h5ad")
    assert ad.read_h5ad(tmp_path / "bins.h5ad").var_names.tolist() == ["IGKC", "ACTB"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A file that may grow no further fails as one on a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    run = write_whole_run(tmp_path / "iSCALE_output")
    target = tmp_path / "out" / f"target{KINDS[kind].suffixes[0] if KINDS[kind].suffixes else ''}"
    target.parent.mkdir()
    request.getfixturevalue("full_disk")
    with pytest.raises(StoreError) as failed:
        export_run(run.store.folder, kind, out=target)
    assert str(failed.value).startswith(f"{target}: cannot be written: there is no room left. Nothing is left of it.")
    assert files(target.parent) == []


def test_stopping_leaves_nothing_and_keeps_what_was_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(run.store.folder, "h5ad", out=tmp_path / "bins.h5ad")
    before = (tmp_path / "bins.h5ad").read_bytes()

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(h5ad, "write_anndata", stopped)
    with pytest.raises(KeyboardInterrupt):
        export_run(run.store.folder, "h5ad", out=tmp_path / "bins.h5ad", overwrite=True)
    assert (tmp_path / "bins.h5ad").read_bytes() == before
    assert files(tmp_path) == ["PROJECT", "PROJECT/iSCALE_output", "bins.h5ad"]


class Counted(Silence):
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}

    def start(self, step: str, total: int, done: int) -> None:
        self.parts[step] = [total]

    def reach(self, step: str, regions_done: float) -> None:
        self.parts[step].append(regions_done)


@pytest.mark.parametrize("kind", KINDS)
def test_progress_is_told_to_its_end(run: Run, tmp_path: Path, kind: str) -> None:
    counted = Counted()
    export_run(run.store.folder, kind, watcher=counted)
    for total, *reached in counted.parts.values():
        assert reached == list(range(1, int(total) + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_slide(tmp_path: Path, kind: str) -> None:
    def peak(rows: int) -> int:
        write_whole_run(tmp_path / f"{rows}", (rows, 128), GENES[:3], parts=("cells", "glass"))
        tracemalloc.start()
        try:
            export_run(tmp_path / f"{rows}", kind)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(64)  # what is imported
    small, large = peak(512), peak(2048)
    assert large < 2 * small + 2**20, f"{small / 2**20:.1f} MB, of four times as much {large / 2**20:.1f} MB"


def test_it_takes_what_the_command_line_gives() -> None:
    assert list(inspect.signature(export_run).parameters) == [
        "run", "kind", "genes", "out", "bin_um", "window", "overwrite", "watcher",
    ]  # fmt: skip
    assert set(KINDS) == {"h5ad", "spatialdata", "ome-zarr", "ome-tiff", "parquet", "pickle"}
    assert command.FOLDER == "export"

"""Opening a run reads lazily, by name, in um, and only what is asked for."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from PIL import Image
from zarr.storage import LocalStore, WrapperStore

import iscale
from iscale import open_run
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.results import Run
from iscale.store import layout
from iscale.store.run_store import RunStore

N_GENES, SHAPE = 3000, (256, 384)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A store of 3,000 genes, as ``predict`` lays it out."""
    store = RunStore(tmp_path_factory.mktemp("project") / "iSCALE_output")
    store.create()
    store.make_group("expression", {})
    array = layout.genes("expression/expression", N_GENES, SHAPE)
    store.make(array)
    store.put("expression/gene", tuple(f"G{i}" for i in range(N_GENES)), ("gene",))
    store.put_coordinates("expression", SHAPE, 8.0)
    rng = np.random.default_rng(0)
    for start in range(0, N_GENES, layout.GENES_PER_SHARD):
        stop = min(start + layout.GENES_PER_SHARD, N_GENES)
        for tile in Region(0, SHAPE[0], 0, SHAPE[1]).tiles(layout.SHARD_SUPERPIXELS):
            values = rng.integers(0, 60000, (stop - start, *tile.shape)).astype(np.float16)
            store.array(array.path, "r+")[(slice(start, stop), *tile.slices)] = values
    return open_run(store.folder)


class _Counting(WrapperStore[LocalStore]):
    """A store that counts the bytes of chunks that are read."""

    bytes_read = 0

    async def get(self, key, prototype, byte_range=None):  # type: ignore[no-untyped-def]
        found = await super().get(key, prototype, byte_range)
        if found is not None and "/c/" in key:
            _Counting.bytes_read += len(found)
        return found


def bytes_read(run: Run, monkeypatch: pytest.MonkeyPatch, select: object) -> int:
    def array(self: RunStore, path: str, mode: str = "r") -> zarr.Array:  # type: ignore[type-arg]
        return zarr.open_array(_Counting(LocalStore(self.root, read_only=True)), path=path, mode="r")

    monkeypatch.setattr(RunStore, "array", array)
    opened = open_run(run.store.folder).expression
    _Counting.bytes_read = 0
    select(opened).compute()  # type: ignore[operator]
    return _Counting.bytes_read


def test_arrays_are_lazy_and_have_names_and_um(run: Run) -> None:
    expression = run.expression
    assert expression.dims == ("gene", "y", "x")
    assert expression.shape == (N_GENES, *SHAPE)
    assert expression.chunks is not None
    assert expression["x"].values[:2].tolist() == [4.0, 12.0]
    assert expression["x"].attrs["units"] == "um"
    assert expression.sel(y=12.0, x=4.0, gene="G7").shape == ()


def test_one_gene_reads_only_the_chunks_that_hold_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = N_GENES * SHAPE[0] * SHAPE[1] * 2
    read = bytes_read(run, monkeypatch, lambda e: e.sel(gene="G1234"))
    assert read < 1.5 * everything * layout.GENES_PER_CHUNK / N_GENES
    two = bytes_read(run, monkeypatch, lambda e: e.sel(gene=["G1234", "G7"]))
    assert two < 4.5 * read


def test_a_window_reads_only_the_chunks_that_it_touches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = N_GENES * SHAPE[0] * SHAPE[1] * 2
    read = bytes_read(run, monkeypatch, lambda e: e.isel(y=slice(10, 60), x=slice(140, 200)))
    assert read < 1.2 * everything / 6


def test_sums_do_not_overflow(run: Run) -> None:
    total = float(run.expression.sel(gene="G0").sum())
    assert total == pytest.approx(30000 * SHAPE[0] * SHAPE[1], rel=0.02)


def test_any_zarr_reader_and_xarray_open_it_without_a_warning(run: Run) -> None:
    opened = xr.open_zarr(run.store.root, group="expression", consolidated=False)
    assert opened["expression"].sel(gene="G5").shape == SHAPE


@pytest.mark.parametrize("inner", [".", "iSCALE_output", "iSCALE_output/run.zarr"])
def test_a_run_opens_from_project_output_or_store(run: Run, inner: str) -> None:
    project = run.store.folder.parent
    assert open_run(project / inner).store.root.resolve() == run.store.root.resolve()


def test_what_is_not_there_yet_is_said_with_the_command_that_makes_it(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tissue/mask yet.*\n.*iscale tissue"):
        _ = run.tissue
    with pytest.raises(InputError, match=r"no run.zarr here.*\n.*iscale run"):
        open_run(tmp_path)
    assert "tissue: not there yet" in run.describe()


def test_a_partial_command_keeps_what_others_recorded(tiny_project: Path) -> None:
    """Options and steps of stages that it did not run stay; what no longer is of the run is marked, and no more."""
    markers = tiny_project / "MotherImage" / "markers.csv"
    markers.write_text("gene,label\nG0,tumour\nG1,stroma\nG99,fat\n")
    out = iscale.run(tiny_project, stage="annotate", n_clusters=(2, 3), n_genes=7, n_plots=5, seed=3)
    before = json.loads((out / "report.json").read_text())
    Image.fromarray(np.full((1024, 1024), 255, np.uint8)).save(tiny_project / "MotherImage" / "cells-raw.png")
    iscale.run(tiny_project, stage="refine", memory="3GB")
    after = json.loads((out / "report.json").read_text())
    assert [step["step"] for step in after["steps"]] == [step["step"] for step in before["steps"]]
    times = [{s["step"]: s["seconds"] for s in report["steps"]} for report in (before, after)]
    assert {step for step in times[0] if times[0][step] != times[1][step]} == {"refine/cells"}
    assert after["options"] == {**before["options"], "memory": "3GB"}
    assert set(before["notices"]) <= set(after["notices"])
    assert after["stage"] == "refine"
    shown = iscale.open_run(out).describe()
    assert "n_clusters = 2, 3" in shown
    assert re.search(
        r"clusters: .*refined \(n_clusters, y, x: 2 x 64 x 64\) uint8 -- OF AN EARLIER RUN: refine/", shown
    )
    assert shown.count("OF AN EARLIER RUN") == 1  # not the clusters of all tissue, nor the annotation
    with pytest.warns(UserWarning, match="clusters/refined is of an earlier run"):
        _ = iscale.open_run(out).clusters_refined
    _ = iscale.open_run(out).clusters
    _ = iscale.open_run(out).annotation

    told = Told()
    iscale.run(tiny_project, stage="cluster", n_clusters=2, n_genes=7, seed=3, watcher=told)
    assert any("clusterings of 3 are removed" in text and "--n-clusters 2 3" in text for text in told.said)
    assert "EARLIER" not in iscale.open_run(out).describe()
    assert not (out / "clusters-gene_3").exists()
    assert not (out / "clusters-gene_2" / "annotation.tsv").exists()  # of clusters that are made anew

    markers.unlink()
    with pytest.raises(InputError, match=r"MotherImage/markers\.csv is not there.*\n(?s:.*)gene,label\n +ERBB2,tumour"):
        iscale.run(tiny_project, stage="annotate")
    told = Told()
    iscale.run(tiny_project, n_clusters=2, n_genes=7, seed=3, n_plots=1, hold_out="none", watcher=told)
    assert any("markers.csv is gone" in text for text in told.said)
    assert "annotation: " in (shown := iscale.open_run(out).describe())
    assert "OF AN EARLIER RUN: MotherImage/markers.csv is gone" in shown
    last = json.loads((out / "report.json").read_text())
    assert not [step for step in last["steps"] if step["step"].startswith("annotate/")]
    assert not [notice for notice in last["notices"] if notice.startswith("markers.csv")]
    markers.write_text("gene,label\nG0,tumour\nG1,stroma\n")
    iscale.run(tiny_project, stage="annotate", n_clusters=2, n_genes=7, seed=3)
    assert "EARLIER" not in iscale.open_run(out).describe()


class Told(Silence):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_what_is_of_an_earlier_run_says_so(tiny_project: Path) -> None:
    out = iscale.run(tiny_project, stage="predict")
    assert "EARLIER" not in iscale.open_run(out).describe()
    mask = np.full((1024, 1024), 255, np.uint8)
    Image.fromarray(mask).save(tiny_project / "MotherImage" / "mask-raw.png")
    iscale.run(tiny_project, stage="features")
    run = iscale.open_run(out)
    assert "OF AN EARLIER RUN: features was made anew since" in run.describe()
    with pytest.warns(UserWarning, match="expression/expression is of an earlier run"):
        _ = run.expression
    (tiny_project / "MotherImage" / "mask-raw.png").unlink()
    iscale.run(tiny_project, stage="predict")
    assert "EARLIER" not in iscale.open_run(out).describe()


def test_a_run_tells_how_large_it_is_and_what_lies_beside_it(tiny_project: Path) -> None:
    out = iscale.run(tiny_project, stage="predict", n_genes=5)
    (out / "export").mkdir()
    (out / "export" / "bins-8um.h5ad").write_text("x")
    (out / "aggregate").mkdir()
    shown = iscale.open_run(out).describe().splitlines()
    assert "slide: 1,024 x 1,024 px of 0.5 um, 0.512 x 0.512 mm (width x height); superpixels of 8 um" in shown
    assert "genes: 5 written, 3 more computed when they are read" in shown
    assert [line for line in shown if line.startswith("beside it")] == ["beside it: export/ (1 entry: bins-8um.h5ad)"]
    (out / "evaluation").mkdir()
    (out / "evaluation" / "trust-region.tsv").write_text("gene\n")
    os.utime(out / "evaluation" / "trust-region.tsv", (1, 1))
    assert "beside it: evaluation/ (1 entry: trust-region.tsv)" in iscale.open_run(out).describe().splitlines()
    os.utime(out / "export" / "bins-8um.h5ad", (1, 1))
    line = next(line for line in iscale.open_run(out).describe().splitlines() if line.startswith("beside it"))
    assert line.endswith("-- OLDER THAN THE RUN'S RESULTS: 1 entry: bins-8um.h5ad")

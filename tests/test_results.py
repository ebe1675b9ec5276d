"""Opening a run reads lazily, by name, in um, and only what is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from PIL import Image
from zarr.storage import LocalStore, WrapperStore

import iscale
from iscale import open_run
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

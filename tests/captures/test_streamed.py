"""A capture whose counts lie on disk gives the same as one in memory, and integrating it needs no more memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

import iscale
from iscale.captures import counts as counting
from iscale.captures import integrate as integrating
from iscale.captures.counts import Counts, CountsWriter, StoredCounts
from iscale.captures.integrate import integrate
from iscale.captures.merge import spatial_subsample
from iscale.captures.spots import Capture, TrainingSpots
from iscale.captures.stage import files_of, spots_fingerprint, write_capture
from iscale.geometry import SlideGrid
from iscale.store.run_store import RunStore

GRID = SlideGrid((1300, 1300), 0.5, 0.5)
GENES = tuple(f"G{i}" for i in range(12))


def bins(name: str, side: int, pitch: float, depth: float, genes: tuple[str, ...] = GENES, seed: int = 0) -> Capture:
    """A square of bins whose genes are gradients, each another."""
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * pitch + 50
    level = depth * (1.1 + np.sin(at @ np.random.default_rng(1).normal(0, 0.01, (2, len(genes)))))
    counts = np.random.default_rng(seed).poisson(level)
    ids = tuple(f"{name}{i}" for i in range(len(at)))
    return Capture(name, ids, genes, sparse.csr_matrix(counts, dtype=np.float32), at, pitch / 2)


def on_disk(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> StoredCounts:
    monkeypatch.setattr(counting, "MOST_IN_MEMORY", 100)
    writer = CountsWriter(counts.shape[1])
    for at in range(0, counts.shape[0], 700):
        writer.add(counts[at : at + 700])
    found = writer.done()
    assert isinstance(found, StoredCounts)
    return found


def integrated(*captures: Capture, dist: float = 40.0) -> TrainingSpots:
    return integrate(captures, n_genes=6, dist_st_px=dist, analysis_shape_px=GRID.content_shape_px, pixel_size_um=0.5)


def test_on_disk_is_as_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two captures of different genes, depth and pitch, one on the other, in blocks of other sizes."""
    held = (bins("fine", 60, 16.0, 0.4), bins("coarse", 10, 100.0, 9.0, (*GENES[3:][::-1], "other"), seed=5))
    spots = integrated(*held)
    assert spots.capture_scale[0] != 1
    assert len(spots.agreement) == 1
    monkeypatch.setattr(counting, "AT_ONCE", 1000)
    stored = tuple(replace(capture, counts=on_disk(capture.counts, monkeypatch)) for capture in held)
    found = integrated(*stored)
    assert (found.genes, found.notices, found.captures) == (spots.genes, spots.notices, spots.captures)
    assert found.agreement == spots.agreement
    assert found.capture_scale == spots.capture_scale
    for name in ("counts", "depth", "xy_px", "radius_um", "capture"):
        np.testing.assert_array_equal(getattr(found, name), getattr(spots, name))
    assert spots_fingerprint(stored, found, GRID) == spots_fingerprint(held, spots, GRID)
    for folder, captures in (("disk", stored), ("memory", held)):
        store = RunStore(tmp_path / folder)
        store.create()
        store.make_group("captures", {})
        for capture in captures:
            write_capture(store, capture, GRID)
    for capture in held:
        a, b = (ad.io.read_zarr(tmp_path / name / "run.zarr/captures" / capture.name) for name in ("disk", "memory"))
        assert a.X.shape == capture.counts.shape
        for one in (a, b):
            assert (capture.counts != one.X).nnz == 0
            assert one.X.dtype == np.float32


def test_counts_of_many_files_are_written_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("iscale.captures.stage.CHUNK", 64)
    monkeypatch.setattr("iscale.captures.stage.SHARD", 640)
    monkeypatch.setattr(counting, "AT_ONCE", 500)
    capture = bins("D1", 20, 50.0, 0.7)
    store = RunStore(tmp_path)
    store.create()
    store.make_group("captures", {})
    write_capture(store, capture, GRID)
    data = iscale.open_run(tmp_path).captures["D1"]
    assert (capture.counts != data.X).nnz == 0
    files = [path for path in (tmp_path / "run.zarr/captures/D1/X").rglob("*") if path.is_file()]
    assert len(files) <= files_of(capture.counts)


def test_of_very_many_spots_a_part_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    captures = bins("a", 60, 20.0, 0.4), bins("b", 30, 20.0, 0.4, seed=1)
    every = integrated(*captures, dist=0)
    monkeypatch.setattr(integrating, "MOST_SPOTS", 450)
    some = integrated(*captures, dist=0)
    assert some.counts.shape == (450, 6)
    assert some.genes == every.genes
    assert some.notices[-1].startswith("450 of the 3600 training spots are trained on")
    row = {tuple(at): i for i, at in enumerate(every.xy_px.tolist())}
    at = [row[tuple(place)] for place in some.xy_px.tolist()]
    assert at == sorted(set(at))
    for name in ("counts", "depth", "capture"):
        np.testing.assert_array_equal(getattr(some, name), getattr(every, name)[at])
    assert not any("trained on" in notice for notice in every.notices)


def test_a_part_is_spread_evenly_over_places_and_captures() -> None:
    rng = np.random.default_rng(0)
    xy, capture = rng.random((40_000, 2)) * [2000, 1000], (rng.random(40_000) < 0.05).astype(np.int64)
    chosen = spatial_subsample(xy, capture, 4000)
    assert len(set(chosen.tolist())) == 4000
    assert (np.diff(chosen) > 0).all()
    assert (capture[chosen] == 1).sum() == pytest.approx((capture == 1).sum() / 10, abs=1)

    def per_square(places: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.histogram2d(*places.T, bins=(20, 10), range=((0, 2000), (0, 1000)))[0]

    off = per_square(xy[chosen]) - per_square(xy) / 10
    by_chance = per_square(xy[rng.choice(len(xy), 4000, replace=False)]) - per_square(xy) / 10
    assert off.std() < 0.75 * by_chance.std()
    np.testing.assert_array_equal(spatial_subsample(xy, capture, 4000), chosen)
    np.testing.assert_array_equal(spatial_subsample(xy, capture, 40_000), np.arange(40_000))


@pytest.mark.parametrize("per_spot", [40, 160])
def test_memory_does_not_grow_with_the_counts(monkeypatch: pytest.MonkeyPatch, per_spot: int) -> None:
    monkeypatch.setattr(counting, "AT_ONCE", 1 << 15)
    monkeypatch.setattr(counting, "MOST_IN_MEMORY", 1 << 15)
    side, n_genes = 120, 1000
    rng, writer = np.random.default_rng(0), CountsWriter(n_genes)
    for _ in range(side):
        genes = np.argpartition(rng.random((side, n_genes)), per_spot)[:, :per_spot]
        values = rng.integers(1, 9, side * per_spot).astype(np.float32)
        indptr = np.arange(side + 1) * per_spot
        writer.add(sparse.csr_matrix((values, genes.reshape(-1), indptr), shape=(side, n_genes)))
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 8.0 + 50
    capture = Capture(
        "hd", tuple(map(str, range(side**2))), tuple(f"G{i}" for i in range(n_genes)), writer.done(), at, 4.0
    )
    tracemalloc.start()
    spots = integrated(capture, dist=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert capture.counts.nnz == per_spot * side**2
    assert len(spots.depth) < side**2 / 100
    assert peak < 400 * side**2 + 120 * (1 << 15)


def test_counts_of_a_large_capture_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("iscale.captures.stage.MOST_READ", 100)
    capture = bins("D1", 20, 50.0, 0.7)
    store = RunStore(tmp_path)
    store.create()
    store.make_group("captures", {})
    write_capture(store, capture, GRID)
    data = iscale.open_run(tmp_path).captures["D1"]
    assert not isinstance(data.X, sparse.csr_matrix)
    np.testing.assert_array_equal(data[5:9].to_memory().X.toarray(), capture.counts[5:9].toarray())
    np.testing.assert_array_equal(data[:, ["G3"]].to_memory().X.toarray(), capture.counts[:, 3].toarray())
    np.testing.assert_array_equal(data.to_memory().X.toarray(), capture.counts.toarray())
    np.testing.assert_allclose(iscale.on_mother(data), capture.xy_px * 0.5)

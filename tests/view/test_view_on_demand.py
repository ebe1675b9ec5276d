"""Genes that are not written: all that is shown of written ones is computed for them, and what is read is kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from view_client import Client, painted
from view_run import EXTRA, GENES, GRID, SHAPE, cells, expression, extra, tissue

import iscale
from iscale.geometry import Region
from iscale.model.genes import Source, open_source
from iscale.model.loadings import COARSE_PATH, FACTORS_PATH
from iscale.store.run_store import RunStore
from iscale.view import planes as factors
from iscale.view import region, serve
from iscale.view.planes import Factors, Planes
from iscale.view.slide import Slide

SIDE_UM = GRID.superpixel_um
WHOLE = Region(0, SHAPE[0], 0, SHAPE[1])
CORNERS = [[602, 302], [902, 302], [902, 602], [602, 602]]


@pytest.fixture
def planes(store: RunStore) -> Planes:
    return Planes(Slide(iscale.open_run(store.folder)))


def test_it_is_found_and_has_a_value_a_spread_and_a_histogram(client: Client) -> None:
    assert client.get("api/genes", q="xist").json["genes"] == [{"name": EXTRA, "written": False}]
    values, spread = extra()
    found = client.get("api/value", x=140 * SIDE_UM + 1, y=61 * SIDE_UM + 1, gene=EXTRA).json["gene"]
    assert found["gene"] == pytest.approx(values[61, 140], rel=2e-3)
    assert found["uncertainty"] == pytest.approx(spread[61, 140], rel=2e-3)
    assert not cells()[61, 141]
    assert client.get("api/value", x=141 * SIDE_UM + 1, y=61 * SIDE_UM + 1, gene=EXTRA).json["gene"]["refined"] == 0
    histogram = client.get("api/histogram", gene=EXTRA).json
    assert histogram["mean"] == pytest.approx(np.nanmean(values), rel=2e-3)


@pytest.mark.parametrize("zoom", [0, 1])
@pytest.mark.parametrize("layer", ["gene", "uncertainty", "refined"])
def test_its_tiles_are_those_of_its_values(client: Client, layer: str, zoom: int) -> None:
    """At zoom 0 a pixel is the mean of 2 x 2 superpixels."""
    values, spread = extra()
    values = {"gene": values, "uncertainty": spread, "refined": np.where(cells() | ~tissue(), values, 0)}[layer]
    if zoom == 0:
        blocks = values.reshape(SHAPE[0] // 2, 2, SHAPE[1] // 2, 2).swapaxes(1, 2).reshape(SHAPE[0] // 2, -1, 4)
        n = np.isfinite(blocks).sum(axis=-1)
        values = np.where(n, np.nansum(blocks, axis=-1) / np.maximum(n, 1), np.nan)
    drawn = client.get(f"tile/{layer}/{zoom}/0/0", gene=EXTRA, lo=0, hi=20).pixels.astype(int)
    cut = np.full((256, 256), np.nan, np.float32)
    cut[: values.shape[0], : values.shape[1]] = values[:256, :256]
    np.testing.assert_array_equal(drawn[..., 3] == 255, np.isfinite(cut))
    there = np.isfinite(cut)
    assert np.abs(drawn - painted(cut, 0, 20))[there].max() <= 6


@pytest.mark.parametrize("quantity", ["gene", "uncertainty", "refined"])
@pytest.mark.parametrize("step", [4, 8])
def test_overviews_come_from_averaged_factors(planes: Planes, quantity: str, step: int) -> None:
    """Along y the factors are even, so that their means are those of the map but for the few percent of the bend."""
    values, spread = extra()
    values = {"gene": values, "uncertainty": spread, "refined": np.where(cells() | ~tissue(), values, 0)}[quantity]
    found = planes.values(quantity, EXTRA, Region(0, SHAPE[0] // step, 0, SHAPE[1] // step), step)
    blocks = values.reshape(SHAPE[0] // step, step, SHAPE[1] // step, step).swapaxes(1, 2).reshape(*found.shape, -1)
    inside = np.isfinite(blocks).all(axis=-1)
    np.testing.assert_allclose(found[inside], blocks[inside].mean(axis=-1), rtol=0.02)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(blocks).all(axis=-1))


def test_a_region_has_its_row_beside_the_imputed_genes(client: Client) -> None:
    table = client.region(CORNERS, gene=EXTRA).json
    y, x = (np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5) * SIDE_UM
    inside = (x > 602) & (x < 902) & (y > 302) & (y < 602)
    here, there = extra()[0][inside & tissue()].mean(), extra()[0][~inside & tissue()].mean()
    assert table["genes"] == [*GENES, EXTRA]
    assert len(table["mean"]) == len(table["rest"]) == len(table["fold"]) == len(GENES) + 1
    assert table["mean"][-1] == pytest.approx(here, rel=2e-3)
    assert table["rest"][-1] == pytest.approx(there, rel=2e-3)
    assert table["fold"][-1] == pytest.approx(here / there, rel=4e-3)
    assert table["mean"][2] == pytest.approx(expression()[2][inside & tissue()].mean(dtype=float), rel=1e-5)
    assert table["histogram"]["n"] == (inside & tissue()).sum()
    assert table["histogram"]["mean"] == pytest.approx(here, rel=2e-3)
    assert not table["rest_is_sample"]
    refined = client.region(CORNERS, gene=EXTRA, quantity="refined").json
    kept = np.where(cells(), extra()[0], 0)[inside & tissue()]
    assert refined["histogram"]["mean"] == pytest.approx(kept.mean(), rel=2e-3)


def test_of_a_run_in_which_no_gene_is_written_all_are_computed(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factors of the others are 0, and so is their expression but for the bend, by which none is negative."""
    monkeypatch.setattr(Source, "written", 0)
    with serve(iscale.open_run(store.folder)) as server:
        client = Client(server)
        assert client.get("api/about").json["written"] == 0
        table = client.region(CORNERS, gene="CD3E").json
        assert table["genes"] == list(GENES)
        assert table["mean"] + table["rest"] == pytest.approx([np.expm1(np.log(2) / 8)] * 20, rel=1e-4)
        assert table["histogram"]["n"] == table["superpixels"]
        assert client.get("tile/refined/1/0/0", gene="CD3E", lo=0, hi=1).pixels[70, 101].tolist()[3] == 255


def test_on_a_large_slide_its_rest_is_a_sample_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region, "MOST_COMPUTED", 2)
    table = client.region(CORNERS, gene=EXTRA).json
    assert table["rest_is_sample"]
    assert table["rest"][-1] == pytest.approx(np.nanmean(extra()[0]), rel=0.5)


def test_what_is_known_of_a_genes_trust_stands_beside_it(client: Client) -> None:
    assert client.get("api/histogram", gene="KRT5").json["trust"] == "reliable, held-out correlation 0.71"
    for gene in (EXTRA, "CD3E"):
        assert client.get("api/histogram", gene=gene).json["trust"] == "not tested (this gene was not held out)"


def test_no_hold_out_at_all_is_said_as_such(store: RunStore) -> None:
    slide = Slide(iscale.open_run(store.folder))
    slide.trust = {}
    assert slide.trust_in("KRT5") == "not tested (no gene has been held out yet)"


@pytest.mark.parametrize("uncertainty", [False, True])
def test_blocks_give_what_the_run_gives(store: RunStore, uncertainty: bool) -> None:
    source, own = open_source(store), Factors(store)
    for window in (WHOLE, Region(100, 130, 90, 260)):
        given = own.gene(len(GENES), FACTORS_PATH, window, uncertainty=uncertainty)
        np.testing.assert_allclose(given, source.read([EXTRA], window, uncertainty=uncertainty)[0], rtol=1e-5)
    given = own.gene(len(GENES), COARSE_PATH, WHOLE.coarsened(4), uncertainty=uncertainty)
    np.testing.assert_allclose(given, source.overview([EXTRA], WHOLE, 4, uncertainty=uncertainty)[0], rtol=1e-5)


def test_who_asks_for_the_same_block_at_once_reads_it_once(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    own, reads, all_there = Factors(store), [], threading.Barrier(4)
    read = Factors._read

    def slow(self: Factors, path: str, corner: tuple[int, int]) -> Any:
        reads.append(corner)
        return read(self, path, corner)

    def ask(row: int) -> Any:
        all_there.wait()
        return own.gene(row, FACTORS_PATH, WHOLE, uncertainty=False)

    monkeypatch.setattr(Factors, "_read", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, [0, 3, 5, len(GENES)]))
    assert sorted(reads) == [(0, 0), (0, 128), (0, 256), (128, 0), (128, 128), (128, 256)]


def test_blocks_stay_within_their_bytes(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "BLOCKS_BYTES", 3_000_000)
    own = Factors(store)
    own.gene(0, FACTORS_PATH, WHOLE, uncertainty=False)
    assert 0 < own.bytes <= 3_000_000

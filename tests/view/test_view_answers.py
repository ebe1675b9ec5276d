"""What the viewer's server answers beside tiles: histograms, values, spots, names, regions."""

from __future__ import annotations

import numpy as np
import pytest
from view_client import Client
from view_run import (
    GENES,
    GRID,
    RADIUS_UM,
    SCALE,
    SHAPE,
    cells,
    expression,
    labels,
    spots,
    tissue,
)

from iscale import open_run
from iscale.store.run_store import RunStore
from iscale.view import serve

SIDE_UM = GRID.superpixel_um


def test_the_histogram_counts_all_tissue_and_offers_the_range_of_the_figures(client: Client) -> None:
    values = expression()[3][tissue()]
    found = client.get("api/histogram", gene="CD3D").json
    assert found["n"] == sum(found["counts"]) == len(values)
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert [found["from"], found["to"]] == pytest.approx(np.quantile(values, [0.01, 0.99]), rel=1e-5)
    refined = client.get("api/histogram", gene="CD3D", quantity="refined").json
    assert refined["mean"] == pytest.approx(np.where(cells(), expression()[3], 0)[tissue()].mean(), rel=1e-5)


def test_genes_are_known_by_their_names_in_any_case(client: Client) -> None:
    exact = client.get("api/histogram", gene="CD3D").json
    assert client.get("api/histogram", gene="cd3d").json == exact
    assert exact["gene"] == "CD3D"
    found = client.get("api/value", x=1124.0, y=484.0, gene="erbb2", gene2="a,b").json
    assert (found["gene"]["name"], found["second"]["name"]) == ("ERBB2", "A,B")
    assert client.get("api/spots", capture="D1", gene="krt5").json["gene"] == "KRT5"
    assert "Similar names: CD3" in client.get("api/histogram", gene="cd3x").text


def test_the_value_under_the_cursor_is_the_superpixels(client: Client) -> None:
    row, column = 60, 140
    found = client.get("api/value", x=column * SIDE_UM + 7.9, y=row * SIDE_UM + 0.1, gene="ERBB2", gene2="A,B").json
    assert (found["row"], found["column"], found["tissue"]) == (row, column, True)
    assert found["gene"]["gene"] == pytest.approx(expression()[4, row, column], rel=1e-5)
    assert found["gene"]["uncertainty"] == pytest.approx(expression()[4, row, column] / 8, rel=1e-3)
    assert found["second"]["gene"] == pytest.approx(expression()[6, row, column], rel=1e-5)
    assert found["classes"]["clusters-4"].startswith(str(labels()[row, column]))
    off = client.get("api/value", x=1, y=1, gene="ERBB2").json
    assert (off["tissue"], off["gene"]["gene"], off["classes"]["clusters-4"]) == (False, None, None)


def test_spots_have_their_counts_and_the_maps_unit(client: Client) -> None:
    xy, counts = spots()
    found = client.get("api/spots", capture="D1", gene="COL1A1").json
    np.testing.assert_allclose(np.column_stack([found["x"], found["y"]]), xy, atol=0.01)
    assert found["count"] == counts[:, 5].tolist()
    assert found["radius_um"] == RADIUS_UM
    di, dj = np.mgrid[-9:10, -9:10]
    disc = np.count_nonzero(di**2 + dj**2 <= (RADIUS_UM / SIDE_UM) ** 2)
    np.testing.assert_allclose(found["value"], counts[:, 5] * SCALE / disc, rtol=1e-5)


def test_genes_are_found_by_parts_of_their_names(client: Client) -> None:
    names = [gene["name"] for gene in client.get("api/genes", q="krt").json["genes"]]
    assert names == ["KRT5", "KRT14"]
    assert [gene["name"] for gene in client.get("api/genes", q="1").json["genes"]] == ["KRT14", "COL1A1", "MUC1"]
    assert client.get("api/genes", q="nothing").json == {"found": 0, "genes": []}


def test_a_regions_means_are_those_of_its_superpixels(client: Client) -> None:
    corners = [[400.0, 200.0], [1500.0, 260.0], [1300.0, 900.0], [700.0, 1000.0]]
    y, x = (np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5) * SIDE_UM
    inside = np.zeros(SHAPE, bool)
    for (xa, ya), (xb, yb) in zip(corners, [*corners[1:], corners[0]], strict=True):
        inside ^= ((ya > y) != (yb > y)) & (x < (xb - xa) * (y - ya) / (yb - ya) + xa)
    kept, rest = inside & tissue(), ~inside & tissue()
    table = client.region(corners, gene="CD3E").json
    assert (table["superpixels"], table["rest_superpixels"]) == (kept.sum(), rest.sum())
    assert table["area_um2"] == pytest.approx(kept.sum() * SIDE_UM**2)
    assert table["genes"] == list(GENES)
    here, there = expression()[:, kept].mean(axis=1, dtype=float), expression()[:, rest].mean(axis=1, dtype=float)
    np.testing.assert_allclose(table["mean"], here, rtol=1e-5)
    np.testing.assert_allclose(table["rest"], there, rtol=1e-5)
    np.testing.assert_allclose(table["fold"], here / there, rtol=1e-5)
    assert not table["rest_is_sample"]
    assert table["histogram"]["n"] == kept.sum()
    assert table["histogram"]["mean"] == pytest.approx(here[2], rel=1e-5)


def test_where_the_slide_is_too_large_the_rest_is_a_sample_and_says_so(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iscale.view.region.MOST_VALUES", 128 * 128 * len(GENES) * 2)
    with serve(open_run(store.folder)) as server:
        table = Client(server).region([[800, 400], [900, 400], [900, 500], [800, 500]]).json
    assert table["rest_is_sample"]
    assert 0 < table["rest_superpixels"] < tissue().sum() - table["superpixels"]

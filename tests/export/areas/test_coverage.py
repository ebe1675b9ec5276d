"""Shares of cells are those that shapely's intersections have, and add up to what lies in the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from area_runs import box
from hypothesis import given, settings
from hypothesis import strategies as st

from iscale.export.areas.areas import Block, Rings
from iscale.export.areas.frame import slide_frame
from iscale.export.areas.polygons import PolygonAreas, cover
from iscale.geometry import SlideGrid

WINDOW = 7, 9
coordinate = st.one_of(st.integers(-6, 30).map(lambda n: n / 2), st.floats(-3, 12, allow_nan=False, width=32))
points = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12)


def spilled(polygons: list[shapely.Polygon]) -> tuple[np.ndarray, np.ndarray]:
    """Points with a row of NaN after every ring, and where each polygon begins."""
    found, starts = [], [0]
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            found += [np.array(ring.coords), np.full((1, 2), np.nan)]
        starts.append(sum(map(len, found)))
    return np.concatenate(found), np.array(starts)


def shares(polygons: list[shapely.Polygon]) -> np.ndarray:
    """(polygon, y, x)."""
    found = cover(*spilled(list(shapely.orient_polygons(polygons))), WINDOW)
    dense = np.zeros((len(polygons), WINDOW[0] * WINDOW[1]))
    dense[found.owner, found.cell] = found.share
    assert (np.diff(found.owner) >= 0).all()
    return dense.reshape(-1, *WINDOW)


def by_intersection(polygon: shapely.Polygon) -> np.ndarray:
    y, x = np.mgrid[: WINDOW[0], : WINDOW[1]]
    return np.asarray(shapely.area(shapely.intersection(polygon, shapely.box(x, y, x + 1, y + 1))))


@settings(max_examples=60)
@given(st.lists(points, min_size=1, max_size=3))
def test_shares_are_areas_of_intersections(outlines: list[list[tuple[float, float]]]) -> None:
    hulls = [shapely.MultiPoint(outline).convex_hull for outline in outlines]
    stars = [shapely.make_valid(shapely.Polygon(o), method="structure", keep_collapsed=False) for o in outlines]
    parts = [part for shape in (*hulls, *stars) for part in shapely.get_parts(shape)]
    polygons = [part for part in parts if part.geom_type == "Polygon" and part.area > 1e-6]
    if polygons:
        expected = np.stack([by_intersection(polygon) for polygon in polygons])
        np.testing.assert_allclose(shares(polygons), expected, atol=1e-7)


def test_holes_are_left_out_and_what_is_beside_the_window_counts_not() -> None:
    whole = shapely.Polygon(box(-5, -5, 50, 50), [box(1, 1, 3, 3), [(4.5, 0.25), (8, 2), (8, 5), (4.5, 0.25)]])
    found = shares([whole, shapely.box(20, 0, 30, 5), shapely.box(-4, -4, -1, 30), shapely.box(8.5, 6.5, 9, 7)])
    np.testing.assert_allclose(found[0], by_intersection(whole), atol=1e-12)
    assert found[0][0, 0] == 1
    assert not found[1:3].any()
    assert found[3].sum() == found[3][6, 8] == 0.25


def test_a_polygon_over_many_shards_is_whole(tmp_path: Path) -> None:
    grid = SlideGrid((4096, 8192), 0.5, 0.5)  # 2 x 4 shards of 128 superpixels; it touches the middle four
    circle = np.array(shapely.Point(4000, 2000).buffer(1900, quad_segs=40).exterior.coords)
    one = np.array([0, 1])
    block = Block(["circle"], Rings(circle, np.array([0, len(circle)]), one, one))
    areas = PolygonAreas("", "", iter([block]), slide_frame("px", grid), grid.superpixel_shape, tmp_path)
    (facts,) = areas.facts()
    total = sum(o.shares.sum() for shard in areas.shards() for o in areas.overlaps(shard, 10))
    np.testing.assert_allclose(total, facts.area[0], rtol=1e-12)
    assert len(areas.shards()) == 4
    assert not list(tmp_path.iterdir())  # the file has no name

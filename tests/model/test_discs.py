from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iscale.model.discs import disc_offsets, disc_rows, disc_sizes, rows_of, spot_starts


@given(radius=st.floats(0, 12))
def test_offsets_are_all_integers_within_the_radius(radius: float) -> None:
    offsets = {tuple(o) for o in disc_offsets(radius).tolist()}
    expected = {(i, j) for i in range(-13, 14) for j in range(-13, 14) if i * i + j * j <= radius**2}
    assert offsets >= expected
    assert all(i * i + j * j <= radius**2 * (1 + 1e-8) for i, j in offsets)


def test_rounding_of_the_ratio_does_not_lose_the_rim() -> None:
    assert 0.3 / 0.1 < 3
    assert [3, 0] in disc_offsets(0.3 / 0.1).tolist()


@pytest.mark.parametrize("radius", [-1.0, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(radius: float) -> None:
    with pytest.raises(ValueError, match="radius"):
        disc_offsets(radius)


def test_rows_of_discs_stay_on_the_slide_and_follow_each_spots_radius() -> None:
    centre = np.array([[0, 0], [5, 5], [9, 3]])
    spot, position = disc_rows(centre, np.array([10.0, 20.0, 0.0]), 10.0, (10, 8))
    assert spot.tolist() == sorted(spot.tolist())
    assert position[spot == 0].tolist() == [[0, 0], [0, 1], [1, 0]]
    assert position[spot == 1].tolist() == (centre[1] + disc_offsets(2.0)).tolist()[:10] + [
        p for p in (centre[1] + disc_offsets(2.0)).tolist()[10:] if p[1] < 8
    ]
    assert position[spot == 2].tolist() == [[9, 3]]
    assert disc_sizes([10.0, 20.0, 0.0], 10.0).tolist() == [5, 13, 1]


def test_rows_come_in_the_order_of_the_spots_asked_for() -> None:
    starts = spot_starts(np.array([0, 0, 1, 3, 3, 3]), 5)
    assert starts.tolist() == [0, 2, 3, 3, 6, 6]
    rows, owner = rows_of(starts, np.array([3, 2, 0]))
    assert rows.tolist() == [3, 4, 5, 0, 1]
    assert owner.tolist() == [0, 0, 0, 2, 2]


@pytest.mark.parametrize("spot", [[1, 0], [0, 5], [-1, 0]])
def test_rows_out_of_order_or_range_are_refused(spot: list[int]) -> None:
    with pytest.raises(ValueError, match="sorted by spot"):
        spot_starts(np.array(spot), 5)

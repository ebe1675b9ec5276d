"""Where patches lie: every superpixel is covered, every patch owned once, whatever the regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iscale.engine.plan import cut
from iscale.features.patch_lattice import PatchLattice, computed_twice
from iscale.geometry import Region

lattices = st.builds(
    PatchLattice,
    st.tuples(st.integers(1, 20).map(lambda n: 16 * n), st.integers(1, 20).map(lambda n: 16 * n)),
    st.just(16),
    st.sampled_from([4, 8, 16]),
)


def boxes(lattice: PatchLattice, places: Region) -> list[tuple[tuple[int, int], Region]]:
    """Every place of a block with the superpixels that its patch covers."""
    found = []
    for i in range(places.y0, places.y1):
        for j in range(places.x0, places.x1):
            y, x = i * lattice.step, j * lattice.step
            found.append(((i, j), Region(y, y + lattice.patch, x, x + lattice.patch)))
    return found


@given(lattices)
def test_patches_lie_within_the_slide_and_cover_all_of_it(lattice: PatchLattice) -> None:
    covered = np.zeros(lattice.shape, int)
    for _, box in boxes(lattice, Region(0, lattice.places[0], 0, lattice.places[1])):
        assert box.y1 <= lattice.shape[0]
        assert box.x1 <= lattice.shape[1]
        covered[box.slices] += 1
    assert covered.min() >= 1
    assert covered.max() <= lattice.shifts**2


@given(lattices, st.sampled_from([(16, 16), (32, 48), (128, 128)]))
def test_every_patch_is_owned_by_one_region_that_it_overlaps(lattice: PatchLattice, tile: tuple[int, int]) -> None:
    owners = np.zeros(lattice.places, int)
    for region in cut(lattice.shape, tile, (1, 1)):
        rows, columns = lattice.owned(region)
        owners[rows, columns] += 1
        places = lattice.covering(region)
        assert places.y0 <= rows.start
        assert rows.stop <= places.y1
        assert places.x0 <= columns.start
        assert columns.stop <= places.x1
    assert (owners == 1).all()


def test_covering_is_exactly_the_patches_that_overlap() -> None:
    lattice = PatchLattice((64, 80), 16, 4)
    region = Region(20, 33, 48, 80)
    expected = {
        place
        for place, box in boxes(lattice, Region(0, lattice.places[0], 0, lattice.places[1]))
        if box.y0 < region.y1 and box.y1 > region.y0 and box.x0 < region.x1 and box.x1 > region.x0
    }
    assert {place for place, _ in boxes(lattice, lattice.covering(region))} == expected


def test_touching_is_any_marked_superpixel_of_the_patch() -> None:
    lattice = PatchLattice((64, 64), 16, 4)
    places = Region(1, 9, 2, 7)
    reach = lattice.reach(places)
    mask = np.random.default_rng(0).random(reach.shape) < 0.004
    found = lattice.touching(mask, places)
    for (i, j), box in boxes(lattice, places):
        assert found[i - places.y0, j - places.x0] == mask[box.within(reach)].any()


@pytest.mark.parametrize(("side", "share"), [(1, 0.1776), (2, 0.0771), (4, 0.0382)])
def test_what_is_computed_twice_falls_with_the_region(side: int, share: float) -> None:
    lattice = PatchLattice((1280, 1280), 16, 4)
    assert computed_twice(lattice, cut(lattice.shape, (128, 128), (side, side))) == pytest.approx(share, abs=0.0001)

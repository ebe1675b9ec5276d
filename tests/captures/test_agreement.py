"""Whether captures that overlap agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from iscale.captures.agreement import LEAST_PLACES, Agreement, agreements
from iscale.captures.read import read_aligned_capture
from iscale.captures.spots import Capture
from iscale.captures.stacked import stack
from iscale.demo.her2st import PIXEL_SIZE_UM, lay_out_her2st
from iscale.project.files import find_project

GENES = 40


def expected(xy_um: NDArray[np.float64], depth: float) -> NDArray[np.float64]:
    """Counts that vary over the tissue, each gene by waves of its own, of 0.5 to 2 mm."""
    rng = np.random.default_rng(7)
    wave = rng.normal(0, 1 / 150, (2, GENES))
    level = np.exp(np.sin(xy_um @ wave + rng.uniform(0, 6, GENES)))
    return np.asarray(depth * level / GENES)


def measured(name: str, xy_um: NDArray[np.float64], depth: float = 2000.0, seed: int = 0) -> Capture:
    """A capture whose pixels are um."""
    counts = np.random.default_rng(seed).poisson(expected(xy_um, depth))
    return Capture(
        name,
        tuple(f"{name}{i}" for i in range(len(xy_um))),
        tuple(f"G{i}" for i in range(GENES)),
        sparse.csr_matrix(counts, dtype=np.float32),
        xy_um,
        27.5,
    )


def lattice(pitch: float, shift: float = 0.0, side: float = 2000.0) -> NDArray[np.float64]:
    at = np.arange(0, side, pitch) + shift
    return np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)


def compare(*captures: Capture, um_per_px: float = 1.0) -> tuple[Agreement, ...]:
    s = stack(captures)
    return agreements(s, s.xy_px * um_per_px)


def test_captures_of_the_same_place_agree_as_far_as_noise_allows() -> None:
    (found,) = compare(measured("a", lattice(100)), measured("b", lattice(100, 5.0), depth=400, seed=1))
    assert (found.captures, found.places, found.genes) == (("a", "b"), 400, GENES)
    assert found.correlation == pytest.approx(found.ceiling, abs=0.1)
    assert found.correlation > 0.75
    assert found.share > 0.95
    assert abs(found.chance) < 0.1
    assert not found.disagree
    assert found.sentence.startswith("a and b overlap at 400 places, where the correlation is 0.")


def test_noise_lowers_the_ceiling_and_the_correlation_alike() -> None:
    found = [
        compare(measured("a", lattice(100), depth), measured("b", lattice(100), depth, seed=1))[0]
        for depth in (4000.0, 400.0, 100.0)
    ]
    assert found[0].ceiling > found[1].ceiling + 0.1 > found[2].ceiling + 0.15
    for pair in found:
        assert pair.correlation == pytest.approx(pair.ceiling, abs=0.1)


def test_a_capture_at_a_wrong_place_is_warned_of() -> None:
    a, b = measured("a", lattice(100)), measured("b", lattice(100), seed=1)
    turned = replace(b, xy_px=2000 - b.xy_px)
    (found,) = compare(a, turned)
    assert found.disagree
    assert found.correlation < 0.15 < found.ceiling
    assert found.sentence.startswith("Warning: a and b do not agree at the ")
    assert found.as_dict()["disagree"] is True


def test_fine_captures_are_added_up_at_the_spots_of_coarse_ones_and_in_squares() -> None:
    """Bins of 8 um have hardly any counts: one by one they agree with nothing."""
    coarse, fine = measured("visium", lattice(100)), measured("hd", lattice(8), depth=12, seed=1)
    for pair in ((coarse, fine), (fine, coarse)):
        (found,) = compare(*pair)
        assert found.captures == (pair[0].name, pair[1].name)
        assert found.places == 400
        assert found.correlation > 0.7
    other = measured("cells", np.random.default_rng(0).uniform(0, 2000, (20000, 2)), depth=20, seed=2)
    (found,) = compare(fine, other)
    assert 390 <= found.places <= 441
    assert found.correlation > 0.7


def test_only_captures_that_overlap_are_compared() -> None:
    a, b, far = (measured(n, lattice(100) + np.array([x, 0])) for n, x in (("a", 0.0), ("b", 1000.0), ("far", 9000.0)))
    assert [pair.captures for pair in compare(a, b, far)] == [("a", "b")]
    assert compare(a, b, far)[0].places == 200
    assert compare(a) == ()


def test_too_few_places_say_nothing() -> None:
    a, b = measured("a", lattice(100)), measured("b", lattice(100)[: LEAST_PLACES - 1], seed=1)
    (found,) = compare(a, b)
    assert not found.disagree
    assert found.sentence == f"a and b overlap at {LEAST_PLACES - 1} places: too few to tell whether they agree."
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["correlation"] is None


def test_genes_that_never_vary_and_empty_spots_are_no_trouble() -> None:
    a, b = measured("a", lattice(100)), measured("b", lattice(100), seed=1)
    counts = a.counts.toarray()
    counts[:, :3], counts[:50] = 0, 0
    (found,) = compare(replace(a, counts=sparse.csr_matrix(counts)), b)
    assert (found.places, found.genes) == (350, GENES - 3)
    assert found.correlation > 0.5
    nothing = replace(a, counts=sparse.csr_matrix(np.zeros(a.counts.shape, np.float32)))
    assert compare(nothing, b)[0].places == 0


@pytest.mark.real
def test_neighbouring_sections_agree_only_where_they_lie_right(data_dir: Path, tmp_path: Path) -> None:
    project = find_project(lay_out_her2st(data_dir / "her2st", tmp_path / "case").project)
    a, b = (
        read_aligned_capture(files, radius_um=50, pixel_size_um=PIXEL_SIZE_UM, analysis_shape_px=(9100, 8600))
        for files in project.captures
    )
    middle = b.xy_px.mean(axis=0)
    (right,) = compare(a, b, um_per_px=PIXEL_SIZE_UM)
    assert right.places > 150
    assert not right.disagree
    assert right.correlation - right.chance > 0.25 * right.ceiling
    for change in (np.array([[-1, 0], [0, -1]]), np.array([[0, -1], [1, 0]]), np.array([[1, 0], [0, -1]])):
        (wrong,) = compare(a, replace(b, xy_px=(b.xy_px - middle) @ change.T + middle), um_per_px=PIXEL_SIZE_UM)
        assert wrong.disagree
    (wrong,) = compare(a, replace(b, xy_px=b.xy_px + np.array([800 / PIXEL_SIZE_UM, 0])), um_per_px=PIXEL_SIZE_UM)
    assert wrong.disagree

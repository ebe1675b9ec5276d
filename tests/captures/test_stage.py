"""A capture in the store: in its own pixels, with the transform beside them, never baked in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import iscale
from iscale.captures.integrate import integrate
from iscale.captures.spots import Capture
from iscale.captures.stage import spots_fingerprint, write_capture
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.store.run_store import RunStore
from iscale.transform import Transform

GRID = SlideGrid((2000, 4000), 0.25, 0.5)
MATRIX = np.array([[0.0, -2.2, 3000.0], [2.2, 0.0, 100.0], [0, 0, 1]])
GENES = ("ERBB2", "CD3E", "CD3E-1")


@pytest.fixture
def capture() -> Capture:
    """Turned by a quarter and scaled by 2.2, on a mother image of 0.25 um per pixel."""
    own = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2) * 100.0 + 130
    counts = np.random.default_rng(0).poisson(3, (30, 3))
    return Capture(
        name="D1",
        spot_ids=tuple(f"s{i}" for i in range(30)),
        genes=GENES,
        counts=sparse.csr_matrix(counts, dtype=np.float32),
        xy_px=Transform(MATRIX).apply(own) * GRID.scale,
        radius_um=27.5,
        transform=MATRIX,
        source_xy_px=own,
        platform="visium",
        own_um_per_px=0.5,
        gene_ids=("ENSG1", "ENSG2", "ENSG3"),
    )


def stored(folder: Path, capture: Capture) -> ad.AnnData:
    store = RunStore(folder)
    store.create()
    store.make_group("captures", {})
    write_capture(store, capture, GRID)
    return iscale.open_run(folder).captures["D1"]


def test_positions_are_its_own_and_the_transform_is_beside_them(tmp_path: Path, capture: Capture) -> None:
    data = stored(tmp_path, capture)
    np.testing.assert_array_equal(data.obsm["spatial"], capture.source_xy_px)
    np.testing.assert_array_equal(data.uns["transform"], MATRIX)
    assert tuple(data.var["gene_ids"]) == capture.gene_ids
    assert tuple(data.var_names) == GENES
    np.testing.assert_array_equal(data.X.toarray(), capture.counts.toarray())
    place = data.uns["spatial"]["D1"]
    assert place["scalefactors"] == {"spot_diameter_fullres": 110.0, "microns_per_pixel": 0.5}
    assert place["metadata"] == {"platform": "visium", "spot_diameter_um": 55.0}


def test_where_its_pixel_size_is_not_known_the_transform_tells_the_spots_diameter(
    tmp_path: Path, capture: Capture
) -> None:
    factors = stored(tmp_path, replace(capture, own_um_per_px=None)).uns["spatial"]["D1"]["scalefactors"]
    assert factors == {"spot_diameter_fullres": pytest.approx(55 / (2.2 * 0.25))}


def test_on_mother_is_where_the_model_saw_the_spots(tmp_path: Path, capture: Capture) -> None:
    data = stored(tmp_path, capture)
    np.testing.assert_allclose(iscale.on_mother(data), capture.xy_px * GRID.pixel_size_um)
    np.testing.assert_allclose(iscale.on_mother(data[[4, 2]]), capture.xy_px[[4, 2]] * GRID.pixel_size_um)


def test_an_anndata_that_lies_nowhere(tmp_path: Path, capture: Capture) -> None:
    data = stored(tmp_path, capture)
    with pytest.raises(InputError, match=r"30 spots has no uns\['transform'\] and no uns\['mother_um_per_px'\]"):
        iscale.on_mother(ad.AnnData(data.X, obsm={"spatial": data.obsm["spatial"]}))
    del data.obsm["spatial"]
    with pytest.raises(InputError, match=r"30 spots has no obsm\['spatial'\]"):
        iscale.on_mother(data)


def test_the_fingerprint_knows_where_a_capture_lies_and_of_what_it_is(capture: Capture) -> None:
    spots = integrate(
        [capture], n_genes=3, dist_st_px=0, analysis_shape_px=GRID.content_shape_px, pixel_size_um=GRID.pixel_size_um
    )
    shifted = MATRIX.copy()
    shifted[0, 2] += 1
    others = (
        replace(capture, transform=shifted),
        replace(capture, source_xy_px=capture.source_xy_px + 1),
        replace(capture, gene_ids=("ENSG1", "ENSG2", "ENSG4")),
        replace(capture, platform="tables"),
        replace(capture, own_um_per_px=None),
    )
    prints = [spots_fingerprint([c], spots, GRID) for c in (capture, *others)]
    assert len(set(prints)) == len(prints)
    assert spots_fingerprint([replace(capture)], spots, GRID) == prints[0]

"""Memory stays under what is projected of the truth's area."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
from scipy import sparse
from small_runs import write_run

from iscale.geometry import Region
from iscale.trust import score_maps, score_spots
from iscale.trust.prediction import genes_in_common, open_prediction
from iscale.trust.truth import MapTruth, PlacedMaps, SpotTruth

GENES = tuple(f"G{i}" for i in range(8))


def peak(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_peaks_stay_under_their_projections(tmp_path: Path) -> None:
    rng, side = np.random.default_rng(0), 256
    maps = rng.random((8, side, side)).astype(np.float32)
    prediction = open_prediction(write_run(tmp_path / "run", maps + rng.random(maps.shape), GENES))
    region = Region(0, side, 0, side)
    truth = MapTruth("t", GENES, PlacedMaps(maps, region), region, "t")
    common = genes_in_common(prediction.genes, GENES, "t")
    score_maps.score_genes(
        prediction, truth, genes_in_common(GENES, GENES[:1], "t"), Region(0, 64, 0, 64), lambda: None
    )
    found = []
    gene_peak = peak(lambda: found.append(score_maps.score_genes(prediction, truth, common, region, lambda: None)))
    assert gene_peak < score_maps.task_bytes(region.area)
    assert gene_peak > 0.5 * score_maps.task_bytes(region.area), "projected far too much"
    ranges = found[0][1]
    place_peak = peak(lambda: score_maps.score_places(prediction, truth, common, region, ranges, 128, lambda: None))
    assert place_peak < score_maps.tile_bytes(128, 8, 8) + score_maps.map_bytes(region.area)


def test_peaks_of_spots_stay_under_their_projection(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((8, 256, 256))
    prediction = open_prediction(write_run(tmp_path / "run", maps, GENES))
    counts = sparse.csr_matrix(rng.poisson(1, (3000, 8)).astype(np.float32))
    truth = SpotTruth("t", GENES, counts, rng.uniform(0, 4096, (3000, 2)), 33.0, "t")
    common = genes_in_common(prediction.genes, GENES, "t")
    projected = score_spots.task_bytes(truth, 8.0, 8)
    found = []
    assert peak(lambda: found.append(score_spots.score_spots(prediction, truth, common, lambda: None))) < projected
    ranges = found[0][1]
    each_peak = peak(lambda: score_spots.score_each_spot(prediction, truth, common, ranges, lambda: None))
    assert each_peak < projected

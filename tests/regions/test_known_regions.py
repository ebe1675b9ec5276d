"""Clusters of the demo are its regions, which the program is not told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from benchmarks.clusters import CLEAR, known_regions
from iscale import open_run
from iscale.demo.synthetic import MARKERS
from iscale.demo.tissue import REGION_TYPES

SIDE_PX = 3072


@pytest.fixture
def demo(demo_run: Path) -> Path:
    return demo_run / "project" / "iSCALE_output"


def test_clusters_are_the_regions_of_the_demo(demo: Path) -> None:
    opened = open_run(demo)
    labels, tissue = opened.clusters.sel(n_clusters=6).to_numpy(), opened.tissue.to_numpy()
    kind, share = known_regions(tissue.shape, SIDE_PX)
    assert ((labels > 0) == tissue).all()
    assert adjusted_rand_score(kind[tissue & (share >= CLEAR)], labels[tissue & (share >= CLEAR)]) > 0.8
    assert adjusted_rand_score(kind[tissue], labels[tissue]) > 0.75


def test_the_genes_that_lead_a_cluster_mark_the_region_that_it_is(demo: Path) -> None:
    opened = open_run(demo)
    labels = opened.clusters.sel(n_clusters=6).to_numpy()
    kind, _ = known_regions(labels.shape, SIDE_PX)
    lines = [line.split("\t") for line in (demo / "clusters-gene_6" / "markers.tsv").read_text().splitlines()[1:]]
    for cluster in range(1, 7):
        region = REGION_TYPES[np.bincount(kind[labels == cluster]).argmax()]
        leading = [line[2] for line in lines if line[0] == str(cluster)][:3]
        assert set(leading) <= set(MARKERS[region]), (cluster, region, leading)

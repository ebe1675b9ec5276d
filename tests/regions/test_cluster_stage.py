"""The whole stage, on stores as the stages before leave them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute, pending
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.regions import centres as learn
from iscale.regions.centres import nearest_centre, smooth
from iscale.regions.cluster import cluster_steps
from iscale.regions.components import join_small
from iscale.regions.marker_genes import STATISTICS

GENES = tuple(f"G{k}" for k in range(40))


@pytest.fixture(autouse=True)
def few_starts(monkeypatch) -> None:
    """How good the centres are is not what is tested here."""
    monkeypatch.setattr(learn, "STARTS", 2)
    monkeypatch.setattr(learn, "FINISHED", 1)


def steps(store, grid, n_clusters=(5,), seed=0, side=1, inputs=("a", "b")):
    resources = Resources(2 * 10**9, shards_per_side=side)
    return list(cluster_steps(store, grid, n_clusters, seed, GENES, inputs=inputs, resources=resources))


def cluster(store, grid, draw=False, **options) -> None:
    for step in steps(store, grid, **options):
        if draw or step.name != "cluster/draw":
            execute(step, SerialDriver(), Ledger(store.ledgers, step.name), Silence())


def read(store, path):
    return np.asarray(store.array(path)[...])


def test_labels_are_those_of_the_whole_map_at_once(predicted) -> None:
    store, grid = predicted()
    cluster(store, grid, n_clusters=(3, 5))
    embedding = read(store, "embedding/embedding")
    for which, mask in (("labels", "tissue/mask"), ("refined", "tissue/cells")):
        there, labels = read(store, mask), read(store, f"clusters/{which}")
        assert ((labels > 0) == there).all()
        rows = smooth(embedding, there)
        for row, k in enumerate((3, 5)):
            whole = np.zeros(there.shape, np.uint8)
            whole[there] = nearest_centre(rows, read(store, f"clusters/{which}_centres")[row, :k]) + 1
            whole = join_small(whole)
            sizes = np.bincount(labels[row].ravel(), minlength=k + 1)[1:]
            assert (np.diff(sizes) <= 0).all()
            assert sizes.tolist() == read(store, f"clusters/{which}_sizes")[row, :k].tolist()
            order = read(store, f"clusters/{which}_order")[row, :k]
            assert sorted(order) == list(range(1, k + 1))
            np.testing.assert_array_equal(np.concatenate([[0], order])[whole], labels[row])


def test_the_same_bits_for_any_regions(predicted, monkeypatch) -> None:
    store, grid = predicted(shape=(576, 528))
    found = []
    monkeypatch.setattr(learn, "SAMPLE_BYTES", 4 * 4 * 5000)
    for side in (1, 2):
        cluster(store, grid, side=side)
        assert [len(step.plan.regions) for step in steps(store, grid, side=side)][1] == (4 if side == 1 else 1)
        paths = [f"clusters/{name}" for name in ("labels", "refined", "labels_sizes", "markers_5/labels")]
        found.append([read(store, path) for path in paths])
        for step in steps(store, grid):
            Ledger(store.ledgers, step.name).forget()
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_markers_are_computed_over_the_labels_that_were_written(predicted) -> None:
    store, grid = predicted()
    cluster(store, grid)
    expression, depth = read(store, "expression/expression"), read(store, "expression/depth")
    for which in ("labels", "refined"):
        labels, found = read(store, f"clusters/{which}")[0], read(store, f"clusters/markers_5/{which}")
        assert found.shape == (40, len(STATISTICS), 5)
        at = labels == 2
        expected = (1e4 * expression[:, at].astype(float) / depth[at].astype(float)).mean(axis=1)
        np.testing.assert_allclose(found[:, STATISTICS.index("mean_in"), 1], expected, rtol=1e-5)
        folder = store.folder / "clusters-gene_5"
        lines = ((folder if which == "labels" else folder / which) / "markers.tsv").read_text().splitlines()
        first = {row[0]: row[2] for row in reversed([line.split("\t") for line in lines[1:]])}
        effect = found[:, STATISTICS.index("effect_size")]
        assert first == {str(c + 1): GENES[effect[:, c].argmax()] for c in range(5)}


def test_slides_without_nuclei_have_no_refined_clusters(predicted) -> None:
    store, grid = predicted(shape=(112, 80), cells=0.0)
    cluster(store, grid, draw=True)
    assert not read(store, "clusters/refined").any()
    assert read(store, "clusters/labels").max() == 5
    assert np.isnan(read(store, "clusters/markers_5/refined")).all()
    assert (store.folder / "clusters-gene_5" / "refined" / "labels.png").is_file()
    assert len((store.folder / "clusters-gene_5" / "refined" / "markers.tsv").read_text().splitlines()) == 1


def test_fewer_superpixels_with_nuclei_than_clusters(predicted) -> None:
    store, grid = predicted()
    cells = read(store, "tissue/mask")
    keep = np.flatnonzero(cells)[[10, 5000, 9000]]
    few = np.zeros(cells.size, bool)
    few[keep] = True
    store.array("tissue/cells", "r+")[...] = few.reshape(cells.shape)
    cluster(store, grid)
    assert sorted(read(store, "clusters/refined")[0].ravel()[keep]) == [1, 2, 3]
    assert read(store, "clusters/refined_sizes")[0].tolist() == [1, 1, 1, 0, 0]


def test_more_clusters_than_different_superpixels_is_one_clear_error(predicted) -> None:
    store, grid = predicted()
    embedding, tissue = read(store, "embedding/embedding"), read(store, "tissue/mask")
    store.array("embedding/embedding", "r+")[...] = np.where(tissue, np.float16(1), embedding)
    with pytest.raises(InputError, match=r"cannot be 5 clusters.* of which \d+ differ"):
        cluster(store, grid)


@pytest.mark.parametrize("n_clusters", [(), (0,), (256,)])
def test_numbers_that_cannot_be_are_refused_before_any_work(predicted, n_clusters) -> None:
    store, grid = predicted()
    with pytest.raises(InputError, match="--n-clusters"):
        steps(store, grid, n_clusters=n_clusters)


def test_maps_masks_and_what_an_earlier_run_left(predicted) -> None:
    store, grid = predicted(shape=(112, 80))
    cluster(store, grid, draw=True, n_clusters=(3, 4))
    names = {str(p.relative_to(store.folder)) for p in store.folder.glob("clusters-gene_*/**/*") if p.is_file()}
    assert names == {
        f"clusters-gene_{k}/{name}"
        for k in (3, 4)
        for name in (
            *("labels.png", "refined/labels.png", "markers.tsv", "refined/markers.tsv"),
            *(f"masks/{cluster}.png" for cluster in range(1, k + 1)),
        )
    }
    with Image.open(store.folder / "clusters-gene_3" / "labels.png") as picture:
        assert picture.size[0] > 300
    (store.folder / "clusters-gene_4" / "own.txt").write_text("kept")
    cluster(store, grid, draw=True, n_clusters=(2,))
    names = {str(p.relative_to(store.folder)) for p in store.folder.glob("clusters-gene_*/**/*") if p.is_file()}
    assert not any(name.startswith("clusters-gene_3") for name in names)
    assert {name for name in names if name.startswith("clusters-gene_4")} == {"clusters-gene_4/own.txt"}
    assert not any(pending(step, Ledger(store.ledgers, step.name)) for step in steps(store, grid, n_clusters=(2,)))
    (store.folder / "clusters-gene_2" / "markers.tsv").unlink()
    missing = {s.name for s in steps(store, grid, n_clusters=(2,)) if pending(s, Ledger(store.ledgers, s.name))}
    assert missing == {"cluster/markers"}


def test_a_new_prediction_or_seed_makes_all_anew(predicted) -> None:
    store, grid = predicted()
    prints = {tuple(s.fingerprint for s in steps(store, grid, **o)) for o in ({}, {"seed": 1}, {"inputs": ("c", "b")})}
    assert len(prints) == 3


def test_the_plan_counts_what_is_left_on_disk(predicted) -> None:
    store, grid = predicted(shape=(112, 80))
    cluster(store, grid, draw=True)
    group, folder = store.folder / "run.zarr" / "clusters", store.folder / "clusters-gene_5"
    found = [p for root in (group, folder) for p in root.rglob("*") if p.is_file()]
    planned = steps(store, grid)
    assert len(found) <= sum(step.files for step in planned) < 1.5 * len(found)
    assert sum(p.stat().st_size for p in found) <= sum(step.disk_bytes for step in planned)

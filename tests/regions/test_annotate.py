"""Scores, labels and tables equal a direct computation in memory, whatever the regions."""

from __future__ import annotations

import csv
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image

import iscale
from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.watchers import Silence
from iscale.geometry import SlideGrid
from iscale.regions.annotate import annotate_steps
from iscale.regions.annotate_kernels import THRESHOLDS
from iscale.regions.marker_table import Markers
from iscale.store import layout
from iscale.store.run_store import RunStore, report_of

GRID = SlideGrid((300 * 16, 270 * 16), 0.5, 0.5)
SHAPE = GRID.superpixel_shape
GENES = tuple(f"G{i}" for i in range(20))
MARKERS = Markers(("tumour", "T cell", "fat"), (("G17", "G2"), ("G3", "G2", "G9"), ("G5",)))
KS = (3, 5)


def invented(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tissue (y, x), expression (gene, y, x) and depth (y, x) that are NaN off tissue, clusters (n_clusters, y, x)."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tissue = np.hypot((y - 150) / 1.2, x - 130) < 110
    expression = rng.gamma(0.7, 2.0, (len(GENES), *SHAPE)).astype(np.float16)
    expression[2] += 3  # a range that does not begin at 0
    expression[5] = 1.5  # a gene that is the same everywhere
    depth = rng.gamma(9.0, 12.0, SHAPE).astype(np.float16)
    depth[150, 100:104] = 0
    for values in (*expression, depth):
        values[~tissue] = np.nan
    clusters = np.stack([rng.integers(1, k + 1, SHAPE) for k in KS]).astype(np.uint8)
    clusters[:, ~tissue] = 0
    return tissue, expression, depth, clusters


def made(folder: Path, tissue: np.ndarray, expression: np.ndarray, depth: np.ndarray, clusters: np.ndarray) -> RunStore:
    """A store that holds what the stage reads."""
    store = RunStore(folder)
    store.create()
    for group in ("tissue", "expression", "clusters"):
        store.make_group(group, {})
    store.put("expression/gene", GENES, ("gene",))
    store.put("clusters/n_clusters", np.array(KS), ("n_clusters",))
    store.make(layout.mask("tissue/mask", SHAPE))
    store.make(layout.genes("expression/expression", len(GENES), SHAPE))
    store.make(layout.plane("expression/depth", SHAPE))
    store.make(layout.labels("clusters/labels", len(KS), SHAPE))
    root = zarr.open_group(store.root, mode="r+")
    for path, values in (
        ("tissue/mask", tissue),
        ("expression/expression", expression),
        ("expression/depth", depth),
        ("clusters/labels", clusters),
    ):
        root[path][...] = values
    return store


def annotate(
    store: RunStore, markers: Markers = MARKERS, shards: int | None = None, recipe: str = "published"
) -> list[str]:
    """Run the stage; the names of the steps that had anything to do."""
    ran = []
    resources = Resources(2 * 10**9, shards_per_side=shards)
    for step in annotate_steps(store, GRID, markers, KS, recipe=recipe, inputs=("e", "c"), resources=resources):
        report = execute(step, SerialDriver(), Ledger(store.ledgers, step.name), Silence())
        ran += [step.name] if report.regions else []
    return ran


def read(store: RunStore, name: str) -> np.ndarray:
    return np.asarray(store.array(f"annotation/{name}")[...])


@pytest.fixture(scope="module")
def invention() -> tuple[np.ndarray, ...]:
    return invented(np.random.default_rng(0))


@pytest.fixture(scope="module")
def annotated(invention: tuple[np.ndarray, ...], tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    store = made(tmp_path_factory.mktemp("annotated"), *invention)
    annotate(store, shards=1)
    return store


@pytest.fixture(scope="module")
def direct(invention: tuple[np.ndarray, ...]) -> np.ndarray:
    """Scores (label, y, x) in float64, of whole arrays."""
    expression = invention[1]
    values = expression.astype(np.float64)
    low, high = (f(values, axis=(1, 2), keepdims=True) for f in (np.nanmin, np.nanmax))
    scaled = (values - low) / np.where(high > low, high - low, 1)
    return np.stack([scaled[[GENES.index(g) for g in genes]].mean(axis=0) for genes in MARKERS.genes])


def test_scores_are_the_means_of_scaled_markers(annotated: RunStore, direct: np.ndarray) -> None:
    assert np.nanmax(direct[:2]) > 0.5
    np.testing.assert_allclose(read(annotated, "score"), direct, atol=3e-4)  # half a unit of float16 at 1
    assert read(annotated, "label").tolist() == list(MARKERS.labels)


def test_ranges_are_those_over_the_tissue(annotated: RunStore, invention: tuple[np.ndarray, ...]) -> None:
    expression = invention[1]
    names = [str(name) for name in read(annotated, "marker")]
    assert names == ["G2", "G3", "G5", "G9", "G17"]
    rows = expression[[GENES.index(name) for name in names]]
    assert np.array_equal(read(annotated, "low"), np.nanmin(rows, axis=(1, 2)))
    assert np.array_equal(read(annotated, "high"), np.nanmax(rows, axis=(1, 2)))


def test_labels_are_the_best_or_unclassified(annotated: RunStore, invention: tuple[np.ndarray, ...]) -> None:
    """Of scores as they are stored, so that labels can be derived from them."""
    tissue = invention[0]
    score = np.where(tissue, read(annotated, "score"), 0).astype(np.float64)
    labels = read(annotated, "labels")
    assert read(annotated, "threshold").tolist() == [0.01, 0.05, 0.10, 0.15, 0.20, 0.25]
    for plane, threshold in zip(labels, THRESHOLDS, strict=True):
        expected = np.where(score.max(axis=0) >= np.float32(threshold), score.argmax(axis=0) + 1, 4)
        assert np.array_equal(plane, np.where(tissue, expected, 0))
    assert np.unique(labels[0]).tolist() == [0, 1, 2, 4]
    # a gene that is the same everywhere makes no label
    unclassified = [(plane == 4).sum() for plane in labels]
    assert unclassified == sorted(unclassified)
    assert unclassified[-1] > 2 * unclassified[0]


def test_confidence_is_best_minus_second_best(annotated: RunStore, invention: tuple[np.ndarray, ...]) -> None:
    confidence, ordered = read(annotated, "confidence"), np.sort(read(annotated, "score").astype(np.float64), axis=0)
    np.testing.assert_allclose(confidence, ordered[2] - ordered[1], atol=3e-4)
    assert np.array_equal(np.isnan(confidence), ~invention[0])


@pytest.fixture(scope="module")
def relative(invention: tuple[np.ndarray, ...], tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    store = made(tmp_path_factory.mktemp("relative"), *invention)
    annotate(store, shards=1, recipe="default")
    return store


def test_by_default_counts_per_10_000_are_scaled_between_quantiles(
    relative: RunStore, invention: tuple[np.ndarray, ...]
) -> None:
    """Depth is not in it, and a bright superpixel does not set a marker's range."""
    _, expression, depth, _ = (values.astype(np.float64) for values in invention)
    there = depth > 0
    values = np.where(there, 1e4 * expression / np.where(there, depth, 1), np.where(np.isnan(depth), np.nan, 0))
    names = [str(name) for name in read(relative, "marker")]
    rows = {name: values[GENES.index(name)] for name in names}
    for name, low, high in zip(names, read(relative, "low"), read(relative, "high"), strict=True):
        expected = np.quantile(rows[name][there], [0.01, 0.999], method="inverted_cdf")
        np.testing.assert_allclose([low, high], expected, rtol=2e-3)
    ends = dict(zip(names, zip(read(relative, "low"), read(relative, "high"), strict=True), strict=True))
    scaled = {name: ((row - ends[name][0]) / (ends[name][1] - ends[name][0])).clip(0, 1) for name, row in rows.items()}
    direct = np.stack([np.mean([scaled[gene] for gene in genes], axis=0) for genes in MARKERS.genes])
    np.testing.assert_allclose(read(relative, "score"), direct, atol=1e-3)
    deeper = expression[17] > np.nanquantile(expression[17], 0.99)
    assert (values[17][deeper] < np.nanquantile(values[17], 0.9)).any()  # the two rules do differ


def test_the_store_says_by_which_rule_and_of_which_markers(relative: RunStore, annotated: RunStore) -> None:
    told = relative.attributes("annotation")
    assert told["scaling"] == "relative"
    assert "counts per 10,000" in told["scaling_rule"]
    assert "99.9% quantile" in told["scaling_rule"]
    assert told["markers"] == {"tumour": ["G17", "G2"], "T cell": ["G3", "G2", "G9"], "fat": ["G5"]}
    assert relative.attributes("annotation/high")["long_name"].startswith("99.9% quantile")
    assert annotated.attributes("annotation")["scaling"] == "published"


def test_another_recipe_labels_anew(invention: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    store = made(tmp_path, *invention)
    annotate(store, recipe="published")
    assert "annotate/range" in annotate(store, recipe="default")


@pytest.mark.parametrize("recipe", ["published", "default"])
def test_regions_do_not_change_a_byte(
    annotated: RunStore, relative: RunStore, invention: tuple[np.ndarray, ...], tmp_path: Path, recipe: str
) -> None:
    other = made(tmp_path, *invention)
    annotate(other, shards=2, recipe=recipe)
    annotated = relative if recipe == "default" else annotated
    for name in ("score", "labels", "confidence", "low", "high"):
        assert np.array_equal(read(annotated, name), read(other, name), equal_nan=name in ("score", "confidence")), name
    for table in ("annotation/shares.tsv", *(f"clusters-gene_{k}/annotation.tsv" for k in KS)):
        assert (annotated.folder / table).read_bytes() == (other.folder / table).read_bytes()


def test_tables_tell_what_clusters_are(annotated: RunStore, invention: tuple[np.ndarray, ...]) -> None:
    score, labels = read(annotated, "score").astype(np.float64), read(annotated, "labels")[0]
    for k, clusters in zip(KS, invention[3], strict=True):
        table = pd.read_csv(annotated.folder / f"clusters-gene_{k}" / "annotation.tsv", sep="\t")
        assert len(table) == 4 * k
        for cluster, rows in table.groupby("cluster"):
            here = clusters == cluster
            means = score[:, here].mean(axis=1)
            assert (rows["superpixels"] == here.sum()).all()
            np.testing.assert_allclose(rows["mean_score"], [*means, np.nan], atol=1e-6)
            np.testing.assert_allclose(rows["share"], [(labels[here] == i).mean() for i in (1, 2, 3, 4)], atol=1e-6)
            assert (rows["best_label"] == MARKERS.labels[int(means.argmax())]).all()
            assert rows["label"].tolist() == [*MARKERS.labels, "Unclassified"]


def test_shares_are_of_the_tissue(annotated: RunStore, invention: tuple[np.ndarray, ...]) -> None:
    with (annotated.folder / "annotation/shares.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    labels = read(annotated, "labels")
    assert [int(row["superpixels"]) for row in rows] == [(plane == i).sum() for plane in labels for i in (1, 2, 3, 4)]
    assert sum(float(row["share"]) for row in rows[:4]) == pytest.approx(1, abs=1e-5)


def test_figures_are_drawn_and_masks_show_the_slide(annotated: RunStore) -> None:
    folder = annotated.folder / "annotation"
    assert sorted(p.name for p in folder.glob("*.png")) == [f"{t:.2f}.png" for t in THRESHOLDS]
    for kind in ("masks", "scores"):
        assert sorted(p.name for p in (folder / kind).glob("*.png")) == ["T_cell.png", "fat.png", "tumour.png"]
    mask = np.asarray(Image.open(folder / "masks" / "tumour.png"))
    assert mask.shape == (300, 270)
    assert np.array_equal(mask > 0, read(annotated, "labels")[0, :300, :270] == 1)
    assert len(np.unique(np.asarray(Image.open(folder / "0.10.png").convert("RGB")).reshape(-1, 3), axis=0)) > 4


def test_memory_stays_under_the_projection(annotated: RunStore) -> None:
    resources = Resources(2 * 10**9)
    steps = [
        *annotate_steps(annotated, GRID, MARKERS, KS, recipe="published", inputs=("e", "c"), resources=resources),
        *annotate_steps(annotated, GRID, MARKERS, KS, recipe="default", inputs=("e", "c"), resources=resources),
    ]
    for step in steps[:6]:
        tracemalloc.start()
        step.kernel(step.context, step.plan.regions[0])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < step.plan.task_bytes, step.name


def test_what_is_done_is_not_done_again_and_other_clusters_leave_labels_alone(
    invention: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    store = made(tmp_path, *invention)
    every = ["annotate/range", "annotate/label", "annotate/figures", "annotate/clusters"]
    assert annotate(store) == every
    assert annotate(store) == []
    (tmp_path / "clusters-gene_5/annotation.tsv").unlink()
    assert annotate(store) == ["annotate/clusters"]
    other = Markers(("fat",), (("G5", "G7"),))
    assert annotate(store, other) == every
    assert [p.name for p in (tmp_path / "annotation/masks").glob("*")] == ["fat.png"]
    # with one label confidence is its score
    assert np.array_equal(read(store, "confidence"), read(store, "score")[0], equal_nan=True)


@pytest.mark.full
def test_markers_need_not_be_among_the_imputed_genes(tiny_original: Path, tmp_path: Path) -> None:
    found = {}
    for what in ("top", "all"):
        project = shutil.copytree(tiny_original, tmp_path / what)
        (project / "MotherImage" / "markers.csv").write_text("gene,label\nG0,A\nG6,A\nG7,B\nG3,C\nnone,C\n")
        iscale.run(project, stage="annotate", n_genes=3, n_clusters=3, materialize=what, hold_out="none")
        found[what] = iscale.open_run(project)
    store = found["top"].store
    assert found["top"].expression.sizes["gene"] == 3
    assert sorted(store.names("annotation/marker")) == ["G0", "G3", "G6", "G7"]
    score, as_written = (np.asarray(run.store.array("annotation/score")[...]) for run in found.values())
    assert np.isfinite(score).sum() > 1000
    np.testing.assert_allclose(score, as_written, atol=0.03)  # of noise, whose range float16 has few steps for
    notice = next(text for text in report_of(store)["notices"] if text.startswith("markers.csv"))
    assert notice.startswith("markers.csv: left out, as not among the 8 genes of the run, 1 of 5 markers: none.")

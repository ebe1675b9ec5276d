"""Captures as a truth: bins and transcripts lie in the superpixels where they were measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from small_runs import true_and_guess, write_run

from iscale.captures import counts as counts_module
from iscale.captures.measured import Measured
from iscale.captures.platforms import read_measured
from iscale.captures.spots import Capture
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.transform import Transform, write_transform
from iscale.trust import evaluate as command
from iscale.trust.evaluate import evaluate_run
from iscale.trust.open_truth import open_truth
from iscale.trust.truth import MapTruth, Reading
from iscale.trust.truth_captures import BinnedMaps, bin_points, bin_squares

GRID = SlideGrid((2560, 2560), 0.5, 0.5)
GENES = ("EPCAM", "CD3E", "MS4A1")
UM = 8.0


def write_xenium(folder: Path, rng: np.random.Generator) -> pd.DataFrame:
    """A folder of transcripts over 900 x 700 um with a hole; the table of those that count."""
    folder.mkdir(parents=True)
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.25}))
    n = 60_000
    table = pd.DataFrame(
        {
            "feature_name": rng.choice([*GENES, "NegControlProbe_1"], n),
            "x_location": rng.uniform(0, 900, n).astype(np.float32),
            "y_location": rng.uniform(0, 700, n).astype(np.float32),
            "qv": rng.uniform(15, 40, n).astype(np.float32),
        }
    )
    hole = (table["x_location"] - 450) ** 2 + (table["y_location"] - 350) ** 2 < 60**2
    table = table[~hole]
    table.to_parquet(folder / "transcripts.parquet")
    return table[(table["qv"] >= 20) & table["feature_name"].isin(GENES)]


def test_transcripts_are_counted_where_they_lie(tmp_path: Path) -> None:
    table = write_xenium(tmp_path / "X1", np.random.default_rng(0))
    matrix = np.array([[0.5, 0, 160], [0, 0.5, 320], [0, 0, 1.0]])  # 0.25 um to 0.5 um, 10 and 20 superpixels on
    write_transform(tmp_path / "X1" / "transform.json", Transform(matrix))
    truth = open_truth(tmp_path / "X1", GRID, Reading(frozenset(GENES[:2])))
    assert isinstance(truth, MapTruth)
    assert (truth.genes, sorted(truth.all_genes)) == (("CD3E", "EPCAM"), sorted(GENES))
    assert truth.region == Region(20, 108, 10, 123)
    found = truth.maps.read([0, 1], truth.region)
    for row, gene in enumerate(truth.genes):
        own = table[table["feature_name"] == gene]
        edges = np.arange(89) * UM, np.arange(114) * UM
        expected, *_ = np.histogram2d(own["y_location"], own["x_location"], edges)
        hole = np.isnan(found[row])
        assert expected[hole].sum() == 0
        np.testing.assert_array_equal(found[row][~hole], expected[~hole])
    y, x = np.mgrid[:88, :113] * UM + UM / 2
    far = (x - 450) ** 2 + (y - 350) ** 2
    assert np.isnan(found[0][far < 35**2]).all(), "a hole is not measured"
    assert np.isfinite(found[0][far > 90**2]).all(), "a gap of a superpixel or two is 0"


def lattice(side_um: float, turn_deg: float, shift_um: float, each: float = 1.0) -> Capture:
    """Square bins over 60 x 60 superpixels, every one with the same count."""
    n = int(480 / side_um)
    y, x = (np.mgrid[:n, :n].reshape(2, -1) + 0.5) * side_um - 240
    angle = np.deg2rad(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    xy_um = np.stack([x, y], axis=1) @ turn.T + 640 + shift_um
    counts = sparse.csr_matrix(np.tile([each, 0, 2 * each], (len(x), 1)).astype(np.float32))
    ids = tuple(map(str, range(len(x))))
    return Capture("H", ids, GENES, counts, xy_um / 0.5, 4.0, transform=np.eye(3))


@pytest.mark.parametrize(
    ("side", "turn", "shift"), [(8, 0, 0), (8, 0, 3.3), (16, 0, 5), (8, 30, 1), (2, 17, 0), (16, 45, 2)]
)
def test_bins_become_counts_per_superpixel_however_they_lie(side: float, turn: float, shift: float) -> None:
    angle = np.deg2rad(turn)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    maps = bin_squares(lattice(side, turn, shift), frozenset(["EPCAM", "MS4A1"]), GRID, side, matrix)
    middle = maps.read([0, 1], Region(70, 90, 70, 90))
    per_superpixel = (UM / side) ** 2
    # Where bins lie turned, what a superpixel gets is told by points, 16 or more to the bin.
    np.testing.assert_allclose(middle[0], per_superpixel, rtol=1e-5)
    np.testing.assert_allclose(middle[1], 2 * per_superpixel, rtol=1e-5)
    area = np.isfinite(maps.share).sum() * UM**2
    assert area == pytest.approx(480**2, rel=0.04)


def test_what_is_not_uniform_keeps_its_place_and_sum() -> None:
    capture = lattice(8, 0, 0)
    values = np.random.default_rng(1).poisson(3, (3600, 3)).astype(np.float32)
    capture = Capture("H", capture.spot_ids, GENES, sparse.csr_matrix(values), capture.xy_px, 4.0)
    maps = bin_squares(capture, frozenset(GENES), GRID, 8.0, np.eye(2))
    found = maps.read([0, 1, 2], Region(50, 110, 50, 110))
    np.testing.assert_allclose(found, values.T.reshape(3, 60, 60), rtol=1e-6)
    cells = bin_points(capture, frozenset(GENES), GRID)
    np.testing.assert_allclose(cells.read([0, 1, 2], Region(50, 110, 50, 110)), values.T.reshape(3, 60, 60))


def test_maps_are_the_same_by_gene_and_by_place_and_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    genes = tuple(f"G{i}" for i in range(12))
    values = sparse.csr_matrix(rng.poisson(0.5, (3600, 12)).astype(np.float32))
    plain = lattice(8, 20, 3)
    capture = Capture("H", plain.spot_ids, genes, values, plain.xy_px, 4.0)

    def both() -> tuple[BinnedMaps, list[np.ndarray]]:
        maps = bin_squares(capture, frozenset(genes), GRID, 8.0, np.eye(2))
        assert maps.frame == Region(0, 128, 0, 128)
        region = Region(72, 120, 56, 104)
        return maps, [maps.read(range(12), region), np.concatenate([maps.read([g], region) for g in range(12)])]

    maps, (by_place, by_gene) = both()
    few = maps.read([3, 4], maps.frame)
    assert few.shape == (2, *maps.frame.shape)
    np.testing.assert_array_equal(few[:, 72:120, 56:104], by_place[3:5])
    np.testing.assert_allclose(by_place, by_gene, rtol=1e-6)
    assert np.isfinite(by_place).any()
    monkeypatch.setattr(counts_module, "MOST_IN_MEMORY", 1000)
    maps, (on_disk, on_disk_by_gene) = both()
    assert isinstance(maps.by_place, counts_module.StoredCounts)
    np.testing.assert_allclose(on_disk, by_place, rtol=1e-6)
    np.testing.assert_allclose(on_disk_by_gene, by_place, rtol=1e-6)


def test_a_run_that_predicts_what_was_measured_scores_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "draw_map", lambda *_: None)
    table = write_xenium(tmp_path / "X1", np.random.default_rng(3))
    write_transform(tmp_path / "transform.json", Transform(np.array([[0.5, 0, 160], [0, 0.5, 320], [0, 0, 1.0]])))
    edges = (np.arange(161) - 20) * UM, (np.arange(161) - 10) * UM
    maps = []
    for gene in GENES:
        own = table[table["feature_name"] == gene]
        maps.append(np.histogram2d(own["y_location"], own["x_location"], edges)[0])
    write_run(tmp_path / "run", 5 * np.stack(maps), GENES)
    text = evaluate_run(tmp_path / "run", tmp_path / "X1", watcher=Silence())
    found = pd.read_csv(tmp_path / "run" / "evaluation" / "truth-X1" / "genes.tsv", sep="\t")
    np.testing.assert_allclose(found[["pearson", "spearman", "uncentred", "ssim"]], 1, atol=1e-6)
    assert "transcripts, counted where they lie" in text


def test_real_visium_hd_bins_keep_their_counts(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "HD"
    folder.symlink_to(data_dir / "visium_hd")
    measured = read_measured(folder)
    assert measured.um_per_px is not None
    scale = measured.um_per_px / 0.5
    low, high = measured.xy_px.min(axis=0) * scale, measured.xy_px.max(axis=0) * scale
    shift = 100 - low
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])
    write_transform(tmp_path / "transform.json", Transform(matrix))
    height, width = (int(n) + 300 for n in (high - low)[::-1])
    genes = frozenset(measured.gene_symbols)
    truth = open_truth(folder, SlideGrid((height, width), 0.5, 0.5), Reading(genes))
    assert isinstance(truth, MapTruth)
    assert isinstance(truth.maps, BinnedMaps)
    kept = float(truth.maps.by_place.sum())
    assert kept == pytest.approx(float(measured.counts.sum()), rel=1e-4)


def test_cells_without_transcripts_are_counted_at_their_middles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    xy_px = rng.uniform(1000, 1400, (4000, 2))
    values = rng.poisson(2, (4000, 3)).astype(np.float32)
    names = [f"c{i}" for i in range(4000)]
    cells = Measured("xenium", names, list(GENES), list(GENES), sparse.csr_matrix(values), xy_px, 9.0, 0.5)
    monkeypatch.setattr("iscale.trust.truth_captures.detect_platform", lambda _: "xenium")
    monkeypatch.setattr("iscale.trust.truth_captures.read_measured", lambda *_, **__: cells)
    (tmp_path / "X").mkdir()
    write_transform(tmp_path / "X" / "transform.json", Transform(np.eye(3)))
    truth = open_truth(tmp_path / "X", GRID, Reading(frozenset(GENES)))
    assert isinstance(truth, MapTruth)
    assert any("has no transcripts: a cell's counts lie in one superpixel" in notice for notice in truth.notices)
    assert np.nansum(truth.maps.read([0, 1, 2], truth.region)) == values.sum()


def write_spots(folder: Path, counts: np.ndarray, xy_px: np.ndarray, genes: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    ids = [f"s{i}" for i in range(len(counts))]
    pd.DataFrame(counts, ids, genes).rename_axis("spot").to_csv(folder / "cnts.tsv", sep="\t")
    pd.DataFrame(xy_px, ids, ["x", "y"]).rename_axis("spot").to_csv(folder / "locs.tsv", sep="\t")


def test_what_is_not_placed_or_has_no_radius_is_one_clear_error(tmp_path: Path) -> None:
    _, guess = true_and_guess((3, 48, 64))
    write_run(tmp_path / "run", guess, GENES)
    write_xenium(tmp_path / "X1", np.random.default_rng(0))
    with pytest.raises(InputError, match=r"not placed on the mother image: .* has neither transform\.json"):
        evaluate_run(tmp_path / "run", tmp_path / "X1", watcher=Silence())
    spots = np.array([[300.0, 300], [500, 400]])
    write_spots(tmp_path / "S1", np.ones((2, 3), int), spots, GENES)
    with pytest.raises(InputError, match="radius is not known") as error:
        evaluate_run(tmp_path / "run", tmp_path / "S1", watcher=Silence())
    assert str(tmp_path / "S1" / "radius.txt") in error.value.remedy
    write_spots(tmp_path / "S2", np.ones((2, 3), int), 10 * spots, GENES)  # nor has it a radius, which is told last
    with pytest.raises(InputError, match="2 of 2 spots lie outside of the image"):
        evaluate_run(tmp_path / "run", tmp_path / "S2", watcher=Silence())
    project = tmp_path / "P" / "DaughterCaptures"
    write_xenium(project / "UnallignedToMother" / "D9", np.random.default_rng(0))
    with pytest.raises(InputError, match=r"Capture D9 is not placed") as error:
        evaluate_run(tmp_path / "run", project / "UnallignedToMother" / "D9", watcher=Silence())
    assert "iscale align" in error.value.remedy

"""Bins do not depend on blocks, hold every transcript, and memory does not grow with the transcripts."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iscale.captures.counts import StoredCounts, in_memory
from iscale.captures.readers.binning import BinCounts, Binned, GeneIndex
from iscale.errors import InputError

SOURCE = Path("transcripts.parquet")


def _binned(gene, x, y, cuts, bin_um=8.0, pairs_at_once=3) -> Binned:
    bins = BinCounts(bin_um, SOURCE, pairs_at_once)
    for part in zip(*(np.split(np.asarray(values), cuts) for values in (gene, x, y)), strict=True):
        bins.add(*part)
    return bins.result(5)


positions = st.floats(-1e4, 1e4, allow_nan=False, width=32)


@given(
    st.lists(st.tuples(st.integers(0, 4), positions, positions), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
    st.sampled_from([2.0, 8.0, 16.0, 50.0]),
    st.randoms(),
)
def test_bins_hold_every_transcript_whatever_the_blocks_and_their_order(rows, cuts, bin_um, random):
    gene, x, y = (np.array(column) for column in zip(*rows, strict=True))
    whole = _binned(gene, x, y, [], bin_um, 1 << 20)
    order = list(range(len(rows)))
    random.shuffle(order)
    cut = _binned(gene[order], x[order], y[order], sorted(cuts), bin_um)
    assert cut.ids == whole.ids
    assert (cut.counts != whole.counts).nnz == 0
    np.testing.assert_array_equal(cut.xy_um, whole.xy_um)

    expected = Counter((int(v // bin_um), int(u // bin_um), g) for g, u, v in rows)
    found = whole.counts.tocoo()
    index = [tuple(map(int, name.split("_"))) for name in whole.ids]
    assert {(*index[b], int(g)): n for b, g, n in zip(found.row, found.col, found.data, strict=True)} == expected
    np.testing.assert_array_equal(whole.xy_um, [((i + 0.5) * bin_um, (j + 0.5) * bin_um) for j, i in index])
    assert index == sorted(index)


def test_bins_that_are_put_on_disk_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, 5000), rng.normal(0, 400, 5000), rng.normal(0, 900, 5000)
    whole = _binned(*rows, [], pairs_at_once=1 << 20)
    monkeypatch.setattr("iscale.captures.readers.binning.MOST_PAIRS", 150)
    monkeypatch.setattr("iscale.captures.counts.MOST_IN_MEMORY", 500)
    cut = _binned(*rows, np.arange(100, 5000, 100), pairs_at_once=200)
    assert isinstance(cut.counts, StoredCounts)
    assert cut.ids == whole.ids
    np.testing.assert_array_equal(cut.xy_um, whole.xy_um)
    np.testing.assert_array_equal(in_memory(cut.counts).toarray(), whole.counts.toarray())


def test_no_transcripts_are_no_bins():
    binned = BinCounts(8, SOURCE).result(3)
    assert binned.ids == []
    assert binned.counts.shape == (0, 3)
    assert binned.xy_um.shape == (0, 2)


def test_memory_is_that_of_pairs_not_of_transcripts():
    rng = np.random.default_rng(0)
    rows, block = 4_000_000, 100_000
    bins = BinCounts(8, SOURCE, pairs_at_once=50_000)
    tracemalloc.start()
    for _ in range(rows // block):
        bins.add(rng.integers(0, 10, block), rng.uniform(0, 400, block), rng.uniform(0, 400, block))
    binned = bins.result(10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert binned.counts.sum() == rows
    assert binned.counts.shape == (50 * 50, 10)
    assert peak < 16e6  # the transcripts themselves are 96 MB


@pytest.mark.parametrize("side", [0, -8, float("nan"), float("inf")])
def test_a_bin_needs_a_side(side):
    with pytest.raises(InputError, match="side of a bin"):
        BinCounts(side, SOURCE)


@pytest.mark.parametrize("x", [1e12, -1e12, float("nan"), float("inf")])
def test_positions_that_are_no_um_are_refused(x):
    with pytest.raises(InputError, match="has a transcript at") as caught:
        BinCounts(8, SOURCE).add(np.array([0, 0]), np.array([1.0, x]), np.array([1.0, 2.0]))
    assert f"{x:g} um" in caught.value.problem


def test_more_genes_than_fit_are_refused():
    with pytest.raises(InputError, match="65,536 genes"):
        BinCounts(8, SOURCE).add(np.array([1 << 16]), np.array([1.0]), np.array([1.0]))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())])
def test_gene_names_come_as_text_bytes_or_dictionary(kind):
    index = GeneIndex(["B", "Z", "B"], is_gene=lambda name: not name.startswith("Neg"))
    texts = ["C", "Neg1", "B", "A", "C"]
    values = [text.encode() for text in texts] if kind == pa.binary() else texts
    column = pa.chunked_array([pa.array(values[:3]).cast(kind), pa.array(values[3:]).cast(kind)])
    assert index.codes(column, SOURCE).tolist() == [3, -1, 0, 4, 3]
    assert [index.names[at] for at in index.order()] == ["B", "Z", "B", "A", "C"]


@pytest.mark.parametrize("values", [["A", None], ["A", ""], [1, 2]])
def test_transcripts_without_a_gene_are_refused(values):
    with pytest.raises(InputError, match="gene"):
        GeneIndex().codes(pa.chunked_array([values]), SOURCE)

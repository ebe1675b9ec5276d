"""Counts on disk are the counts that were given, whatever is asked of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from iscale.captures import counts as module
from iscale.captures.counts import (
    Counts,
    CountsWriter,
    Entries,
    StoredCounts,
    blocks,
    depth_of,
    gather,
    in_memory,
    select_genes,
    take,
    transposed,
    whole_numbers,
)

EXPECTED = sparse.random(300, 40, 0.2, "csr", np.float32, np.random.default_rng(0), lambda n: np.arange(n) % 300 + 1.0)


@pytest.fixture(params=[True, False], ids=["on disk", "in memory"])
def counts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Counts:
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 100 if request.param else 10**6)
    monkeypatch.setattr(module, "AT_ONCE", 70)
    return stored(EXPECTED, 13)


def stored(whole: sparse.csr_matrix, step: int) -> Counts:
    writer = CountsWriter(whole.shape[1])
    for at in range(0, whole.shape[0], step):
        writer.add(whole[at : at + step])
    return writer.done()


def same(found: Counts, expected: sparse.csr_matrix) -> None:
    found = in_memory(found)
    assert found.dtype == np.float32
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_what_is_many_lies_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_MEMORY", EXPECTED.nnz)
    assert isinstance(stored(EXPECTED, 50), sparse.csr_matrix)
    monkeypatch.setattr(module, "MOST_IN_MEMORY", EXPECTED.nnz - 1)
    assert isinstance(stored(EXPECTED, 50), StoredCounts)


def test_all_of_it(counts: Counts) -> None:
    assert counts.shape == EXPECTED.shape
    assert counts.nnz == EXPECTED.nnz
    np.testing.assert_array_equal(counts.indptr, EXPECTED.indptr)
    np.testing.assert_array_equal(depth_of(counts), EXPECTED.sum(axis=1).A1)
    assert whole_numbers(counts)
    same(counts, EXPECTED)


def test_blocks_are_all_spots_once_and_small(counts: Counts) -> None:
    found = list(blocks(counts))
    assert [spots.start for spots, _ in found[1:]] == [spots.stop for spots, _ in found[:-1]]
    assert (found[0][0].start, found[-1][0].stop) == (0, 300)
    assert max(block.nnz for _, block in found) <= 70
    same(sparse.vstack([block for _, block in found], format="csr"), EXPECTED)


def test_some_spots_in_any_order(counts: Counts) -> None:
    rng = np.random.default_rng(1)
    some = np.flatnonzero(rng.random(300) < 0.3)
    order = rng.permutation(300)[:200]
    for rows in (some, order, np.arange(0), np.arange(299, 300)):
        same(take(counts, rows), EXPECTED[rows].sorted_indices())
        same(gather(counts, rows), EXPECTED[rows])
    again = take(take(counts, some), np.arange(0, len(some), 2))
    same(again, EXPECTED[some[::2]])
    np.testing.assert_array_equal(depth_of(again), EXPECTED[some[::2]].sum(axis=1).A1)
    twice = np.array([7, 7, 3])
    same(gather(counts, twice), EXPECTED[twice])
    assert max(block.nnz for _, block in blocks(take(counts, some))) <= 70


def test_some_genes_and_turned_round(counts: Counts) -> None:
    genes = np.array([30, 2, 17])
    same(select_genes(counts, genes), EXPECTED[:, genes].sorted_indices())
    same(transposed(counts), EXPECTED.T.tocsr().sorted_indices())


def test_a_fraction_is_told_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 100)
    values = EXPECTED.copy()
    values.data[values.indptr[20]] = 0.25
    found = stored(values, 13)
    same(found, values)
    assert not whole_numbers(found)
    assert not whole_numbers(take(found, np.arange(20, 22)))
    assert whole_numbers(take(found, np.arange(21, 300)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.integers(1, 300), st.integers(0, 2**16))
def test_entries_in_any_order_are_sorted_and_summed(n: int, n_spots: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spot, gene = rng.integers(0, n_spots, n), rng.integers(0, 9, n)
    count = rng.integers(0, 2**18, n).astype(np.float32)
    expected = np.zeros((n_spots, 9))
    np.add.at(expected, (spot, gene), count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iscale.captures.counts.AT_ONCE", 50)
        entries = Entries((n_spots, 9))
        for at in range(0, n, 37):
            entries.add(spot[at : at + 37], gene[at : at + 37], count[at : at + 37])
        found = entries.counts()
    assert found.shape == expected.shape
    np.testing.assert_array_equal(in_memory(found).toarray(), expected)

"""Several sections in one table: refused by what names them, and the one that is asked for is read alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from iscale.captures.platforms import read_capture, read_measured
from iscale.errors import InputError

N = 40
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2, (2 * N, 3)).astype(np.float32) + 1
BARCODES = ["".join(RNG.choice(list("ACGT"), 16)) for _ in range(N)]
XY = np.array([(100.0 * (i % 8), 90.0 * (i // 8)) for i in range(N)])
BOTH = np.concatenate([XY, XY + 30])


def written(path: Path, names: list[str], xy: Any = BOTH, uns: Any = None, **obs: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are given twice
        adata = ad.AnnData(sparse.csr_matrix(COUNTS), obs=pd.DataFrame(obs, index=names))
    adata.obsm["spatial"] = xy
    adata.uns["spatial"] = uns or {}
    adata.var_names = ["A", "B", "C"]
    adata.write_h5ad(path)
    return path


PLAIN = [f"spot{i}" for i in range(2 * N)]
HALVES = ["A1"] * N + ["B1"] * N
FACTORS = {name: {"scalefactors": {"microns_per_pixel": um}} for name, um in (("A1", 0.5), ("B1", 0.25))}

JOINED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "library_id": (PLAIN, {"library_id": HALVES}, "A1, B1 (by obs library_id)"),
    "uns and a column of its keys": (PLAIN, {"of": HALVES, "uns": FACTORS}, "A1, B1 (by obs library_id)"),
    "fields of view with local places": (PLAIN, {"fov": [1] * N + [2] * N}, "1, 2 (by obs fov)"),
    "batch": (PLAIN, {"batch": pd.Categorical(HALVES)}, "A1, B1 (by obs batch)"),
    "suffixes": (
        [f"{b}-1-A1" for b in BARCODES] + [f"{b}-1-B1" for b in BARCODES],
        {},
        "A1, B1 (by what their barcodes begin or end with)",
    ),
    "numbers": ([f"{b}-1" for b in BARCODES] + [f"{b}-2" for b in BARCODES], {}, "1, 2 (by what their barcodes"),
    "prefixes": ([f"A1_{b}-1" for b in BARCODES] + [f"B1_{b}-1" for b in BARCODES], {}, "A1, B1 (by what their"),
}


@pytest.mark.parametrize("how", list(JOINED))
def test_two_sections_are_refused_and_either_is_read_by_its_name(tmp_path: Path, how: str) -> None:
    names, more, said = JOINED[how]
    path = written(tmp_path / "joined.h5ad", names, **more)
    with pytest.raises(InputError, match="holds 2 sections") as caught:
        read_measured(path)
    assert said in caught.value.problem
    first, second = said.split(" (")[0].split(", ")
    assert f"section = '{first}'" in caught.value.remedy
    for at, name in enumerate((first, second)):
        found = read_measured(path, section=name)
        rows = slice(at * N, (at + 1) * N)
        assert found.spot_ids == names[rows]
        np.testing.assert_array_equal(found.xy_px, BOTH[rows])
        np.testing.assert_array_equal(found.counts.toarray(), COUNTS[rows])
        assert found.obs is not None
        assert list(found.obs.index) == names[rows]
        assert any(f"the 40 of section {name} are read" in notice for notice in found.notices)
        assert found.um_per_px == ((0.5, 0.25)[at] if "uns" in more else None)
    with pytest.raises(InputError, match=f"has no section 'C1': {first}, {second}"):
        read_measured(path, section="C1")


def test_sections_whose_barcodes_are_the_same_are_told_by_their_column(tmp_path: Path) -> None:
    path = written(tmp_path / "joined.h5ad", [f"{b}-1" for b in BARCODES] * 2, library_id=HALVES)
    with pytest.raises(InputError, match="holds 2 sections"):
        read_measured(path)
    found = read_measured(path, section="B1")
    assert found.spot_ids == [f"{b}-1" for b in BARCODES]
    np.testing.assert_array_equal(found.xy_px, BOTH[N:])
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS[N:])
    path = written(tmp_path / "nameless.h5ad", [f"{b}-1" for b in BARCODES] * 2)
    with pytest.raises(InputError, match="40 names of obs are given more than once") as caught:
        read_measured(path)
    assert "by a column library_id" in caught.value.remedy


ONE: dict[str, tuple[list[str], Any, dict[str, Any]]] = {
    "fields of view beside each other": (
        PLAIN,
        np.concatenate([XY, np.add(XY, (1000, 0))]),
        {"fov": [1] * N + [2] * N},
    ),
    "a column of one value": (PLAIN, BOTH, {"library_id": ["A1"] * 2 * N}),
    "barcodes of one section": ([f"{b}-1" for b in BARCODES] + [f"{b[::-1]}-1" for b in BARCODES], BOTH, {}),
    "cells": ([f"aaaa{c}-1" for c in ("abcd", "bcde", "cdef")] + PLAIN[3:], BOTH, {}),
}


@pytest.mark.parametrize("how", list(ONE))
def test_what_is_one_section_is_read_whole(tmp_path: Path, how: str) -> None:
    names, xy, obs = ONE[how]
    found = read_measured(written(tmp_path / "one.h5ad", names, xy, **obs))
    assert found.spot_ids == names
    np.testing.assert_array_equal(found.xy_px, xy)


def test_sections_are_for_tables(tmp_path: Path) -> None:
    path = written(tmp_path / "joined.h5ad", PLAIN, library_id=HALVES)
    assert read_capture(path, section="B1").n_obs == N
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "experiment.xenium").write_text("{}")
    with pytest.raises(InputError, match="section is B1, but xenium is of one section"):
        read_measured(tmp_path / "x", section="B1")
    with pytest.raises(InputError, match="unit is 'mm'"):
        read_measured(path, unit="mm")

"""AnnData as versions before 0.8 wrote it, written here by hand: the same tables, or what wrote them is told."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

from iscale.captures.readers.h5ad import read
from iscale.errors import InputError

N = 12
COUNTS = sparse.csr_matrix(np.random.default_rng(0).poisson(2, (N, 3)).astype(np.float32) + 1)
XY = np.random.default_rng(1).uniform(0, 500, (N, 2))
IDS, GENES = [f"c{i}" for i in range(N)], ["ERBB2", "CD3E", "KRT8"]
CODES, KINDS = np.arange(N, dtype=np.int8) % 2, ["stroma", "tumour"]
TEXT = h5py.string_dtype()


def sparse_into(file: h5py.File, name: str, **attributes: object) -> None:
    group = file.create_group(name)
    for part in ("data", "indices", "indptr"):
        group[part] = getattr(COUNTS, part)
    group.attrs.update(attributes)


def of_groups(path: Path) -> None:
    """Tables are groups that say nothing of themselves; categories lie in a group of their own."""
    with h5py.File(path, "w") as file:
        sparse_into(file, "X", **{"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": COUNTS.shape})
        obs = file.create_group("obs")
        obs.create_dataset("_index", data=IDS, dtype=TEXT)
        obs["area"], obs["kind"] = np.arange(N) * 1.5, CODES
        obs.create_dataset("__categories/kind", data=KINDS, dtype=TEXT)
        obs["kind"].attrs["categories"] = obs["__categories/kind"].ref
        obs.attrs.update({"_index": "_index", "column-order": ["area", "kind"]})
        file.create_group("var").create_dataset("index", data=GENES, dtype=TEXT)
        file["obsm/spatial"] = XY


def of_records(path: Path) -> None:
    """Tables, and obsm, are arrays of records; the matrix has the marks of that time."""
    with h5py.File(path, "w") as file:
        sparse_into(file, "X", h5sparse_format=b"csr", h5sparse_shape=COUNTS.shape)
        kinds = [("index", "S8"), ("area", "f8"), ("kind", "i1")]
        file["obs"] = np.array(
            [(name.encode(), 1.5 * i, kind) for i, (name, kind) in enumerate(zip(IDS, CODES, strict=True))], kinds
        )
        file["var"] = np.array([(gene.encode(),) for gene in GENES], [("index", "S8")])
        file["uns/kind_categories"] = np.array(KINDS, "S8")
        file["obsm"] = np.array([(tuple(xy),) for xy in XY], [("spatial", "f8", (2,))])


@pytest.mark.parametrize("write", [of_groups, of_records])
def test_old_tables_are_read(tmp_path: Path, write: object) -> None:
    write(tmp_path / "old.h5ad")  # type: ignore[operator]
    found = read(tmp_path / "old.h5ad")
    assert (found.spot_ids, found.gene_symbols) == (IDS, GENES)
    np.testing.assert_array_equal(found.counts.toarray(), COUNTS.toarray())
    np.testing.assert_array_equal(found.xy_px, XY)
    assert found.obs is not None
    assert list(found.obs["kind"]) == [KINDS[code] for code in CODES]
    assert list(found.obs["area"]) == [1.5 * i for i in range(N)]


def test_what_cannot_be_read_says_what_wrote_it(tmp_path: Path) -> None:
    of_groups(tmp_path / "old.h5ad")
    with h5py.File(tmp_path / "old.h5ad", "r+") as file:
        del file["obs/_index"]
    with pytest.raises(InputError, match="cannot be read as AnnData: a table has no index"):
        read(tmp_path / "old.h5ad")
    with h5py.File(tmp_path / "old.h5ad", "r+") as file:
        del file["obs"]
    with pytest.raises(InputError, match="it has no obs; it states no format, as those that anndata wrote before"):
        read(tmp_path / "old.h5ad")
    with h5py.File(tmp_path / "old.h5ad", "r+") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    with pytest.raises(InputError, match=r"it has no obs; it states that it is anndata format 0\.1\.0"):
        read(tmp_path / "old.h5ad")

"""Pickles: arrays come through whole, and nothing that is in them runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from iscale.errors import InputError
from iscale.trust.safe_pickle import maps_of, read_pickle

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">i4"),
    np.array(["CD3E", "EPCAM"]),
    np.array(["CD3E", "EPCAM"], dtype=object),
    np.array([True, False]),
    np.arange(20).reshape(4, 5)[::2, ::2],
    np.empty((0, 3)),
    np.float16([1.5, np.nan]),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_are_read_as_they_were(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "truth.pickle"
    content = {f"a{i}": array for i, array in enumerate(ARRAYS)} | {"n": 3, "x": np.float64(2.5), "s": "text"}
    path.write_bytes(pickle.dumps(content, protocol))
    found = read_pickle(path)
    assert list(found) == list(content)
    for i, array in enumerate(ARRAYS):
        np.testing.assert_array_equal(found[f"a{i}"], array)
        assert found[f"a{i}"].dtype == array.dtype
    assert (found["n"], found["x"], found["s"]) == (3, 2.5, "text")


class Malicious:
    """Runs a command where a pickle of it is trusted."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"genes": ["A"], "maps": m}, lambda m: [np.zeros(3), m]])
def test_a_pickle_that_runs_a_command_is_refused_and_runs_nothing(tmp_path: Path, protocol: int, wrap: Any) -> None:
    target, path = tmp_path / "created", tmp_path / "truth.pickle"
    path.write_bytes(pickle.dumps(wrap(Malicious(target)), protocol))
    with pytest.raises(InputError, match=r"holds (posix|nt)\.system.*could run a program"):
        read_pickle(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists(), "the pickle would have done it"


def build(*opcodes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(opcodes) + b"."


FORGED = {
    # An array of objects, whose dtype says that it is none: NumPy would take the bytes for pointers.
    "pointers": build(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x01t",
        b"cnumpy\ndtype\n(U\x02O8K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
        b"K\x00U\x08AAAAAAAAtb",
    ),
    "fields": build(b"cnumpy\ndtype\n(U\x05i4,f4K\x00K\x01tR", b"."),
    "builtin": build(b"c__builtin__\neval\n(U\x031+1tR"),
    "ndarray called": build(b"cnumpy\nndarray\n(K\x0atR"),
    "changed": build(b"c_codecs\nencode\n}U\x08__name__U\x01xsb"),
    "other codec": build(b"c_codecs\nencode\n(X\x01\x00\x00\x00aU\x05rot13tR"),
    "numpy load": build(b"cnumpy\nload\n(U\x01xtR"),
    "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.load\x93.",
    "cut off": pickle.dumps(np.arange(1000))[:200],
    "no pickle": b"gene\tvalue\n",
    "empty": b"",
    "persistent": build(b"U\x01aQ"),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_is_no_plain_array_is_one_clear_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / "truth.pickle"
    path.write_bytes(FORGED[name])
    with pytest.raises(InputError, match=r"truth\.pickle"):
        maps_of(path)


def test_a_data_frame_is_named_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.pickle"
    pd.DataFrame({"A": [1]}).to_pickle(path)
    with pytest.raises(InputError, match=r"(?s)pandas.*np\.savez"):
        maps_of(path)


MAPS = np.arange(30.0).reshape(2, 3, 5)
GENES = ["A", "B", "C", "D", "E"]


@pytest.mark.parametrize(
    "content",
    [
        {gene: MAPS[:, :, i] for i, gene in enumerate(GENES)},
        (MAPS, GENES),
        [np.array(GENES), MAPS],
        {"cnts": MAPS, "gene_names": np.array(GENES, dtype=object)},
        {"genes": tuple(GENES), "x": np.moveaxis(MAPS, -1, 0), "note": 3},
    ],
)
def test_the_published_structures_are_understood(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "cnts-truth-agg.pickle"
    path.write_bytes(pickle.dumps(content))
    genes, maps = maps_of(path)
    assert genes == GENES
    for i, found in enumerate(maps):
        np.testing.assert_array_equal(found, MAPS[:, :, i])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (MAPS, r"an array 2 x 3 x 5 of float64"),
        ({"a": {"b": 1}, "c": 2}, r"a dict of 2 \(a: dict of 1, c: int\)"),
        ((MAPS, GENES[:4]), r"the shape 2 x 3 x 5, and there are 4 names"),
        ((MAPS, MAPS, GENES), r"a list of 3 \(an array"),
        ({}, "a dict of 0"),
    ],
)
def test_another_structure_is_told(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "truth.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=told):
        maps_of(path)

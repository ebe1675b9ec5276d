"""Tables come whole whatever the blocks, damage is one error, and cells of two files are matched by their ids."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iscale.captures.readers.blocks import csv_blocks, in_both, numbers, parquet_blocks
from iscale.errors import InputError

SOURCE = Path("transcripts.parquet")


def _csv(path: Path, rows: int, name: str = "t.csv") -> Path:
    text = "fov,target,x,y\n" + "".join(f"{i % 3},G{i % 7},{i}.5,{-i}\n" for i in range(rows))
    data = text.encode()
    (path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path / name


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_csv_comes_whole_in_several_blocks(tmp_path, name):
    path = _csv(tmp_path, 200_000, name)
    tables = list(csv_blocks(path, {"y": pa.int64(), "target": pa.string()}))
    assert len(tables) > 2
    whole = pa.concat_tables(tables)
    assert whole.column("y").to_pylist() == [-i for i in range(200_000)]
    assert whole.column("target").to_pylist()[:8] == [f"G{i % 7}" for i in range(8)]


def test_csv_with_mark_quotes_and_windows_ends(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbf"fov","x"\r\n1,2\r\n\r\n3,4\r\n')
    (table,) = csv_blocks(tmp_path / "t.csv", {"fov": pa.int64(), "x": pa.float64()})
    assert table.to_pydict() == {"fov": [1, 3], "x": [2.0, 4.0]}


def test_a_bad_cell_is_named_by_its_column(tmp_path):
    path = _csv(tmp_path, 3)
    path.write_text(path.read_text().replace("1.5", "abc"))
    with pytest.raises(InputError, match=r"column 'x'.*'abc'"):
        list(csv_blocks(path, {"x": pa.float64()}))


def test_a_line_that_is_cut_off_is_counted_in_the_file(tmp_path):
    path = _csv(tmp_path, 150_000)
    path.write_text(path.read_text() + "1,G")
    with pytest.raises(InputError, match="row 150002: Expected 4 columns, got 2"):
        list(csv_blocks(path, {"x": pa.float64()}))


def test_a_truncated_gzip_file_is_one_error(tmp_path):
    path = _csv(tmp_path, 100_000, "t.csv.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="truncated"):
        list(csv_blocks(path, {"x": pa.float64()}))


def test_columns_must_be_there_once(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,b\n1,2,3\n")
    with pytest.raises(InputError, match="has no column c"):
        list(csv_blocks(tmp_path / "t.csv", {"c": pa.float64()}))
    with pytest.raises(InputError, match="the column b 2 times"):
        list(csv_blocks(tmp_path / "t.csv", {"b": pa.float64()}))


def test_a_truncated_parquet_file_is_one_error(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(10_000)}), path)
    assert sum(t.num_rows for t in parquet_blocks(path, ["x"])) == 10_000
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(parquet_blocks(path, ["x"]))
    damaged = bytearray(whole)
    damaged[4:3000] = b"\xff" * 2996  # the pages, not the footer
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(parquet_blocks(path, ["x"]))


@pytest.mark.parametrize("values", [[1.0, None], [1.0, float("nan")], [1.0, float("inf")], ["1", "2"]])
def test_cells_that_are_no_finite_numbers_are_refused(values):
    with pytest.raises(InputError, match="column 'x'"):
        numbers(pa.table({"x": values}), "x", SOURCE)


def test_cells_of_two_files_are_matched_in_the_order_of_the_counts():
    rows, places, notices = in_both(Path("m.h5"), ["c", "a", "b"], Path("c.csv"), ["a", "c", "d"])
    assert rows.tolist() == [0, 1]
    assert places.tolist() == [1, 0]
    assert len(notices) == 2
    assert "1 of 3 cells of m.h5" in notices[0]


def test_files_of_different_sections_or_with_cells_twice_are_refused():
    with pytest.raises(InputError, match="only 1 are in both"):
        in_both(Path("m.h5"), ["a"], Path("c.csv"), ["a", "b", "c"])
    with pytest.raises(InputError, match=r"m\.h5 has 3 cells, 1 of them again, such as 'a'"):
        in_both(Path("m.h5"), ["a", "b", "a"], Path("c.csv"), ["a", "b"])

"""Finding files in a folder that is not trusted, and reading text of any size in bounded memory."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from iscale.captures.readers import files
from iscale.captures.readers.files import blocks, find_file, find_optional, lines, read_json
from iscale.errors import InputError


def test_the_first_name_that_a_file_has_is_taken(tmp_path: Path) -> None:
    (tmp_path / "spatial").mkdir()
    for name in ("spatial/positions.csv", "spatial/positions_list.csv", "GSM1_counts.h5", "._GSM1_counts.h5"):
        (tmp_path / name).write_text("x")
    assert find_file(tmp_path, "spatial/positions_list.csv", "spatial/positions.csv", what="positions") == (
        tmp_path / "spatial/positions_list.csv"
    )
    assert find_file(tmp_path, "counts.h5", "*counts.h5", what="counts") == tmp_path / "GSM1_counts.h5"
    assert find_optional(tmp_path, "*.png", what="an image") is None


def test_a_missing_file_is_told_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "spatial").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        InputError, match=r"does not hold the counts: looked for a\.h5 or \*b\.h5.*notes\.txt, spatial/"
    ):
        find_file(tmp_path, "a.h5", "*b.h5", what="the counts")
    with pytest.raises(InputError, match="is not there"):
        find_file(tmp_path / "none", "a", what="the counts")
    with pytest.raises(InputError, match="is not a folder"):
        find_optional(tmp_path / "notes.txt", "a", what="the counts")


def test_several_files_and_empty_files_are_refused(tmp_path: Path) -> None:
    for name in ("GSM1_counts.h5", "GSM2_counts.h5"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"2 files that may be the counts: GSM1_counts\.h5, GSM2_counts\.h5"):
        find_file(tmp_path, "*counts.h5", what="the counts")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"empty\.csv \(positions\) is empty"):
        find_optional(tmp_path, "empty.csv", what="positions")


def test_links_are_followed_inside_of_the_folder_only(tmp_path: Path) -> None:
    folder, other = tmp_path / "sample", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "secret.csv").write_text("x")
    (folder / "real.csv").write_text("x")
    (folder / "alias.csv").symlink_to("real.csv")
    (folder / "out.csv").symlink_to(other / "secret.csv")
    (folder / "spatial").symlink_to(other)
    assert find_file(folder, "alias.csv", what="positions") == folder / "alias.csv"
    for name in ("out.csv", "spatial/secret.csv"):
        with pytest.raises(InputError, match="leads out of the folder"):
            find_file(folder, name, what="positions")
    (tmp_path / "link").symlink_to(folder)
    assert find_file(tmp_path / "link", "real.csv", what="positions").name == "real.csv"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_lines_come_without_ends_blanks_and_byte_order_mark(tmp_path: Path, name: str) -> None:
    content = "\ufeffa,b\r\n\n1,ä\nlast".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert list(lines(tmp_path / name)) == ["a,b", "1,ä", "last"]


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_lines_do_not_depend_on_the_blocks(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("alpha,1\nb,2\n\ngamma,3333333\nz")
    monkeypatch.setattr(files, "BLOCK", block)
    assert list(lines(path, longest=13)) == ["alpha,1", "b,2", "gamma,3333333", "z"]
    assert b"".join(blocks(path)) == path.read_bytes()
    assert all(part.endswith(b"\n") for part in list(blocks(path))[:-1])
    with pytest.raises(InputError, match="a line of more than 12 bytes"):
        list(lines(path, longest=12))


def test_a_gzip_bomb_ends_in_one_error_at_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="a line of more than 8,388,608 bytes"):
            list(lines(path, longest=8 << 20))
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_many_short_lines_are_a_bomb_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" * (4 << 20)))
    monkeypatch.setattr(files, "BOMB_BYTES", 1 << 20)
    with pytest.raises(InputError, match="over 500 times its size"):
        sum(1 for _ in lines(path))


@pytest.mark.parametrize("damage", ["truncated", "none", "flipped"])
def test_damaged_gzip_is_one_error(tmp_path: Path, damage: str) -> None:
    whole = gzip.compress(b"".join(b"%d,%d\n" % (i, i * i) for i in range(5000)))
    flipped = bytes(whole[:2000]) + bytes([whole[2000] ^ 255]) + whole[2001:]
    path = tmp_path / "a.csv.gz"
    path.write_bytes({"truncated": whole[:-2000], "none": b"a,b\n1,2\n", "flipped": flipped}[damage])
    with pytest.raises(InputError, match=r"a\.csv\.gz is truncated or no gzip file"):
        list(lines(path))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(InputError, match="0xff, which is not UTF-8"):
        list(lines(tmp_path / "a.csv"))


def test_json_is_one_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1.5}')
    assert read_json(path) == {"a": 1.5}
    for text, problem in (
        ('{"a": 1.5', "not valid JSON"),
        ("[1]", "a JSON list"),
        ("[" * 100_000, "not valid JSON"),
        ("\x80", "not valid JSON"),
    ):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=problem):
            read_json(path)
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(InputError, match="16,777,217 bytes"):
        read_json(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "none.json")

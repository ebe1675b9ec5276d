"""The transform of a capture as a value and as a file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iscale.errors import InputError
from iscale.transform import Transform, checked_matrix, read_transform, write_transform


def turned(degrees: float, scale: float = 1.0, mirrored: bool = False) -> Transform:
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    matrix = np.array([[c, -s, 100.0], [s, c, -50.0], [0, 0, 1]])
    return Transform(matrix @ np.diag([1, -1, 1]) if mirrored else matrix)


def test_it_takes_x_y_of_the_capture_to_the_mother_image() -> None:
    quarter = turned(90, scale=2)  # clockwise on the screen, where y is down: right becomes down
    np.testing.assert_allclose(quarter.apply(np.array([[0, 0], [10, 0], [0, 10]])), [[100, -50], [100, -30], [80, -50]])


@given(st.floats(-179, 179), st.floats(0.01, 100), st.booleans())
def test_it_tells_its_turn_and_scale(degrees: float, scale: float, mirrored: bool) -> None:
    transform = turned(degrees, scale, mirrored)
    assert transform.rotation_deg == pytest.approx(degrees, abs=1e-9)
    assert transform.scale == pytest.approx(scale)
    assert transform.stretch == pytest.approx(1)
    assert transform.mirrored is mirrored


def test_it_says_what_it_does() -> None:
    assert str(turned(30, 0.5, mirrored=True)) == "mirrored, turned by 30.0 degrees, scaled by 0.5 (given)"
    assert Transform(np.diag([3.0, 1.5, 1.0])).stretch == pytest.approx(2)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("nothing", "not made of numbers"),
        ([[1, 0], [0, 1, 2], [0, 0, 1]], "not made of numbers"),
        ([[10**400, 0, 0], [0, 1, 0], [0, 0, 1]], "not made of numbers"),
        ([[1, 0], [0, 1]], r"has the shape 2 x 2; 3 x 3"),
        ([[1, 0, None], [0, 1, 0], [0, 0, 1]], "not finite"),
        ([[1, 0, math.inf], [0, 1, 0], [0, 0, 1]], "not finite"),
        ([[1, 0, 0], [0, 1, 0], [5, 7, 1]], r"last row of the matrix is \[5.0, 7.0, 1.0\]"),
        ([[1, 2, 0], [2, 4, 0], [0, 0, 1]], "singular"),
        ([[0, 0, 5], [0, 0, 5], [0, 0, 1]], "singular"),
        ([[5, 0, 0], [0, 1, 0], [0, 0, 1]], "stretches one direction 5 times"),
    ],
)
def test_a_matrix_that_places_nothing_is_refused(values: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        checked_matrix(values, "there")
    assert str(caught.value).startswith("there: ")


def test_two_rows_are_enough() -> None:
    np.testing.assert_array_equal(checked_matrix([[1, 0, 5], [0, 1, 6]], "x"), [[1, 0, 5], [0, 1, 6], [0, 0, 1]])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "capture" / "transform.json"
    written = Transform(turned(33.3, 0.123456789).matrix, "landmarks", {"residual_um": 12.5})
    write_transform(path, written)
    found = read_transform(path)
    np.testing.assert_allclose(found.matrix, written.matrix, rtol=0, atol=1e-10)
    assert (found.how, found.measures) == ("landmarks", {"residual_um": 12.5})
    assert [p.name for p in path.parent.iterdir()] == ["transform.json"]


def test_a_file_by_hand_needs_nothing_but_the_matrix(tmp_path: Path) -> None:
    path = tmp_path / "transform.json"
    for document in ({"matrix": np.eye(3).tolist()}, np.eye(3)[:2].tolist()):
        path.write_text(json.dumps(document))
        found = read_transform(path)
        np.testing.assert_array_equal(found.matrix, np.eye(3))
        assert (found.how, found.measures) == ("given", {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "cannot be read as JSON"),
        (b"{'matrix': 1}", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[[1" + b"0" * 5000 + b"]]", "cannot be read as JSON"),
        (b'{"Matrix": [], "how": 1}', r"no key 'matrix' \(it has: Matrix, how\)"),
        (b'{"matrix": {}}', "not made of numbers"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "transform.json"
    path.write_bytes(text)
    with pytest.raises(InputError, match=says):
        read_transform(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_transform(tmp_path / "transform.json")

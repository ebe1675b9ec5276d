"""The rules of the house, read from the code; ``python -m tests.layers`` prints what breaks one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("layers", Path(__file__).with_name("layers.py"))
assert SPEC is not None
assert SPEC.loader is not None
layers = importlib.util.module_from_spec(SPEC)
sys.modules["layers"] = layers
SPEC.loader.exec_module(layers)


def test_no_module_imports_of_a_higher_room() -> None:
    assert layers.upward() == []


def test_no_circle_of_imports_also_inside_functions() -> None:
    assert layers.circles() == []


def test_the_landing_is_small_and_every_room_has_its_floor() -> None:
    assert len(layers.landing()) <= layers.MOST_ON_LANDING
    named = {*layers.FLOORS, *layers.FORWARDS, "__init__", "__main__"}
    assert {*layers.landing(), *layers.rooms()} == named


def test_no_module_and_no_function_is_too_long() -> None:
    assert layers.too_long() == []


def test_every_module_is_worth_opening() -> None:
    assert layers.not_worth_opening() == []


def test_every_room_says_what_it_is() -> None:
    for name, path in layers.modules().items():
        first = path.read_text().partition("\n")[0]
        assert first.startswith('"""'), name
        assert len(first) > 20, name


def _house(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "iscale"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return package


def test_a_wrong_arrow_is_named(tmp_path: Path) -> None:
    package = _house(tmp_path, {"engine/a.py": "def f():\n    from iscale.cli.b import x\n", "cli/b.py": "x = 1\n"})
    assert layers.upward(package) == ["engine.a -> cli.b"]
    assert layers.circles(package) == []


def test_a_circle_inside_functions_is_found_and_one_of_types_is_none(tmp_path: Path) -> None:
    lazily = {"engine/a.py": "def f():\n    from iscale.engine import b\n", "engine/b.py": "import iscale.engine.a\n"}
    assert layers.circles(_house(tmp_path / "1", lazily)) == [["engine.a", "engine.b"]]
    for_types = {
        "engine/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from iscale.engine import b\n",
        "engine/b.py": "import iscale.engine.a\n",
    }
    assert layers.circles(_house(tmp_path / "2", for_types)) == []


def test_a_long_function_and_a_short_module_are_found(tmp_path: Path) -> None:
    long = "def f():\n" + "    x = 1\n" * 61
    package = _house(tmp_path, {"engine/a.py": long, "engine/b.py": "import iscale.engine.a\n" + "# more\n" * 500})
    assert layers.too_long(package) == ["engine.a.f: 61 lines", "engine.b: 501 lines"]
    assert layers.not_worth_opening(package) == []
    (package / "engine" / "a.py").write_text("x = 1\n")
    assert layers.not_worth_opening(package) == ["engine.a, of engine.b"]

"""Which module imports which, read from the code: the arrows of the house, its floors, and the rules that they keep.

``python -m tests.layers`` prints what breaks a rule, and the counts of the house.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "iscale"

FLOORS = (
    "errors",
    "stages",
    "words",
    "geometry",
    "arrays",
    "transform",
    "project",
    "engine",
    "store",
    "slide",
    "encoders",
    "options",
    "features",
    "captures",
    "align",
    "model",
    "batch",
    "plots",
    "regions",
    "view",
    "results",
    "trust",
    "export",
    "report",
    "plan",
    "check",
    "pipeline",
    "demo",
    "cli",
)
"""Rooms, and modules of the landing, from the ground up: each imports only what stands before it."""

FORWARDS = ("aggregate",)
"""Rooms that only forward paths which documentation once gave."""

MOST_ON_LANDING = 10
MOST_LINES = 500
MOST_LINES_OF_FUNCTION = 60
LEAST_LINES = 60
"""A module of fewer lines that only one other imports belongs to that one."""

LOADED_BY_NAME = ("engine.worker",)
"""Modules that Dask's workers load by their path, which job scripts name."""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Modules by their dotted name without the package's; a folder's is that of its ``__init__``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """What each module imports of the package, also inside functions; not what only type checkers read."""
    known = modules(package)
    return {name: set(_imported(name, path, known, package.name)) for name, path in known.items()}


def _imported(name: str, path: Path, known: Mapping[str, Path], package: str) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for part in test.body
        for node in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        named = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        for dotted in named:
            head, _, rest = dotted.partition(".")
            while rest and rest not in known:
                rest = rest.rpartition(".")[0]
            if head == package and rest and rest != name:
                yield rest


def floor_of(name: str) -> str:
    """The room, or the module of the landing, that a module is in."""
    return name.partition(".")[0]


def upward(package: Path = PACKAGE) -> list[str]:
    """Arrows to a room that does not stand lower, as ``module -> module``."""
    found = []
    for name, targets in arrows(package).items():
        own = floor_of(name)
        if not name or own in FORWARDS or own == "__main__":
            continue
        found += [
            f"{name} -> {target}"
            for target in sorted(targets)
            if floor_of(target) != own and FLOORS.index(floor_of(target)) > FLOORS.index(own)
        ]
    return found


def circles(package: Path = PACKAGE) -> list[list[str]]:
    """Groups of modules that import each other, by way of others or not."""
    graph = {name: targets - {""} for name, targets in arrows(package).items() if name}
    return [group for group in _components(graph) if len(group) > 1]


def _components(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected parts of a graph, by the modules that reach each other."""
    reached = {name: _reached(graph, name) for name in graph}
    found: dict[str, list[str]] = {}
    for name in graph:
        group = sorted(other for other in reached[name] if name in reached[other])
        if group:
            found[group[0]] = group
    return list(found.values())


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph.get(name, ())
    return seen


def landing(package: Path = PACKAGE) -> list[str]:
    """Modules that stand in no room."""
    return sorted(path.stem for path in package.glob("*.py"))


def rooms(package: Path = PACKAGE) -> list[str]:
    """Folders of the package."""
    return sorted(path.parent.name for path in package.glob("*/__init__.py"))


def too_long(package: Path = PACKAGE) -> list[str]:
    """Modules and functions that are longer than the rules have it."""
    found = []
    for name, path in modules(package).items():
        text = path.read_text()
        if (lines := text.count("\n")) > MOST_LINES:
            found.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.body[_after_docstring(node)].lineno + 1
                if lines > MOST_LINES_OF_FUNCTION:
                    found.append(f"{name}.{node.name}: {lines} lines")
    return found


def _after_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The first statement that is not the docstring."""
    return 1 if ast.get_docstring(node) is not None and len(node.body) > 1 else 0


def not_worth_opening(package: Path = PACKAGE) -> list[str]:
    """Modules of few lines that one other imports."""
    every = arrows(package)
    found = []
    for name, path in modules(package).items():
        users = [other for other, targets in every.items() if name in targets and floor_of(other) not in FORWARDS]
        short = path.read_text().count("\n") < LEAST_LINES and path.stem != "__init__"
        if short and len(users) == 1 and name not in LOADED_BY_NAME and floor_of(name) not in FORWARDS:
            found.append(f"{name}, of {users[0] or 'the package'}")
    return found


def main() -> int:
    """Print what breaks a rule; the exit status says whether anything does."""
    lines = sum(path.read_text().count("\n") for path in modules().values())
    print(f"{len(modules())} modules, {lines:,} lines, {len(rooms())} rooms, {len(landing())} modules on the landing")
    wrong = {
        "to a higher room": upward(),
        "in a circle": [", ".join(group) for group in circles()],
        "too long": too_long(),
        "not worth opening": not_worth_opening(),
    }
    for what, found in wrong.items():
        print(f"{what}: {len(found)}", *found, sep="\n    ")
    return int(any(wrong.values()) or len(landing()) > MOST_ON_LANDING)


if __name__ == "__main__":
    raise SystemExit(main())

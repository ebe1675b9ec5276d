"""Captures are added to a project that is there; what cannot be added leaves it as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from iscale.cli.app import main
from iscale.cli.init import add_captures, init_project
from iscale.errors import InputError
from iscale.options import load_options
from iscale.project.files import find_captures


@pytest.fixture
def source(tiny_project: Path) -> Path:
    """A folder as an instrument left it, here of tables."""
    return tiny_project / "DaughterCaptures" / "AllignedToMother" / "D1"


@pytest.fixture
def project(tiny_project: Path, source: Path) -> Path:
    made = tiny_project.parent / "P"
    init_project(made, tiny_project / "MotherImage" / "he-raw.png", [f"A={source}"], pixel_size_raw=0.5)
    return made


def everything(folder: Path) -> dict[str, bytes | str]:
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path): str(path.readlink()) if path.is_symlink() else path.read_bytes() for path in files}


def test_a_capture_is_added_and_all_else_stays(project: Path, source: Path) -> None:
    settings = project / "iscale.toml"
    settings.write_text("n_genes = 7\n" + settings.read_text().rstrip("\n"))
    before = settings.read_text()
    text = add_captures(project, [f"B={source}", f"C.2={source}"])
    assert "capture B: tables" in text
    assert [capture.name for capture in find_captures(project)] == ["A", "B", "C.2"]
    assert settings.read_text().startswith(before + "\n")
    options = load_options(project, {})
    assert options.n_genes == 7
    assert {name: table.platform for name, table in options.capture.items()} == dict.fromkeys(
        ("A", "B", "C.2"), "tables"
    )
    assert not list(project.glob("*.part"))


@pytest.mark.parametrize(
    ("capture", "said"),
    [
        ("A=SOURCE", "UnallignedToMother/A is there already"),
        ("B=/nowhere/at/all", "does not exist"),
        ("B", "not NAME=FOLDER"),
        ("../B=SOURCE", "is no name for a capture"),
    ],
)
def test_what_cannot_be_added_leaves_the_project_as_it_was(
    project: Path, source: Path, capture: str, said: str
) -> None:
    before = everything(project)
    with pytest.raises(InputError, match=said):
        add_captures(project, [f"Z={source}", capture.replace("SOURCE", str(source))])
    assert everything(project) == before


def test_settings_that_name_it_already_are_told(project: Path, source: Path) -> None:
    with (project / "iscale.toml").open("a") as file:
        file.write("\n[capture.B]\nbin_um = 8\n")
    before = everything(project)
    with pytest.raises(InputError, match="cannot be added to"):
        add_captures(project, [f"B={source}"])
    assert everything(project) == before


def test_a_link_that_fails_leaves_nothing(project: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(project)

    def refuse(self: Path, target: Path, target_is_directory: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(InputError, match="cannot be made a link"):
        add_captures(project, [f"B={source}"])
    assert everything(project) == before


def test_the_command_line_adds_where_no_slide_is_named(
    project: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["iscale", "init", str(project), "--capture", f"B={source}"])
    main_or_exit()
    assert "capture B: tables" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["iscale", "init", str(project.parent / "none"), "--capture", f"B={source}"])
    main_or_exit()
    assert "is no project: it has no MotherImage.\n  Name the slide too" in capsys.readouterr().err


def main_or_exit() -> None:
    with pytest.raises(SystemExit):
        main()

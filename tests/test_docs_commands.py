"""The commands that the documents show are commands, and the reference has all of them, with every flag."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from doc_pages import PAGES, blocks, commands, prose, read

from iscale.cli.app import app, repeat_flag
from iscale.cli.flags import OPTIONS

SHOWN = ("README.md", "CONTRIBUTING.md", *PAGES)
REFERENCE = "docs/reference/commands.md"
ALL_OPTIONS = "all [options](options.md)"
"""What a section of the reference says of a command that takes every option of a run."""

Command = Any
"""Of click, or of typer's own copy of it; those with ``commands`` are groups."""


def leaves(group: Command, path: tuple[str, ...] = ()) -> dict[str, Command]:
    """All commands by what one types, those of groups too."""
    found: dict[str, Command] = {}
    for name, command in group.commands.items():
        here = (*path, name)
        found |= leaves(command, here) if hasattr(command, "commands") else {" ".join(here): command}
    return found


KNOWN = leaves(typer.main.get_command(app))


def flags(name: str) -> set[str]:
    """Flags of a command, without the one that every command has."""
    return {flag for parameter in KNOWN[name].params for flag in parameter.opts if flag.startswith("--")} - {"--help"}


def name_of(words: list[str]) -> str:
    """The command that words begin with, or an empty text."""
    return next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in KNOWN), "")


def fault(words: list[str]) -> str:
    """What the program would say of a command before it runs; an empty text if nothing is wrong."""
    if words[:1] == ["--version"]:
        return ""
    name = name_of(words)
    if not name:
        return "there is no such command"
    rest = words[len(name.split()) :]
    for several in ("--captures", "--n-clusters"):
        rest = repeat_flag(rest, several)
    try:
        KNOWN[name].make_context(name, rest)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return str(error.format_message())
    return ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("run P --captures D1 D2 --dry-run", ""),
        ("weights verify DIR", ""),
        ("sing P", "no such command"),
        ("run P --sing", "No such option"),
        ("run", "Missing argument"),
        ("run P --seed one", "integer"),
    ],
)
def test_faults_are_seen(words: str, told: str) -> None:
    assert told in fault(words.split())
    assert bool(told) == bool(fault(words.split()))


@pytest.mark.parametrize("page", SHOWN)
def test_commands_of_shell_blocks_parse(page: str) -> None:
    for block in blocks(page, "sh", "bash"):
        for words in commands(block.text):
            assert not (wrong := fault(words)), f"{page}, line {block.line}: iscale {' '.join(words)}: {wrong}"


@pytest.mark.parametrize("page", SHOWN)
def test_commands_in_the_text_have_the_flags_that_they_show(page: str) -> None:
    groups = {name.split()[0] for name in KNOWN}
    for shown in re.findall(r"`iscale ([a-z][^`\n]*)`", prose(page)):
        name = name_of(shown.split())
        assert name or shown.split()[0] in groups, f"iscale {shown}"
        if name:
            assert set(re.findall(r"(?<!\S)--[a-z-]+", shown)) <= flags(name), f"iscale {shown}"


def test_the_reference_has_every_command_with_every_flag() -> None:
    sections = dict(re.findall(r"^## `iscale ([a-z ]+?)(?: [A-Z]+)?`\n(.*?)(?=^## |\Z)", read(REFERENCE), re.M | re.S))
    assert set(sections) == set(KNOWN)
    all_options = {f"--{name.replace('_', '-')}" for name in OPTIONS}
    for name, text in sections.items():
        shown = set(re.findall(r"`(--[a-z-]+)", text)) | (
            all_options if ALL_OPTIONS in " ".join(text.split()) else set()
        )
        assert shown == flags(name), name

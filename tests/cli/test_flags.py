"""The flags of a run are its options: names, kinds, choices, help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Optional, get_args, get_origin

import pytest

from iscale.cli.flags import OPTIONS, flag
from iscale.options import Options

HEAVY = ("numpy", "torch", "zarr", "dask", "pandas", "xarray", "sklearn")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_flag_says_what_its_option_says(name: str) -> None:
    _, option = get_args(flag(name))
    field = Options.model_fields[name]
    assert field.description is not None
    assert option.help.replace("\\[", "[").startswith(field.description)
    assert "efault" in option.help or field.default is None


@pytest.mark.parametrize("name", OPTIONS)
def test_the_help_of_a_choice_names_every_choice(name: str) -> None:
    for kind in (Options.model_fields[name].annotation, *get_args(Options.model_fields[name].annotation)):
        for choice in get_args(kind) if get_origin(kind) is Literal else ():
            assert str(choice) in get_args(flag(name))[1].help


@pytest.mark.parametrize(
    ("name", "kind"),
    [("n_genes", int), ("pixel_size", float), ("weights", Path), ("shifts", int), ("recipe", str), ("memory", str)],
)
def test_kinds_are_those_of_the_options(name: str, kind: Any) -> None:
    assert get_args(flag(name))[0] == Optional[kind]


def test_several_values_are_a_list_of_texts() -> None:
    for name in ("captures", "n_clusters"):
        assert get_args(flag(name))[0] == Optional[list[str]]


def test_help_is_had_without_what_computes() -> None:
    code = f"import sys, iscale.cli; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"

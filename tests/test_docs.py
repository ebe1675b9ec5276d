"""The documents name what there is."""

from __future__ import annotations

import importlib.util
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_pages import DOCS, PAGES, ROOT, anchors, blocks, links, prose, read

from iscale.cli.app import app
from iscale.options import CaptureOptions, Options
from iscale.regions import nuclei as threshold
from iscale.regions.annotate import COLUMNS as annotation_columns
from iscale.regions.annotate_kernels import THRESHOLDS
from iscale.regions.centres import SIGMA
from iscale.regions.components import SMALL
from iscale.regions.marker_genes import COLUMNS as marker_columns
from iscale.regions.marker_genes import TOP
from iscale.regions.nuclei import DENSE_SHARE
from iscale.regions.refine import NUCLEI_SEEN_UM
from iscale.results import Run
from iscale.stages import stages
from iscale.trust import table as words
from iscale.trust.metrics import METRICS
from iscale.trust.table import COLUMNS as trust_columns
from iscale.trust.table import MEANINGS, WORDS

LINKING = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES)


def test_every_option_is_documented_with_its_default() -> None:
    page = read("docs/reference/options.md")
    for name, field in (*Options.model_fields.items(), *CaptureOptions.model_fields.items()):
        assert f"| `{name}` | `{field.default}` | {field.description} |" in page


def test_every_option_is_a_flag_of_every_stage() -> None:
    commands = {c.name or getattr(c.callback, "__name__", ""): c.callback for c in app.registered_commands}
    in_the_file_only = {"capture"}
    for name in ("run", *(stage.called.partition(" ")[0] for stage in stages().values() if stage.called)):
        callback = commands[name]
        assert callback is not None
        assert set(Options.model_fields) - in_the_file_only <= set(inspect.signature(callback).parameters), name


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page: str) -> None:
    for target, heading in links(page):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if heading:
            assert heading in anchors(path.resolve().relative_to(ROOT).as_posix()), f"{target}#{heading}"


def test_the_map_of_the_docs_has_every_page() -> None:
    listed = {(DOCS / target).resolve() for target, _ in links("docs/README.md")}
    missing = [page for page in PAGES if page != "docs/README.md" and (ROOT / page).resolve() not in listed]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_settings_of_the_docs_are_settings(page: str) -> None:
    for block in blocks(page, "toml"):
        values = tomllib.loads(block.text)
        if "project" not in values:  # that would be somebody's pyproject.toml
            Options.model_validate(values)


def test_the_readme_reads_a_run_as_it_says(tiny_project: Path) -> None:
    import iscale

    iscale.run(tiny_project, n_plots=1)
    code = re.search(r"```python\n(.*?)```", read("README.md"), re.S)
    assert code is not None
    names: dict[str, object] = {}
    exec(code.group(1).replace("PROJECT", str(tiny_project)).replace("ERBB2", "G3"), names)
    assert names["window"].shape == (8, 64, 64)  # type: ignore[attr-defined]
    assert 0 < float(names["composition"].sel(gene="G3").mean()) < 1  # type: ignore[attr-defined]


def test_the_encoder_of_the_docs_is_one() -> None:
    from iscale.encoders import EncoderSpec
    from iscale.encoders.base import RegionEncoder

    code = re.search(r"```python\n(.*?)```", read("docs/reference/encoders.md"), re.S)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    encoder = names["Mean"](EncoderSpec("mean"))
    assert isinstance(encoder, RegionEncoder)
    image = np.random.default_rng(0).integers(0, 255, (3, 32, 48), np.uint8)
    found = encoder.encode(image, np.ones((2, 3), bool))["mean"]
    np.testing.assert_allclose(found[:, 1, 2], image[:, 16:, 32:].mean(axis=(1, 2)), rtol=1e-5)


def test_everything_of_a_run_is_documented() -> None:
    page = read("docs/reference/api.md")
    public = [name for name in vars(Run) if not name.startswith("_") and name not in ("describe",)]
    assert [name for name in public if f"`{name}`" not in page] == []


def test_tables_have_the_columns_that_are_documented() -> None:
    page = read("docs/reference/files.md")
    for columns in (trust_columns, marker_columns, annotation_columns, ("gene", "block", *METRICS, "cells")):
        assert f"`{' '.join(columns)}`" in page


def test_the_words_of_trust_are_explained() -> None:
    page = read("docs/concepts/after-prediction.md")
    rows = re.findall(r"^\| ([a-z ]+) \| .+ \| (.+) \|$", page[page.index("| word | when |") :], re.M)
    assert rows[1:] == list(MEANINGS.items())
    assert tuple(MEANINGS) == WORDS


def test_numbers_of_the_text_are_those_of_the_program() -> None:
    text = " ".join(read("docs/concepts/after-prediction.md").split())
    for said in (
        f"the haematoxylin that {100 * DENSE_SHARE:g} % of its pixels reach",
        f"kept within {threshold.LEAST:g} and {threshold.MOST:g}, and at least {threshold.CLEAR_OF_PALE:g} standard",
        f"it is {threshold.RARE:g} standard deviations above the mean of all",
        f"With pixels above {NUCLEI_SEEN_UM:g} um no nucleus is seen",
        f"a Gaussian of {SIGMA:g} superpixels",
        f"fewer than {SMALL} superpixels",
        f"at most {TOP} genes",
        f"({', '.join(f'{value:.2f}' for value in THRESHOLDS)})",
        f"score at least {words.RELIABLE} of the ceiling, and the interval's lower end at least {words.SURE} of it",
        f"score at least {words.USABLE} of the ceiling |",
        f"a ceiling under {words.LEAST_CEILING}, or none",
    ):
        assert said in text


MAPS = ("docs/design.md", "CONTRIBUTING.md")
"""Pages that say where things are in the code."""

OUTPUTS = {
    *("training/", "model/", ".iscale/", "report/", "evaluation/", "refine/", "spot_level_st_plots/", "annotation/"),
    "super_res_ST_plots/",
}
"""Folders that a run writes, which the maps name too."""


@pytest.mark.parametrize("page", MAPS)
def test_every_path_that_the_maps_name_is_there(page: str) -> None:
    named = set(re.findall(r"`([\w./-]*(?:\.py|/))`", prose(page))) - OUTPUTS - {"stage.py"}
    assert len(named) > 10
    assert sorted(name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "iscale"))) == []


FILES_NOT_MODULES = {"iscale.toml", "iscale.sif", "iscale.def"}


@pytest.mark.parametrize("page", LINKING)
def test_every_dotted_name_of_the_pages_leads_somewhere(page: str) -> None:
    for dotted in set(re.findall(r"\biscale(?:\.[a-z_]+)+\b", read(page))) - FILES_NOT_MODULES:
        head, _, last = dotted.rpartition(".")
        assert importlib.util.find_spec(dotted) or hasattr(importlib.import_module(head), last), dotted


def test_the_map_has_every_room() -> None:
    text = read("docs/design.md")
    rooms = text[text.index("## Rooms of the house") : text.index("## The table of stages")]
    for path in (ROOT / "iscale").iterdir():
        if (path / "__init__.py").is_file():
            assert f"`{path.name}/`" in rooms, path.name
        elif path.suffix == ".py" and not path.stem.startswith("__"):
            assert f"`{path.name}`" in rooms, path.name

"""What is published of the package stays where it was: names, and paths that documentation gave."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

import pytest

import iscale


@pytest.mark.parametrize("name", [name for name in iscale.__all__ if name != "__version__"])
def test_public_functions_are_names_of_the_package(name: str) -> None:
    assert callable(getattr(iscale, name))
    assert getattr(iscale, name).__name__ == name


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = iscale.nothing


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("iscale.aggregate.command", "aggregate_run"),
        ("iscale.export.command", "export_run"),
        ("iscale.check.project", "run_check"),
    ],
)
def test_paths_that_documentation_gave_lead_to_the_same(path: str, name: str) -> None:
    assert getattr(importlib.import_module(path), name) is getattr(iscale, name)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("iscale.encoders", ("EncoderSpec", "get_encoder")),
        ("iscale.encoders.base", ("FeatureGroup", "RegionEncoder", "PatchEncoder", "StoredFeatures")),
        ("iscale.errors", ("IscaleError", "InputError", "MemoryBudgetError", "StoreError", "ClusterError")),
        ("iscale.stages", ("Stage", "stages")),
        ("iscale.engine.worker", ("dask_setup",)),
    ],
)
def test_what_other_packages_and_job_scripts_import_is_there(path: str, names: tuple[str, ...]) -> None:
    module = importlib.import_module(path)
    assert [name for name in names if not hasattr(module, name)] == []


def test_the_program_is_started_where_it_was() -> None:
    points = [point for point in entry_points(group="console_scripts", name="iscale") if point.dist]
    assert {point.value for point in points} == {"iscale.cli:main"}
    assert callable(importlib.import_module("iscale.cli").main)

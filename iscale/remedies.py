"""What to do about a run that lacks something, or has it of an earlier one: commands with its project and place."""

from __future__ import annotations

import shlex
from pathlib import Path

from iscale.made_with import report_of
from iscale.store.run_store import OUTPUT_FOLDER, RunStore

MADE_BY = {
    "image": "ingest",
    "tissue/cells": "refine",
    "captures": "fit",
    "training": "fit",
    "expression": "predict",
    "embedding": "predict",
    "basis": "predict",
    "clusters": "cluster",
    "annotation": "annotate",
}
"""Stage that makes a group or array, where it is not called as the group."""


def making(store: RunStore, path: str) -> str:
    """The command that makes a group or array of a run.

    Parameters
    ----------
    store
        The run.
    path
        As ``expression``, or ``tissue/cells``.
    """
    group = path.partition("/")[0]
    return command_for(store, MADE_BY.get(path, MADE_BY.get(group, group)))


def command_for(store: RunStore, verb: str, *more: str) -> str:
    """A command line for a run: of its project, with its ``--out`` where it lies elsewhere; other flags are recalled.

    Parameters
    ----------
    store
        The run.
    verb
        What is to be done, as ``predict``.
    *more
        Flags.
    """
    report = report_of(store)
    if "project" not in report:
        return " ".join(["iscale", verb, "PROJECT", *more])
    project = Path(str(report["project"]))
    elsewhere = bool(store.url) or store.folder.absolute() != project / OUTPUT_FOLDER
    out = ["--out", store.url or str(store.folder.absolute())] if elsewhere else []
    return shlex.join(["iscale", verb, str(project), *more, *out])

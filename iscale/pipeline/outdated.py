"""What of a run is of an earlier one: marked when what it was made of is made anew, or is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from iscale.engine.execute import pending
from iscale.engine.ledger import Ledger
from iscale.engine.step import Step
from iscale.store.run_store import EVALUATION, RunStore

FILLS = {
    "image": ("image",),
    "tissue": ("tissue",),
    "features": ("features",),
    "predict": ("expression", "embedding", "basis"),
    "cluster": ("clusters", "clusters/refined"),
    "annotate": ("annotation",),
}
"""A step's family, and the groups and arrays of the store that it fills."""

_OF_MODEL = ("expression", "embedding", "basis", "clusters", "annotation")

MADE_OF = {
    "image": ("tissue", "features", *_OF_MODEL),
    "tissue": ("features", *_OF_MODEL),
    "features": _OF_MODEL,
    "integrate": _OF_MODEL,
    "fit": _OF_MODEL,
    "predict": ("clusters", "annotation"),
    "refine": ("clusters/refined",),
}
"""A step's family, and what of the store is made, by way of others, of what it makes. Labels of superpixels do not
depend on clusters; the tables that do, ``annotation.tsv``, go with the clusters' figures."""

SHOWN_BY = {"fit": "expression", "holdout": "expression", "plot": "expression"}
"""Families that fill nothing of the store that could be marked, and the group that is outdated when they are."""

EARLIER = "earlier"
"""Folder, in that of evaluations, of a former model's."""

WITHOUT_MARKERS = "MotherImage/markers.csv is gone"


def family(step: str) -> str:
    """Family of a step, by its name.

    >>> family("cluster/learn"), family("predict")
    ('cluster', 'predict')
    """
    return step.partition("/")[0]


def mark_outdated(store: RunStore, step: Step, ledger: Ledger) -> None:
    """Before a step starts anew, mark what was made of its former result; clear what is up to date after all."""
    missing = len(pending(step, ledger))
    if missing == len(step.plan.regions):
        for path in MADE_OF.get(family(step.name), ()):
            store.mark(path, f"{step.name} was made anew since")
    elif not missing:
        for path in FILLS.get(family(step.name), (family(step.name),)):
            store.mark(path, "")


def put_aside(store: RunStore, step: Step, ledger: Ledger) -> str:
    """Put what was evaluated of a former model where nobody takes it for that of the model that is about to be made.

    That is when other features are made, or other spots integrated, of which models were evaluated, fitted or held out;
    or when a model is fitted otherwise.

    Returns
    -------
    str
        What was done; empty where nothing was.
    """
    folder = store.folder / EVALUATION
    of = family(step.name)
    other = of in ("features", "integrate") or (of == "fit" and ledger.path.exists())
    if not other or ledger.is_of(step.fingerprint) or not folder.is_dir():
        return ""
    found = [path for path in folder.iterdir() if path.name != EARLIER]
    if not found:
        return ""
    shutil.rmtree(folder / EARLIER, ignore_errors=True)
    (folder / EARLIER).mkdir()
    for path in found:
        path.replace(folder / EARLIER / path.name)
    return f"Evaluations of the former model are in {folder / EARLIER} now."


def current(store: RunStore, steps: Iterable[str]) -> list[str]:
    """Steps, by their names, of which what an earlier command made is still that of the run."""
    old: dict[str, bool] = {}
    found = []
    for step in steps:
        of = family(step)
        group = SHOWN_BY.get(of) or FILLS.get(of, ("",))[0]
        if group not in old:
            old[group] = bool(group) and store.has(group) and bool(store.outdated(group))
        if not old[group] and Ledger(store.ledgers, step).path.exists():
            found.append(step)
    return found

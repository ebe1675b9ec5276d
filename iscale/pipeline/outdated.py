"""What of a run is of an earlier one: marked when what it was made of is made anew, or is gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from iscale.engine.execute import pending
from iscale.engine.ledger import Ledger
from iscale.engine.step import Step
from iscale.stages import made_of, stage_of
from iscale.store.run_store import EVALUATION, RunStore

EARLIER = "earlier"
"""Folder, in that of evaluations, of a former model's."""

WITHOUT_MARKERS = "MotherImage/markers.csv is gone"


def mark_outdated(store: RunStore, step: Step, ledger: Ledger) -> None:
    """Before a step starts anew, mark what was made of its former result; clear what is up to date after all."""
    missing, stage = len(pending(step, ledger)), stage_of(step.name)
    if missing == len(step.plan.regions):
        for path in made_of(stage) if stage else ():
            store.mark(path, f"{step.name} was made anew since")
    elif not missing:
        for path in stage.fills if stage else ():
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
    stage = stage_of(step.name)
    of = stage.name if stage else ""
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
        stage = stage_of(step)
        group = (stage.shows or next(iter(stage.fills), "")) if stage else ""
        if group not in old:
            old[group] = bool(group) and store.has(group) and bool(store.outdated(group))
        if not old[group] and Ledger(store.ledgers, step).path.exists():
            found.append(step)
    return found

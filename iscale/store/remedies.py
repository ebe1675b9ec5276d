"""What a run lacks, or has of an earlier one, and the commands that mend it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from iscale.engine.ledger import Ledger, remaining
from iscale.engine.plan import Plan, cut
from iscale.errors import InputError
from iscale.stages import command_making
from iscale.store.lock import holder
from iscale.store.run_store import OUTPUT_FOLDER, RunStore, report_of
from iscale.words import plural


def making(store: RunStore, path: str) -> str:
    """The command that makes a group or array of a run.

    Parameters
    ----------
    store
        The run.
    path
        As ``expression``, or ``tissue/cells``.
    """
    verb, *more = command_making(path).split()
    return command_for(store, verb, *more)


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


def check_readable(store: RunStore, parts: Sequence[str] = ()) -> None:
    """Refuse a run that is not all there, or not all of one go.

    Parameters
    ----------
    store
        The run.
    parts
        Groups and arrays that are read besides the expression, where they are there.

    Raises
    ------
    InputError
        A command is at work on it, nothing is predicted yet or not everywhere, or a part is of an earlier run.
    """
    if not store.url and (who := holder(store.folder)):
        raise InputError(f"{store.place}: a run is being written ({who}).", "Wait for it to end.")
    if not (store.has("expression/expression") or store.has("basis/factors")):
        raise InputError(f"{store.place}: has no expression yet.", f"Make it: {making(store, 'expression')}.")
    for part in ("expression", "basis", *parts):
        if store.has(part) and (old := store.outdated(part)):
            command = command_for(store, "run")
            raise InputError(f"{store.place}: {part} is of an earlier run: {old}.", f"Make all anew: {command}.")
    _check_finished(store)


def _check_finished(store: RunStore) -> None:
    """Refuse a run whose last ledger of the predictions has gaps; where there is none, there is nothing to go by."""
    ledger = Ledger(store.ledgers, "predict")
    try:
        header = json.loads(ledger.path.read_text().partition("\n")[0])
        shape, shard = ((int(a), int(b)) for a, b in (header["shape"], header["shard"]))
    except (OSError, ValueError, KeyError, TypeError):
        return
    plan = Plan(shape, shard, cut(shape, shard, (1, 1)), 0)
    left = remaining(plan, ledger.finished(header["fingerprint"], plan))
    if left:
        raise InputError(
            f"{store.place}: the run is not finished: {len(left)} of {plural(len(plan.regions), 'region')} have no "
            "prediction yet.",
            f"Finish it: {command_for(store, 'run')} goes on where it ended.",
        )

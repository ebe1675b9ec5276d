"""How a run goes, told to other shells and machines: a small file that the run writes, and its reading."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iscale.engine.progress import Watcher
from iscale.engine.step import Step
from iscale.engine.watchers import clock_time, rate
from iscale.engine.whole_file import whole_file
from iscale.errors import InputError
from iscale.geometry import Region
from iscale.store.lock import holder
from iscale.store.run_store import RunStore
from iscale.words import plural

STATUS_FILE = "status.json"

WRITE_EVERY_S = 5.0
"""How often the file is written while a step runs."""

SHOWN_FAILURES = 5


@dataclass
class StepStatus:
    """How far a step is.

    Attributes
    ----------
    step, regions
        Its name, and the regions of its plan.
    done, reused
        Regions done, parts of those in flight included, and those of them that an earlier run did.
    state
        ``waiting``, ``running``, ``done``, ``failed`` (of regions), or ``stopped`` from outside, or by an error.
    started, seconds
        When it started (seconds since 1970), and how long it has taken.
    failed
        Regions that were given up, and why.
    """

    step: str
    regions: int
    done: float = 0.0
    reused: int = 0
    state: str = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)


class StatusFile(Watcher):
    """A watcher that keeps the file up to date and passes on all that it is told.

    ``steps`` are those to come, in order; ``command`` is what the user asked for, as ``refine``.
    """

    def __init__(self, store: RunStore, steps: Sequence[Step], watcher: Watcher, command: str = "run") -> None:
        self._path = store.notes / STATUS_FILE
        self.behind = watcher
        self._steps = {step.name: StepStatus(step.name, len(step.plan.regions)) for step in steps}
        self._run = {
            "command": command,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "started": time.time(),
            "ended": "",
        }
        self._written = 0.0
        self._lock = threading.Lock()
        self._reused: list[str] = []
        self._write()

    def start(self, step: str, total: int, done: int) -> None:
        """Note that a step starts."""
        self._tell_reused()
        status = self._steps.setdefault(step, StepStatus(step, total))
        status.regions, status.done, status.reused = total, float(done), done
        status.state, status.started = "running", time.time()
        self._write()
        super().start(step, total, done)

    def fail(self, step: str, region: Region, error: str) -> None:
        """Note a region that is given up."""
        self._steps[step].failed[str(region)] = error
        self._write()
        super().fail(step, region, error)

    def reach(self, step: str, regions_done: float) -> None:
        """Note how far a step is."""
        status = self._steps[step]
        status.done, status.seconds = regions_done, time.time() - status.started
        if time.monotonic() - self._written > WRITE_EVERY_S:
            self._write()
        super().reach(step, regions_done)

    def stop(self, step: str) -> None:
        """Note that a step is over."""
        status = self._steps[step]
        status.seconds = time.time() - status.started
        over = "failed" if status.failed else "stopped"
        status.state = "done" if status.done >= status.regions else over
        self._write()
        super().stop(step)

    def reuse(self, step: str) -> None:
        """Note that a step was done by an earlier run."""
        status = self._steps.setdefault(step, StepStatus(step, 0))
        status.done, status.reused, status.state = float(status.regions), status.regions, "done"
        self._reused.append(step)

    def end(self, how: str) -> None:
        """Note how the run ended."""
        self._tell_reused()
        self._run["ended"] = how
        self._write()

    def _tell_reused(self) -> None:
        """Say in one line which steps an earlier run did."""
        done, self._reused = self._reused, []
        if done and len(done) == len(self._steps):
            self.say(f"Nothing to do: {'all ' if len(done) > 1 else ''}{plural(len(done), 'step')} done already.")
        elif done:
            several = f" to {done[-1]}: reused, {len(done)} steps" if len(done) > 1 else ": reused"
            self.say(f"{done[0]}{several}")

    def _write(self) -> None:
        """Put the file in place of the former one; what hinders that is not the run's concern."""
        with self._lock, contextlib.suppress(OSError):
            self._written = time.monotonic()
            told = {**self._run, "updated": time.time(), "steps": [asdict(status) for status in self._steps.values()]}
            with whole_file(self._path, ".new") as fresh:
                fresh.write_text(json.dumps(told) + "\n")


def describe_status(store: RunStore) -> str:
    """How the run in a store goes, as text.

    Raises
    ------
    InputError
        If no run has told of itself there.
    """
    at_work = holder(store.folder)
    try:
        told = json.loads((store.notes / STATUS_FILE).read_text())
        steps = [StepStatus(**step) for step in told["steps"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if at_work:
            return "\n".join([f"run: {store.place}", f"starting: {at_work}"])
        raise InputError(
            f"{store.folder}: no run has told of itself here.",
            "`iscale run PROJECT` does while it runs; `iscale info` says what a run holds.",
        ) from error
    if not at_work:
        for step in steps:
            step.state = "stopped" if step.state == "running" else step.state
    ago = clock_time(max(0.0, time.time() - told["updated"]))
    lines = [f"run: {store.place}", _who(told, ago, at_work), *_command(told), *(_line(step) for step in steps)]
    failures = [(step.step, region, error) for step in steps for region, error in step.failed.items()]
    lines += [f"failed: {step}: {region}: {error}" for step, region, error in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"failed: {len(failures) - SHOWN_FAILURES} more (report.json, when the run is over)")
    return "\n".join(lines)


def _command(told: dict[str, Any]) -> list[str]:
    """What the steps are of; nothing where an earlier version wrote the file."""
    return [f"last command: iscale {told['command']}; its steps:"] if told.get("command") else []


def _who(told: dict[str, Any], ago: str, at_work: str) -> str:
    if told["ended"]:
        former = f"{told['ended']}, {ago} ago"
        return f"starting: {at_work}; the command before: {former}" if at_work else former
    if at_work:
        return f"at work: {at_work}; heard of {ago} ago"
    return (
        f"stopped without a word: process {told['process']} on {told['host']}, heard of {ago} ago; "
        "the same command continues"
    )


def _line(status: StepStatus) -> str:
    line = f"  {status.step:<22}{status.state:<9}{_how_far(status)} of {plural(status.regions, 'region')}"
    if status.reused and status.state == "done" and status.reused == status.regions:
        return f"{line}, done before"
    new = status.done - status.reused
    if status.state == "running" and new > 0 and status.seconds > 0:
        left = status.seconds * (status.regions - status.done) / new
        return f"{line}, {rate(new / status.seconds)}, {clock_time(status.seconds)} elapsed, {clock_time(left)} left"
    return f"{line}, {clock_time(status.seconds)}" if status.state != "waiting" else line


def _how_far(status: StepStatus) -> str:
    """Regions done, parts of those in flight included; of a single one its share.

    >>> _how_far(StepStatus("fit", 1, 0.9821)), _how_far(StepStatus("features", 40, 2.5)), _how_far(StepStatus("a", 3))
    ('98 %', '2.5', '0')
    """
    if status.regions == 1 and status.done < 1:
        return f"{int(100 * status.done)} %" if status.done else "0"
    return f"{status.done:.1f}".removesuffix(".0")


def run_store_at(path: Path) -> RunStore:
    """The store of a run whose project, output folder or ``run.zarr`` is given; it may have no array yet."""
    given = path.expanduser()
    for folder in (given.parent if given.name == "run.zarr" else given, given / "iSCALE_output"):
        if (folder / ".iscale").is_dir() or holder(folder):
            return RunStore(folder)
    raise InputError(
        f"{given}: no run here, nor in its iSCALE_output.",
        "If it has an --out, name that folder; if that is a URL, name its project.",
    )

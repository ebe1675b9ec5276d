"""Running a step: what is done is skipped, what finishes is recorded, what fails is reported."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from iscale.engine.drivers import Driver, SerialDriver, Usage, cannot_write
from iscale.engine.ledger import Ledger, remaining
from iscale.engine.progress import Tally, Watcher
from iscale.engine.step import Step
from iscale.errors import RegionsFailedError
from iscale.geometry import Region
from iscale.words import plural


@dataclass
class StepReport:
    """What a step took: regions run now and found done, wall time, and what its regions used on all workers.

    ``peak_bytes`` is the highest resident memory of a worker until its end, ``projected_bytes`` what was projected for
    one; ``failed`` holds the regions that failed, and why.
    """

    step: str
    regions: int = 0
    reused: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    projected_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    failed: dict[Region, str] = field(default_factory=dict)

    def add(self, usage: Usage) -> None:
        """Count what a region took."""
        self.cpu_seconds += usage.cpu_seconds
        self.peak_bytes = max(self.peak_bytes, usage.peak_bytes)
        self.read_bytes += usage.read_bytes
        self.written_bytes += usage.written_bytes


def pending(step: Step, ledger: Ledger) -> tuple[Region, ...]:
    """Regions of a step that a run would have to do."""
    return remaining(step.plan, _finished(step, ledger))


def _finished(step: Step, ledger: Ledger) -> dict[Region, Any]:
    """Regions that are done, with what they returned: none if an output has been lost since."""
    finished = ledger.finished(step.fingerprint, step.plan)
    return finished if all(path.exists() for path in step.outputs) else {}


def execute(
    step: Step, driver: Driver, ledger: Ledger, watcher: Watcher, reports: list[StepReport] | None = None
) -> StepReport:
    """Run what is missing of a step; ``reports`` gets the report, also where the step fails.

    Raises
    ------
    StoreError
        If this process cannot write what it keeps of the step.
    RegionsFailedError
        After all other regions are done and recorded, if some failed.
    """
    finished = _finished(step, ledger)
    missing = remaining(step.plan, finished)
    report = StepReport(step.name, len(missing), len(step.plan.regions) - len(missing))
    report.projected_bytes = step.plan.worker_bytes
    if reports is not None:
        reports.append(report)
    if not missing:
        watcher.reuse(step.name)
        return report
    if not finished:
        with _own_files():
            ledger.forget()
            step.prepare()
            ledger.begin(step.fingerprint, step.plan)
    values: dict[Region, Any] = dict(finished)
    start = time.perf_counter()
    watcher.start(step.name, len(step.plan.regions), report.reused)
    tally = Tally(report.reused, lambda done: watcher.reach(step.name, done))
    try:
        chosen = SerialDriver() if step.where == "here" else driver
        for outcome in chosen.map(step, missing, tally.hear):
            if outcome.error:
                tally.over(outcome.region, done=False)
                report.failed[outcome.region] = outcome.error
                watcher.fail(step.name, outcome.region, outcome.error)
                continue
            # The last region is recorded only after `finish`, so that a step is never taken for whole too early.
            values[outcome.region] = outcome.value
            with _own_files():
                if len(values) - len(finished) == len(missing):
                    step.finish([values[region] for region in sorted(values)])
                ledger.record(outcome.region, outcome.value)
            report.add(outcome.usage)
            tally.over(outcome.region, done=True)
            watcher.advance(step.name)
    finally:
        tally.close()
        watcher.stop(step.name)
        report.seconds = time.perf_counter() - start
    if report.failed:
        raise RegionsFailedError(
            _failure(report),
            "The rest is done and kept; the same command tries these again. If a file of the output was damaged, "
            "--restart makes it anew.",
        )
    return report


@contextlib.contextmanager
def _own_files() -> Iterator[None]:
    """What the driving process itself writes: errors of the disk are the user's to mend here too."""
    try:
        yield
    except OSError as error:
        raise cannot_write(error) from error


def _failure(report: StepReport) -> str:
    lines = [f"{report.step}: {len(report.failed)} of {plural(report.regions, 'region')} failed."]
    lines += [f"    {region}: {error}" for region, error in sorted(report.failed.items())[:10]]
    return "\n".join(lines)

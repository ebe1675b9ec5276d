"""What a run took: ``report.json``, to which every command adds what it did and keeps what others did before."""

from __future__ import annotations

import json
import time
from typing import Any

from iscale import __version__
from iscale.engine.execute import StepReport
from iscale.engine.machine import peak_bytes
from iscale.engine.whole_file import whole_file
from iscale.pipeline.outdated import current
from iscale.plan.job import Job
from iscale.stages import Stage, deciding, ran, stage_of, stages
from iscale.store.run_store import REPORT_FILE


def write_report(job: Job, stage: Stage, reports: list[StepReport], start: float) -> None:
    """Write what a command did; of stages that it did not run, what earlier commands wrote of them stays.

    It is written before the first step too, with what earlier commands did, so that the options are known of a command
    that is killed. A step that was reused whole keeps what it took when it ran; one that is of an earlier run by now is
    left out.
    """
    path = job.store.folder / REPORT_FILE
    earlier = _earlier(path.read_text() if path.is_file() else "")
    report = {
        "iscale": __version__,
        "project": str(job.project.resolve()),
        "stage": stage.called.partition(" ")[0],
        "options": _options(job.options.model_dump(mode="json"), earlier["options"], stage),
        "notices": _notices(job.notices, earlier["notices"], stage),
        "seconds": round(time.time() - start, 1),
        "client_peak_bytes": peak_bytes(),
        "steps": _steps(job, reports, {record["step"]: record for record in earlier["steps"]}),
    }
    with whole_file(path) as part:
        part.write_text(json.dumps(report, indent=1) + "\n")


def _earlier(text: str) -> dict[str, Any]:
    """What the file says; nothing where it is not such a file."""
    try:
        found = json.loads(text)
        records = [record for record in found["steps"] if isinstance(record["step"], str)]
        return {"options": dict(found["options"]), "notices": list(found["notices"]), "steps": records}
    except (ValueError, KeyError, TypeError):
        return {"options": {}, "notices": [], "steps": []}


def _options(now: dict[str, Any], earlier: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Options with which what is there was made: of stages that a command did not run, those of an earlier one.

    >>> from iscale.stages import stage_called
    >>> _options({"n_plots": 30, "memory": "4GB"}, {"n_plots": 12, "memory": "2GB"}, stage_called("refine"))
    {'n_plots': 12, 'memory': '4GB'}

    What is asked of a run is no part of how it is made, and is not there to be recalled:

    >>> _options({"hold_out": "spots", "memory": "4GB"}, {"hold_out": "auto"}, stage_called("evaluate"))
    {'hold_out': 'auto', 'memory': '4GB'}
    >>> _options({"hold_out": "spots"}, {}, stage_called("evaluate"))
    {}
    """
    done, decides = ran(stage) - ({stage.name} if stage.asks else set()), deciding()
    others = {name for name in now if name in decides and done.isdisjoint(decides[name])}
    asked = {name for name in others if stage.asks and stage.name in decides[name]}
    return {
        name: earlier.get(name, value) if name in others else value
        for name, value in now.items()
        if name not in asked or name in earlier
    }


def _notices(now: list[str], earlier: list[str], stage: Stage) -> list[str]:
    """Notices of this command, after those of stages that it did not run; what no stage claims is of the captures."""

    def of(notice: str) -> str:
        return next((one.name for one in stages().values() if notice.startswith(one.notices or "\0")), "integrate")

    kept = [str(notice) for notice in earlier if of(str(notice)) not in ran(stage) and notice not in now]
    return [*kept, *now]


def _steps(job: Job, reports: list[StepReport], earlier: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of the steps, in the order of the pipeline."""
    records = {name: earlier[name] for name in current(job.store, earlier)}
    for report in reports:
        if report.regions or report.step not in earlier:
            records[report.step] = _record(report)
        else:
            records[report.step] = earlier[report.step]
    order = list(stages())

    def place(step: str) -> int:
        of = stage_of(step)
        return order.index(of.name) if of else len(order)

    return sorted(records.values(), key=lambda record: place(record["step"]))


def _record(report: StepReport) -> dict[str, Any]:
    failed = {str(region): error for region, error in report.failed.items()}
    return {**{k: v for k, v in vars(report).items() if k != "failed"}, "failed": failed}

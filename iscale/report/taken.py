"""What a run took: ``report.json``."""

from __future__ import annotations

import json
import time
from typing import Any

from iscale import __version__
from iscale.engine.execute import StepReport
from iscale.engine.memory import peak_bytes
from iscale.job import Job


def write_report(job: Job, stage: str, reports: list[StepReport], start: float) -> None:
    """Write what the run took; a step that was reused whole keeps what it took when it ran."""
    path = job.store.folder / "report.json"
    try:
        earlier = {record["step"]: record for record in json.loads(path.read_text())["steps"]}
    except (OSError, ValueError, KeyError):
        earlier = {}
    records = [_record(report) if report.regions else earlier.get(report.step, _record(report)) for report in reports]
    report = {
        "iscale": __version__,
        "project": str(job.project.resolve()),
        "stage": stage,
        "options": job.options.model_dump(mode="json"),
        "notices": job.notices,
        "seconds": round(time.time() - start, 1),
        "client_peak_bytes": peak_bytes(),
        "steps": records,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


def _record(report: StepReport) -> dict[str, Any]:
    failed = {str(region): error for region, error in report.failed.items()}
    return {**{k: v for k, v in vars(report).items() if k != "failed"}, "failed": failed}

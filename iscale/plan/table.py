"""What a run will take: the plan of every step as a table, and the jobs that a batch system would be given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from iscale.engine.execute import pending
from iscale.engine.ledger import Ledger
from iscale.engine.plan import format_bytes
from iscale.engine.step import Step
from iscale.plan.job import Job
from iscale.plan.workers import batch_file
from iscale.store.run_store import RunStore


def plan_table(job: Job, steps: Iterable[Step], *, restart: bool) -> str:
    """The plan of a run as text: per step its regions, memory, disk and files, and what would be reused."""
    head = f"{'step':<18}{'regions':>9}{'reused':>9}{'memory':>10}{'disk':>10}{'files':>8}  note"
    lines, disk, files, peak = [head], 0, 0, 0
    for step in steps:
        total = len(step.plan.regions)
        missing = total if restart else len(pending(step, Ledger(job.store.ledgers, step.name)))
        lines.append(
            f"{step.name:<18}{total:>9}{total - missing:>9}{format_bytes(step.plan.worker_bytes):>10}"
            f"{format_bytes(step.disk_bytes):>10}{step.files:>8}  {step.note}"
        )
        disk, files, peak = disk + step.disk_bytes, files + step.files, max(peak, step.plan.worker_bytes)
    lines.append(
        f"peak memory per worker {format_bytes(peak)} of {job.workers.budget(job.options)}; "
        f"at most {format_bytes(disk)} on disk before compression, {files} files"
    )
    return "\n".join([*lines, *_scripts(job)])


def _scripts(job: Job) -> list[str]:
    """Scripts of the jobs that a batch system would be given, if workers are its jobs."""
    file = batch_file(job.options.dask)
    if file is None:
        return []
    from iscale.batch.clusters import job_script
    from iscale.batch.settings import PoolName, read_site

    site = read_site(file)
    pools: list[PoolName] = ["cpu", "gpu"] if job.workers.device == "auto" else ["cpu"]
    logs = site.log_directory or logs_folder(job.store)
    return [f"\n--- job of the {name} pool ---\n{job_script(site, name, logs).rstrip()}" for name in pools]


def logs_folder(store: RunStore) -> Path:
    """Where jobs of a batch system print, unless its file says otherwise."""
    return store.folder / "logs"

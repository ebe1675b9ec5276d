"""The steps that a stage, and all that it needs, amount to for a job: made, checked before any work, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from iscale.engine.execute import pending
from iscale.engine.ledger import Ledger
from iscale.engine.plan import format_bytes, size_like
from iscale.engine.step import Step
from iscale.errors import InputError, MemoryBudgetError
from iscale.plan.job import Job
from iscale.plan.workers import batch_file
from iscale.stages import Stage, before
from iscale.store.run_store import RunStore

COMPRESSION = 10
"""Glass compresses to nothing: only below a tenth of the uncompressed size is a run sure not to fit."""


def steps(job: Job, stage: Stage) -> Iterator[Step]:
    """Steps of a stage and of all that it needs, in order; each is made when the ones before are through."""
    workers = job.workers.beside(_held_beside(job))
    made: dict[str, str] = {}
    for one in before(stage):
        for step in import_module(one.module).steps(job, workers, made):
            made[one.name] = step.fingerprint
            yield step


def planned(job: Job, stage: Stage) -> list[Step]:
    """All `steps`, before any work.

    Raises
    ------
    MemoryBudgetError
        If they do not fit the memory; it names the step that needs the most of all, and what would do for the plan.
    """
    try:
        return list(steps(job, stage))
    except MemoryBudgetError as error:
        if not error.needed_bytes:
            raise
        most = error
    held, enough = _held_beside(job), False
    while not enough:  # with what one step needs the next can be planned
        try:
            list(steps(job.with_memory(most.needed_bytes + held), stage))
            enough = True
        except MemoryBudgetError as error:
            if error.needed_bytes <= most.needed_bytes:
                raise
            most = error
    much = held > job.options.memory_bytes // 100
    beside = f", of which captures hold {format_bytes(held)}" if much else ""
    raise MemoryBudgetError(
        f"{most.needs}, the most of all steps; the budget is {job.workers.budget(job.options)}{beside}.",
        f"Give it more: {job.workers.cpu.more.format(size_like(job.options.memory, most.needed_bytes + held))}.",
    )


def _held_beside(job: Job) -> int:
    """Bytes of captures in the driving process, which in a serial run computes all steps beside them."""
    return 0 if job.options.dask else job.held_bytes


def check_inputs(job: Job, stage: Stage) -> None:
    """Read every input of a stage, so that what is wrong with one is told before any work."""
    for place in (job.store.folder, *job.store.folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"--out {job.options.out or job.store.folder}: {place} is a file.", "Name a folder.")
    _ = job.files, job.grid, job.workers
    for one in before(stage):
        if check := getattr(import_module(one.module), "check", None):
            check(job, alone=one is stage)


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

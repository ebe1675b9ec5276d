"""The steps that a stage, and all that it needs, amount to for a job; and what is checked of it before any work."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from iscale.engine.plan import format_bytes, size_like
from iscale.engine.step import Step
from iscale.errors import InputError, MemoryBudgetError
from iscale.plan.job import Job
from iscale.stages import Stage, before

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

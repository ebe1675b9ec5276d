"""The steps that a stage, and all that it needs, amount to for a job; and what is checked of it before any work."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from iscale.engine.step import Step
from iscale.errors import InputError
from iscale.plan.job import Job
from iscale.stages import Stage, before

COMPRESSION = 10
"""Glass compresses to nothing: only below a tenth of the uncompressed size is a run sure not to fit."""


def steps(job: Job, stage: Stage) -> Iterator[Step]:
    """Steps of a stage and of all that it needs, in order; each is made when the ones before are through."""
    # Captures stay in the driving process, which in a serial run computes all steps beside them.
    workers = job.workers if job.options.dask else job.workers.beside(job.held_bytes)
    made: dict[str, str] = {}
    for one in before(stage):
        for step in import_module(one.module).steps(job, workers, made):
            made[one.name] = step.fingerprint
            yield step


def check_inputs(job: Job, stage: Stage) -> None:
    """Read every input of a stage, so that what is wrong with one is told before any work."""
    for place in (job.store.folder, *job.store.folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"--out {job.options.out or job.store.folder}: {place} is a file.", "Name a folder.")
    _ = job.files, job.grid, job.workers
    for one in before(stage):
        if check := getattr(import_module(one.module), "check", None):
            check(job, alone=one is stage)

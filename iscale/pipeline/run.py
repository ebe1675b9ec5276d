"""A run: inputs checked, every step executed that is missing, what came of it recorded."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from iscale.engine.drivers import Driver
from iscale.engine.execute import StepReport, execute, pending
from iscale.engine.ledger import Ledger
from iscale.engine.plan import format_bytes
from iscale.engine.step import Step
from iscale.engine.watchers import Silence
from iscale.errors import InputError, RegionsFailedError, StoreError
from iscale.options import recall_options
from iscale.pipeline.align import align_missing
from iscale.pipeline.outdated import WITHOUT_MARKERS, mark_outdated, put_aside
from iscale.pipeline.record import write_report
from iscale.pipeline.status import StatusFile
from iscale.pipeline.tissue_checks import check_enough_tissue, check_on_tissue
from iscale.plan.job import Job
from iscale.plan.steps import COMPRESSION, check_inputs, logs_folder, plan_table, planned, steps
from iscale.plan.workers import batch_file, open_driver
from iscale.stages import LAST, Stage, ran, stage_called
from iscale.store.run_store import report_of


def run(project: str | Path, *, stage: str = LAST, restart: bool = False, watcher: Any = None, **options: Any) -> Path:
    """Run the pipeline on a project, or what is missing of it.

    Parameters
    ----------
    project
        The project folder.
    stage
        Last stage to run; all that it needs runs before.
    restart
        Forget what an earlier run left, and start anew.
    watcher
        Who is told of progress; nobody by default.
    **options
        Fields of :class:`iscale.options.Options`; they win over the project's ``iscale.toml``.

    Returns
    -------
    Path
        The output folder, for :func:`iscale.open_run`.

    Raises
    ------
    IscaleError
        If an input cannot be used, the store cannot be written, or regions failed.
    """
    last = stage_called(stage)
    watcher = watcher or Silence()
    root = Path(project).expanduser()
    chosen, recalled = recall_options(root, options, restart=restart)
    if recalled:
        watcher.say(recalled)
    job = Job(root, chosen, with_captures="integrate" in ran(last))
    if file := batch_file(job.options.dask):
        from iscale.batch.clusters import check_can_submit
        from iscale.batch.settings import read_site

        check_can_submit(read_site(file))
    if job.with_captures:
        align_missing(root, job.options, watcher)
    check_inputs(job, last)
    if job.with_captures:
        _check_first(root, job)
    if not restart:
        job.store.check()
        _check_same_slide(job)
    _check_disk(job, planned(job, last), restart=restart)
    known = set() if restart else _told_before(job)
    with (
        job.store.lock(),
        open_driver(
            job.options.dask,
            job.options.workers,
            job.options.memory_bytes,
            on_cards=job.workers.device == "auto",
            logs=logs_folder(job.store),
            say=watcher.say,
        ) as driver,
    ):
        if restart:
            job.store.clear()
        job.store.create()
        job.store.sweep()
        removed = _replaced_clusterings(job, last)
        for notice in [*(n for n in job.notices if n not in known), *removed]:
            watcher.say(notice)
        job.notices += removed
        _run_steps(job, last, driver, watcher, known)
        job.store.sweep()  # after workers that were killed too
    return job.store.folder


def _run_steps(job: Job, stage: Stage, driver: Driver, watcher: Any, known: set[str]) -> None:
    """Run step after step, and leave a report however they end; notices that are known are not said again."""
    status = StatusFile(job.store, list(steps(job, stage)), watcher, "run" if stage.name == LAST else stage.called)
    reports: list[StepReport] = []
    start, how = time.time(), "stopped by an error"
    with contextlib.suppress(OSError, StoreError):
        write_report(job, stage, reports, start)  # killed, it cannot say how it was called
    _mark_without_markers(job, stage, watcher)
    try:
        for step in steps(job, stage):
            if step.name == "report":
                write_report(job, stage, reports, start)  # it tells of what steps took
            ledger = Ledger(job.store.ledgers, step.name)
            mark_outdated(job.store, step, ledger)
            if told := put_aside(job.store, step, ledger):
                watcher.say(told)
            execute(step, driver, ledger, status, reports)
            if step.name == "tissue/mask" and "cluster" in ran(stage):
                check_enough_tissue(job.store, job.options.n_clusters)
            if step.name == "tissue/mask" and job.with_captures:
                for warning in check_on_tissue(job.store, job.spots):
                    job.notices.append(warning)
                    if warning not in known:
                        watcher.say(warning)
        how = "done"
    except KeyboardInterrupt:
        how = "interrupted"
        raise
    except RegionsFailedError:
        how = "stopped, as regions failed"
        raise
    finally:
        status.end(how)
        # On a full disk, or of a damaged store, there is no report either: the error of the step is what counts.
        with contextlib.suppress(OSError, StoreError):
            write_report(job, stage, reports, start)


def _mark_without_markers(job: Job, stage: Stage, watcher: Any) -> None:
    """Where an earlier run annotated by markers that the project no longer has, say that this is what it is."""
    if "annotate" in ran(stage) and job.markers is None and job.store.has("annotation"):
        job.store.mark("annotation", WITHOUT_MARKERS)
        watcher.say(f"The annotation is of an earlier run: {WITHOUT_MARKERS}.")


def _replaced_clusterings(job: Job, stage: Stage) -> list[str]:
    """A notice of clusterings of an earlier run that this one, of other numbers of clusters, removes."""
    if "cluster" not in ran(stage) or not job.store.has("clusters/n_clusters"):
        return []
    there = np.asarray(job.store.array("clusters/n_clusters")[...]).tolist()
    wanted = job.options.n_clusters
    gone = sorted(set(there) - set(wanted))
    if not gone:
        return []
    of, every = ", ".join(map(str, gone)), " ".join(map(str, sorted({*there, *wanted})))
    return [
        f"clusterings of {of} are removed, as this run makes {', '.join(map(str, wanted))}; for all of them: "
        f"--n-clusters {every}"
    ]


def _check_first(root: Path, job: Job) -> None:
    """What ``iscale check`` finds: errors stop the run before any work, warnings become notices."""
    from iscale.check.project import run_check

    report = run_check(root, job=job)
    job.readings.forget()
    errors = [finding for finding in report.findings if finding.severity == "error"]
    for finding in report.findings:
        if finding not in errors and finding.code != "pixel-size-stated":  # the job says so itself
            job.notices.append(f"Warning ({finding.code}): {finding.text}")
    if errors:
        more = f" ({len(errors) - 1} more: iscale check {root})" if len(errors) > 1 else ""
        raise InputError(errors[0].text, f"{errors[0].remedy}{more}")


def _check_same_slide(job: Job) -> None:
    """Refuse to replace a run of another slide, or at another resolution, unless told to."""
    if not job.store.has("image"):
        return
    there = job.store.attributes("image")
    remedy = "Say --restart to replace it, or choose another folder with --out."
    if there["slide_fingerprint"] != job.slide_fingerprint:
        raise StoreError(f"{job.store.place}: holds a run of another slide ({there['source']}).", remedy)
    if there["pixel_size_um"] != job.grid.pixel_size_um:
        was = there["pixel_size_um"]
        raise StoreError(
            f"{job.store.place}: holds a run at {was:g} um per pixel, this one would be at {job.grid.pixel_size_um:g}.",
            f"Say --pixel-size {was:g} to go on with it. {remedy}",
        )


def _check_disk(job: Job, plan: list[Step], *, restart: bool) -> None:
    """Refuse to start where the disk cannot hold even a compressed run."""
    folder = job.store.folder
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    needed = sum(step.disk_bytes for step in plan if restart or pending(step, Ledger(job.store.ledgers, step.name)))
    if free < needed / COMPRESSION:
        raise StoreError(
            f"{existing}: {format_bytes(free)} free, the run needs up to {format_bytes(needed)} "
            f"(at the very least {format_bytes(needed / COMPRESSION)}).",
            "Make room, choose another folder with --out, or impute fewer genes (--n-genes).",
        )


def describe_plan(project: str | Path, *, stage: str = LAST, restart: bool = False, **options: Any) -> str:
    """What a run would do, as text.

    Nothing is written. Raises what :func:`run` would raise before its first step.
    """
    last = stage_called(stage)
    root = Path(project).expanduser()
    chosen, recalled = recall_options(root, options, restart=restart)
    job = Job(root, chosen, with_captures="integrate" in ran(last))
    check_inputs(job, last)
    removed: list[str] = []
    if not restart:
        job.store.check()
        _check_same_slide(job)
        removed = _replaced_clusterings(job, last)
    table = plan_table(job, planned(job, last), restart=restart)
    known = set() if restart else _told_before(job)
    lines = [recalled] if recalled else []
    return "\n".join([*lines, *(notice for notice in job.notices if notice not in known), *removed, table])


def _told_before(job: Job) -> set[str]:
    """Notices that a command on the run has told before."""
    notices = report_of(job.store).get("notices")
    return set(map(str, notices)) if isinstance(notices, list) else set()

"""Every input of a stage, read before any work, so that what is wrong with one is told first; and least sizes."""

from __future__ import annotations

from iscale.errors import InputError
from iscale.plan.job import Job
from iscale.plan.stages import STAGES, uses_captures
from iscale.project.layout import MOTHER_FOLDER

COMPRESSION = 10
"""Glass compresses to nothing: only below a tenth of the uncompressed size is a run sure not to fit."""


def check_inputs(job: Job, stage: str) -> None:
    """Read every input of a stage, so that what is wrong with one is told before any work."""
    _check_out(job)
    _ = job.files, job.grid, job.workers
    if "features" in STAGES[stage]:
        _ = job.encoder
    if job.files.user_mask and "tissue" in STAGES[stage]:
        from iscale.slide.user_mask import read_user_mask

        read_user_mask(job.files.user_mask, job.grid)
    if uses_captures(stage):
        _ = job.spots
    if "predict" in STAGES[stage]:
        _ = job.genes
    if "annotate" in STAGES[stage]:
        _check_markers(job, stage)
    if "holdout" in STAGES[stage]:
        _ = job.hold_out
    if "refine" in STAGES[stage] and job.files.user_cells:
        from iscale.slide.user_mask import read_user_mask

        read_user_mask(job.files.user_cells, job.grid)


def _check_markers(job: Job, stage: str) -> None:
    """Read the user's markers; to annotate without any is an error, to run without them is not."""
    if job.markers is None and stage == "annotate":
        from iscale.regions.marker_table import EXAMPLE

        place = job.project / MOTHER_FOLDER / "markers.csv"
        raise InputError(f"{place} is not there: annotation is by marker genes that you name in it.", EXAMPLE)


def _check_out(job: Job) -> None:
    """Refuse an output folder that is a file, or lies in one."""
    for place in (job.store.folder, *job.store.folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"--out {job.options.out or job.store.folder}: {place} is a file.", "Name a folder.")

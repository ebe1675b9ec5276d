"""The stages: which there are, what each needs, and the steps that they amount to for a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from iscale.engine.step import Step
from iscale.plan.job import Job
from iscale.plan.workers import Workers

if TYPE_CHECKING:
    from iscale.model.fit_stage import FitContext


_IMAGE = ("ingest", "tissue", "features")
_MODEL = (*_IMAGE, "integrate", "fit", "predict")

STAGES = {
    "ingest": ("ingest",),
    "tissue": ("ingest", "tissue"),
    "features": _IMAGE,
    "fit": (*_IMAGE, "integrate", "fit"),
    "predict": _MODEL,
    "refine": ("ingest", "tissue", "refine"),
    "cluster": (*_MODEL, "refine", "cluster"),
    "annotate": (*_MODEL, "refine", "cluster", "annotate"),
    "evaluate": (*_IMAGE, "integrate", "holdout"),
    "plot": (*_MODEL, "refine", "plot"),
    "report": (*_MODEL, "refine", "cluster", "annotate", "holdout", "plot", "report"),
}
"""A stage by its command, and all that is run for it, in order."""

Made = dict[str, str]
"""Fingerprint of what each stage made: of its last step."""


def steps(job: Job, stage: str) -> Iterator[Step]:
    """Steps of a stage and of all that it needs, in order; each is made when the ones before are through."""
    # Captures stay in the driving process, which in a serial run computes all steps beside them.
    workers = job.workers if job.options.dask else job.workers.beside(job.held_bytes)
    made: Made = {}
    for name in STAGES[stage]:
        for step in STEPS[name](job, workers, made):
            made[name] = step.fingerprint
            yield step


def uses_captures(stage: str) -> bool:
    """Whether a stage, or one that it needs, reads captures."""
    return "integrate" in STAGES[stage]


def _ingest(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.slide.ingest import ingest_steps

    device = "cpu" if workers.device == "auto" else workers.device
    yield from ingest_steps(
        job.store, job.files.mother_image, job.grid, job.slide_fingerprint, resources=workers.of("cpu"), device=device
    )


def _tissue(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.slide.tissue import tissue_steps

    yield from tissue_steps(
        job.store, job.grid, job.files.user_mask, inputs=(made["ingest"],), resources=workers.of("cpu")
    )


def _features(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.features.stage import feature_steps

    inputs = made["ingest"], made["tissue"]
    yield from feature_steps(job.store, job.grid, job.encoder, inputs=inputs, resources=workers.of("gpu"))


def _integrate(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.captures.stage import integrate_step

    yield integrate_step(job.store, job.captures, job.spots, job.grid, job.workers.of("here"))


def _fit_context(job: Job, workers: Workers) -> FitContext:
    from iscale.encoders import get_encoder
    from iscale.model.fit_stage import FitContext

    groups, options = get_encoder(job.encoder).groups, job.options
    return FitContext(job.store, job.grid, groups, options.recipe, options.seed, workers.device)


def _fit(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.model.fit_stage import fit_step

    inputs = made["features"], made["integrate"]
    yield fit_step(_fit_context(job, workers), job.spots, inputs=inputs, resources=workers.of("gpu"))


def _predict(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.encoders import get_encoder
    from iscale.model.predict_stage import PredictContext, predict_step
    from iscale.model.sizes import STATES

    genes, groups = job.genes, get_encoder(job.encoder).groups
    written = 0 if job.options.materialize == "none" else len(genes)
    yield predict_step(
        PredictContext(job.store, job.grid, groups, written, workers.device, made["fit"]),
        genes,
        recipe=job.options.recipe,
        n_states=STATES,
        seed=job.options.seed,
        inputs=(made["features"], made["fit"]),
        resources=workers.of("gpu"),
    )


def _refine(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.regions.refine import refine_steps

    inputs = made["ingest"], made["tissue"]
    yield from refine_steps(job.store, job.grid, job.files.user_cells, inputs=inputs, resources=workers.of("cpu"))


def _cluster(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.regions.cluster import cluster_steps

    options = job.options
    yield from cluster_steps(
        job.store,
        job.grid,
        options.n_clusters,
        options.seed,
        job.spots.genes,
        inputs=(made["predict"], made["refine"]),
        resources=workers.of("cpu"),
    )


def _annotate(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    if job.markers is None:
        return
    from iscale.regions.annotate import annotate_steps

    yield from annotate_steps(
        job.store,
        job.grid,
        job.markers,
        job.options.n_clusters,
        recipe=job.options.recipe,
        inputs=(made["predict"], made["cluster"]),
        resources=workers.of("cpu"),
    )


def _holdout(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    if job.hold_out is None:
        return
    from iscale.trust.stage import holdout_steps

    context, inputs = _fit_context(job, workers), (made["features"], made["integrate"])
    yield from holdout_steps(context, job.test_spots, job.hold_out, inputs=inputs, resources=workers.of("gpu"))


def _plot(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.plots.stage import plot_steps

    yield from plot_steps(
        job.store,
        job.grid,
        job.spots.captures,
        job.spots.genes[: job.options.n_plots],
        inputs=(made["integrate"], made["predict"]),
        resources=workers.of("cpu"),
        cells=made["refine"],
        all_genes=job.spots.genes,
    )


def _report(job: Job, workers: Workers, made: Made) -> Iterator[Step]:
    from iscale.report.stage import report_steps

    yield from report_steps(
        job.store,
        job.grid,
        job.project,
        job.options.model_dump(mode="json"),
        tuple(job.notices),
        inputs=tuple(made.values()),
        resources=workers.of("here"),
    )


STEPS: dict[str, Callable[[Job, Workers, Made], Iterator[Step]]] = {
    "ingest": _ingest,
    "tissue": _tissue,
    "features": _features,
    "integrate": _integrate,
    "fit": _fit,
    "predict": _predict,
    "refine": _refine,
    "cluster": _cluster,
    "annotate": _annotate,
    "holdout": _holdout,
    "plot": _plot,
    "report": _report,
}
"""What makes the steps of each."""

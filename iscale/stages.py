"""The stages: which there are, what each needs, and the steps that they amount to for a job."""

from __future__ import annotations

from collections.abc import Iterator

from iscale.crew import Crew
from iscale.engine.step import Step
from iscale.job import Job

STAGES = {
    "ingest": ("ingest",),
    "tissue": ("ingest", "tissue"),
    "features": ("ingest", "tissue", "features"),
    "fit": ("ingest", "tissue", "features", "fit"),
    "predict": ("ingest", "tissue", "features", "fit", "predict"),
    "plot": ("ingest", "tissue", "features", "fit", "predict", "plot"),
}
"""A stage, and the stages to run for it, in order."""


def steps(job: Job, stage: str) -> Iterator[Step]:
    """Steps of a stage and of all that it needs, in order; each is made when the ones before are through."""
    wanted = STAGES[stage]
    # Captures stay in the driving process, which in a serial run computes all steps beside them.
    crew = job.crew if job.options.dask else job.crew.beside(job.held_bytes)
    resources = crew.of("cpu")
    from iscale.slide.stage import ingest_steps

    image = ""
    device = "cpu" if crew.device == "auto" else crew.device
    for step in ingest_steps(
        job.store, job.files.mother_image, job.grid, job.slide_fingerprint, resources=resources, device=device
    ):
        image = step.fingerprint
        yield step
    if "tissue" not in wanted:
        return
    from iscale.tissue.stage import tissue_steps

    tissue = ""
    for step in tissue_steps(job.store, job.grid, job.files.user_mask, inputs=(image,), resources=resources):
        tissue = step.fingerprint
        yield step
    if "features" not in wanted:
        return
    from iscale.features.stage import feature_steps

    features = ""
    for step in feature_steps(job.store, job.grid, job.encoder, inputs=(image, tissue), resources=crew.of("gpu")):
        features = step.fingerprint
        yield step
    if "fit" in wanted:
        yield from _model_steps(job, features, wanted, crew)


def _model_steps(job: Job, features: str, wanted: tuple[str, ...], crew: Crew) -> Iterator[Step]:
    from iscale.captures.stage import integrate_step
    from iscale.encoders import get_encoder
    from iscale.model.fit_stage import FitContext, fit_step
    from iscale.model.predict_stage import PredictContext, predict_step

    options = job.options
    integrate = integrate_step(job.store, job.captures, job.spots, job.grid, job.crew.of("here"))
    yield integrate
    groups = get_encoder(job.encoder).groups
    context = FitContext(job.store, job.grid, groups, options.recipe, options.seed, crew.device)
    fit = fit_step(context, job.spots, inputs=(features, integrate.fingerprint), resources=crew.of("gpu"))
    yield fit
    if "predict" not in wanted:
        return
    genes = job.spots.genes
    predict = predict_step(
        PredictContext(job.store, job.grid, groups, len(genes), crew.device, fit.fingerprint),
        genes,
        recipe=options.recipe,
        seed=options.seed,
        inputs=(features, fit.fingerprint),
        resources=crew.of("gpu"),
    )
    yield predict
    if "plot" in wanted:
        from iscale.plots.stage import plot_steps

        yield from plot_steps(
            job.store,
            job.grid,
            job.spots.captures,
            genes[: options.n_plots],
            inputs=(integrate.fingerprint, predict.fingerprint),
            resources=crew.of("cpu"),
        )

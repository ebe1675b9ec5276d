"""The stages: one entry each. The command line, plans, reports, ``info``, ``status`` and remedies read this table.

To add a stage, write its folder and its entry here, or offer a :class:`Stage` from another package under the entry
point group ``iscale.stages``; nothing else names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points

from iscale.errors import InputError

GROUP = "iscale.stages"
"""Entry point group under which other packages offer stages."""

ALL = "*"
"""In place of the stages that one needs: all others."""

LAST = "report"
"""The stage that needs all others: ``iscale run``."""


@dataclass(frozen=True)
class Stage:
    """What is known of a stage without running it.

    Attributes
    ----------
    name
        Unique, as it is called on the command line.
    help
        One line: what it does.
    module
        Where it lives: a module with ``steps(job, workers, made)``, which yields the stage's steps
        (:class:`iscale.engine.step.Step`) for a :class:`iscale.plan.job.Job`, its :class:`iscale.plan.workers.Workers`
        and ``made``, the fingerprint of the last step of each stage before. It may also have ``check(job, alone)``,
        which reads the stage's inputs before any work; ``alone`` is whether it was asked for by its own command.
    needs
        Stages that run before it, or `ALL`.
    fills
        Groups and arrays of the store that it makes, each with the stages that make it outdated when they are run anew;
        these pass it on to what is made of them.
    options
        Fields of :class:`iscale.options.Options` that change what it makes; later commands recall them.
    command
        How it is called where that is not its name; empty where it runs as a part of others only.
    family
        How the names of its steps begin, where that is not its name: ``family`` or ``family/...``.
    notices
        How notices of it begin: when it is not run, a report keeps those of an earlier command.
    shows
        The group whose marks say that its results are old, where it fills none.
    results
        Whether exports and figures show what it fills.
    asks
        Whether its command asks something of a run, and says not how the run is made: its options are not recalled.
    """

    name: str
    help: str
    module: str
    needs: tuple[str, ...] = ()
    fills: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    command: str | None = None
    family: str = ""
    notices: tuple[str, ...] = ()
    shows: str = ""
    results: bool = False
    asks: bool = False

    @property
    def called(self) -> str:
        """What is said of it after ``iscale``; empty if it is not called alone."""
        return self.name if self.command is None else self.command

    def owns(self, step: str) -> bool:
        """Whether a step, by its name, is one of its.

        >>> Stage("ingest", "", "", family="image").owns("image/0")
        True
        """
        return step.partition("/")[0] == (self.family or self.name)


_FEATURES = ("encoder", "weights", "context", "shifts", "precision")
_SPOTS = ("captures", "platform", "capture", "n_genes", "dist_st")
_MODEL = ("features", "fit")

OWN = (
    Stage(
        "ingest",
        "Rescale the mother image into an OME-Zarr pyramid.",
        "iscale.slide.ingest",
        fills={"image": ()},
        options=("pixel_size_raw", "pixel_size", "any_stain"),
        family="image",
        notices=("mother image",),
    ),
    Stage(
        "tissue",
        "Find the tissue.",
        "iscale.slide.tissue",
        needs=("ingest",),
        fills={"tissue": ("ingest",)},
        notices=("tissue mask",),
    ),
    Stage(
        "features",
        "Encode the image into features per superpixel.",
        "iscale.features.stage",
        needs=("ingest", "tissue"),
        fills={"features": ("ingest", "tissue")},
        options=_FEATURES,
        notices=("encoder",),
    ),
    Stage(
        "integrate",
        "Bring the captures to training spots.",
        "iscale.captures.stage",
        fills={"captures": (), "training": ()},
        options=_SPOTS,
        command="",
    ),
    Stage(
        "fit",
        "Integrate the captures and train the ensemble.",
        "iscale.model.fit_stage",
        needs=("features", "integrate"),
        options=("recipe", "seed"),
        shows="expression",
    ),
    Stage(
        "predict",
        "Predict expression in every superpixel.",
        "iscale.model.predict_stage",
        needs=("features", "fit"),
        fills=dict.fromkeys(("expression", "embedding", "basis"), _MODEL),
        options=("materialize",),
        results=True,
    ),
    Stage(
        "refine",
        "Find the superpixels that hold cells.",
        "iscale.regions.refine",
        needs=("ingest", "tissue"),
        fills=dict.fromkeys(("tissue/cells", "tissue/haematoxylin"), ("ingest", "tissue")),
        notices=("cells mask",),
        results=True,
    ),
    Stage(
        "cluster",
        "Find clusters of superpixels, and their marker genes.",
        "iscale.regions.cluster",
        needs=("predict", "refine"),
        fills={"clusters": ("predict",), "clusters/refined": ("predict", "refine")},
        options=("seed", "n_clusters"),
        notices=("clusterings",),
        results=True,
    ),
    Stage(
        "annotate",
        "Label superpixels and clusters by the project's markers.csv.",
        "iscale.regions.annotate",
        needs=("predict", "cluster"),
        fills={"annotation": ("predict",)},  # its tables depend on clusters, its maps do not
        notices=("markers.csv", "markers.tsv"),
        results=True,
    ),
    Stage(
        "holdout",
        "Say which genes to believe, against what is held out.",
        "iscale.trust.stage",
        needs=("features", "integrate"),
        fills={"holdout": ("features", "integrate")},
        options=("recipe", "seed", "hold_out"),
        command="evaluate --hold-out",
        notices=("no gene is held out",),
        shows="expression",
        asks=True,
    ),
    Stage(
        "plot",
        "Draw spots and predicted maps.",
        "iscale.plots.stage",
        needs=("integrate", "predict", "refine"),
        options=("n_plots",),
        shows="expression",
    ),
    Stage(
        LAST,
        "Write report.html, and run what it tells of.",
        "iscale.report.stage",
        needs=(ALL,),
    ),
)
"""Stages of this package, in the order in which they run."""


@lru_cache(maxsize=1)
def stages() -> dict[str, Stage]:
    """All stages by name, in the order in which they run: this package's, and before the last those of others.

    Raises
    ------
    InputError
        If what another package offers cannot be loaded, is no stage, or has the name of another.
    """
    found = {stage.name: stage for stage in OWN if stage.name != LAST}
    for point in entry_points(group=GROUP):
        offered = f"stage {point.name} ({point.value}{f' of {point.dist.name}' if point.dist else ''})"
        try:
            stage = point.load()
        except Exception as error:  # whatever another package's code raises
            raise InputError(
                f"{offered} cannot be loaded: {type(error).__name__}: {error}", "Mend or uninstall that package."
            ) from error
        if not isinstance(stage, Stage):
            raise InputError(f"{offered} is no iscale.stages.Stage.", "Mend or uninstall that package.")
        if stage.name in found or stage.name == LAST:
            raise InputError(f"{offered}: there is a stage {stage.name} already.", "Uninstall one of the packages.")
        if unknown := [name for name in stage.needs if name not in found]:
            raise InputError(f"{offered} needs {', '.join(unknown)}: there is no such stage.", "Mend that package.")
        found[stage.name] = stage
    return found | {stage.name: stage for stage in OWN if stage.name == LAST}


def stage_called(name: str) -> Stage:
    """The stage with a name, or the verb that it is called by: ``evaluate`` is the stage ``holdout``.

    Raises
    ------
    InputError
        If there is none.
    """
    verbs = {stage.called.partition(" ")[0]: stage for stage in stages().values() if stage.called}
    if name not in verbs:
        raise InputError(f"stage={name!r}: there is no such stage.", f"Choose one of {', '.join(verbs)}.")
    return verbs[name]


def before(stage: Stage) -> tuple[Stage, ...]:
    """A stage and all that it needs, in the order in which they run.

    >>> [stage.name for stage in before(stage_called("refine"))]
    ['ingest', 'tissue', 'refine']
    """
    every = stages()
    wanted: set[str] = set()
    todo = [stage.name]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            needs = every[name].needs
            todo += every if ALL in needs else needs
    return tuple(one for one in every.values() if one.name in wanted)


def ran(stage: Stage) -> frozenset[str]:
    """Names of a stage and of all that it needs."""
    return frozenset(one.name for one in before(stage))


def stage_of(step: str) -> Stage | None:
    """The stage that a step is of, by the step's name; None if it is of none that is known.

    >>> stage_of("image/0").name, stage_of("cluster/learn").name
    ('ingest', 'cluster')
    """
    return next((stage for stage in stages().values() if stage.owns(step)), None)


def made_of(stage: Stage) -> tuple[str, ...]:
    """Groups and arrays of the store that are outdated when a stage is run anew, in order.

    >>> made_of(stage_called("predict"))
    ('clusters', 'clusters/refined', 'annotation')
    """

    def reaches(name: str) -> bool:
        return name == stage.name or any(reaches(need) for need in stages()[name].needs if need != ALL)

    return tuple(
        path
        for other in stages().values()
        if other.name != stage.name
        for path, makers in other.fills.items()
        if any(map(reaches, makers))
    )


def groups() -> tuple[str, ...]:
    """Groups of the store, in the order in which they are made."""
    return tuple(dict.fromkeys(path.partition("/")[0] for stage in stages().values() for path in stage.fills))


def command_making(path: str) -> str:
    """What is said after ``iscale`` to make a group or array: of the stage that fills it, or the first that needs that.

    >>> command_making("tissue/cells"), command_making("training"), command_making("features/far")
    ('refine', 'fit', 'features')
    """
    group = path.partition("/")[0]
    every = stages().values()
    filling = next((s for s in every if path in s.fills), None) or next((s for s in every if group in s.fills), None)
    if filling is None:
        return group
    return filling.called or next(stage.called for stage in every if filling.name in stage.needs)


def deciding() -> dict[str, tuple[str, ...]]:
    """Options, and the stages whose results they change; others say how a command is carried out."""
    found: dict[str, tuple[str, ...]] = {}
    for stage in stages().values():
        for option in stage.options:
            found[option] = (*found.get(option, ()), stage.name)
    return found

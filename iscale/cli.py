"""The command line: one program, a verb per stage. Heavy imports wait until a command runs."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from iscale import __version__
from iscale.errors import IscaleError
from iscale.interruption import interruptible

app = typer.Typer(
    name="iscale",
    help="Gene expression in every 8 um superpixel of a whole slide, from an H&E image and a few daughter captures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Project = Annotated[Path, typer.Argument(help="The project folder.", show_default=False)]
Captures = Annotated[
    Optional[list[str]], typer.Option("--captures", help="Daughter capture to use; repeat for more. Default: all.")
]
PixelSizeRaw = Annotated[Optional[float], typer.Option(help="um per pixel of the mother image, if its file has none.")]
PixelSize = Annotated[Optional[float], typer.Option(help="um per pixel of the analysis. Default: 0.5.")]
NGenes = Annotated[Optional[int], typer.Option(help="Most variable genes to impute. Default: 1000.")]
NPlots = Annotated[Optional[int], typer.Option(help="Genes to draw. Default: 30.")]
NClusters = Annotated[
    Optional[list[int]],
    typer.Option("--n-clusters", help="Clusters of superpixels; repeat for several numbers. Default: 10."),
]
DistSt = Annotated[Optional[float], typer.Option(help="Merge spots closer than this, analysis pixels. Default: 100.")]
Encoder = Annotated[
    Optional[str],
    typer.Option(help="auto, texture, hipt, timm:NAME, precomputed:PATH, or another package's. Default: auto."),
]
Weights = Annotated[Optional[Path], typer.Option(help="Folder of the encoder's weights.")]
Context = Annotated[
    Optional[str], typer.Option(help="What HIPT's context sees: regions, or published (the whole slide).")
]
Shifts = Annotated[Optional[int], typer.Option(help="How often patches are laid over the slide: 16, 4 or 1.")]
Precision = Annotated[Optional[str], typer.Option(help="Of the encoder's products: float32 or bfloat16.")]
Platform = Annotated[
    Optional[str],
    typer.Option(
        help="What measured the captures: visium, visium_hd, xenium, cosmx, h5ad, spatialdata, st or tables. "
        "Default: as their files tell."
    ),
]
Recipe = Annotated[Optional[str], typer.Option(help="default or published.")]
HoldOut = Annotated[
    Optional[str],
    typer.Option(help="Test on what is held out: capture, region, spots or none. Default: auto."),
]
Seed = Annotated[Optional[int], typer.Option(help="Seed of everything random. Default: 0.")]
Device = Annotated[Optional[str], typer.Option(help="auto, cpu or cuda. Default: auto.")]
Out = Annotated[
    Optional[str], typer.Option(help="Output folder, or an s3:// or gs:// URL. Default: PROJECT/iSCALE_output.")
]
Memory = Annotated[Optional[str], typer.Option(help="Memory a worker may use, such as 2GB. Default: 2GB.")]
Dask = Annotated[
    Optional[str],
    typer.Option(help="local, a scheduler's address or file, or slurm.yaml or lsf.yaml. Default: in this process."),
]
Workers = Annotated[Optional[int], typer.Option(help="Processes of --dask local. Default: one per core.")]
RegionShards = Annotated[
    Optional[int], typer.Option(help="Side of a region in shards of 128 superpixels. Default: by --memory.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an earlier run left.")]


OPTIONS: dict[str, Any] = {
    "captures": Captures,
    "pixel_size_raw": PixelSizeRaw,
    "pixel_size": PixelSize,
    "n_genes": NGenes,
    "n_plots": NPlots,
    "n_clusters": NClusters,
    "dist_st": DistSt,
    "encoder": Encoder,
    "weights": Weights,
    "context": Context,
    "shifts": Shifts,
    "precision": Precision,
    "platform": Platform,
    "recipe": Recipe,
    "hold_out": HoldOut,
    "seed": Seed,
    "device": Device,
    "out": Out,
    "memory": Memory,
    "dask": Dask,
    "workers": Workers,
    "region_shards": RegionShards,
}
"""Flags that are fields of :class:`iscale.config.Options`."""


def _with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags of `OPTIONS`, all where none is named; it gets them as keywords, ``None`` where not set."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**arguments: Any) -> None:
            for several in ("captures", "n_clusters"):
                if arguments.get(several) is not None:
                    arguments[several] = tuple(arguments[several]) or None
            command(**arguments)

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OPTIONS[name])
            for name in names or OPTIONS
        ]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        vars(called)["__signature__"] = inspect.Signature([*own, *flags])
        return called

    return decorate


def _stage_command(name: str, stage: str, summary: str) -> Callable[..., None]:
    @_with_options()
    def command(project: Project, dry_run: DryRun = False, restart: Restart = False, **options: Any) -> None:
        from iscale import pipeline
        from iscale.progress import for_terminal

        if dry_run:
            typer.echo(pipeline.describe_plan(project, stage=stage, restart=restart, **options))
            return
        with interruptible():
            folder = pipeline.run(project, stage=stage, restart=restart, watcher=for_terminal(), **options)
        typer.echo(f"{name}: done, in {folder}")

    command.__doc__ = summary
    return command


for _name, _stage, _summary in (
    ("run", "report", "Run all stages, or what is missing of them."),
    ("ingest", "ingest", "Rescale the mother image into an OME-Zarr pyramid."),
    ("tissue", "tissue", "Find the tissue."),
    ("features", "features", "Encode the image into features per superpixel."),
    ("fit", "fit", "Integrate the captures and train the ensemble."),
    ("predict", "predict", "Predict expression in every superpixel."),
    ("refine", "refine", "Find the superpixels that hold cells."),
    ("cluster", "cluster", "Find clusters of superpixels, and their marker genes."),
    ("annotate", "annotate", "Label superpixels and clusters by the project's markers.csv."),
    ("plot", "plot", "Draw spots and predicted maps."),
    ("report", "report", "Write report.html, and run what it tells of."),
):
    app.command(_name)(_stage_command(_name, _stage, _summary))


@app.command()
@_with_options()
def evaluate(
    project: Annotated[Path, typer.Argument(help="The project folder; with --truth also a run.", show_default=False)],
    truth: Annotated[
        Optional[Path],
        typer.Option(help="What was measured: a map of superpixels, a capture, a table of spots, cnts-truth-agg."),
    ] = None,
    **options: Any,
) -> None:
    """Say which genes to believe: against a truth (--truth), or against what is held out (--hold-out)."""
    from iscale.errors import InputError
    from iscale.progress import for_terminal

    if truth is not None:
        from iscale.evaluate.command import evaluate_run

        given = {name: value for name, value in options.items() if value is not None}
        run = given.pop("out", project)
        if unused := [f"--{name.replace('_', '-')}" for name in given if name not in ("memory", "platform")]:
            raise InputError(
                f"--truth compares a run as it is: {', '.join(unused)} can change nothing.",
                "Leave them out; with --truth there are --out, --memory and --platform (of the truth).",
            )
        with interruptible():
            typer.echo(evaluate_run(run, truth, watcher=for_terminal(), **given))
        return
    if options["hold_out"] in (None, "none"):
        raise InputError(
            "There is nothing to evaluate against.",
            "Name a truth, --truth PATH, or what to hold out: --hold-out capture, region or spots.",
        )
    from iscale import pipeline
    from iscale.holdout.table import describe_trust

    with interruptible():
        folder = pipeline.run(project, stage="evaluate", watcher=for_terminal(), **options)
    typer.echo(describe_trust(folder, options["hold_out"]))


@app.command()
def init(
    project: Annotated[
        Path,
        typer.Argument(help="The project folder to make; with --scheduler: the YAML file.", show_default=False),
    ],
    mother: Annotated[Optional[Path], typer.Option(help="The slide.")] = None,
    capture: Annotated[
        Optional[list[str]],
        typer.Option(help="NAME=FOLDER: what an instrument's software wrote, or one .h5ad or .zarr; repeat for more."),
    ] = None,
    pixel_size_raw: PixelSizeRaw = None,
    platform: Platform = None,
    scheduler: Annotated[
        Optional[str],
        typer.Option(help="slurm or lsf: write instead a commented file for --dask that describes your cluster."),
    ] = None,
) -> None:
    """Lay out a project (links to a slide and to captures, a settings file); or with --scheduler a cluster's file."""
    from iscale.batch.template import write_template
    from iscale.errors import InputError
    from iscale.init_project import init_project

    given = {"--mother": mother, "--capture": capture, "--pixel-size-raw": pixel_size_raw, "--platform": platform}
    if scheduler is not None:
        if extra := [flag for flag, value in given.items() if value]:
            raise InputError(
                f"--scheduler writes a cluster's file, which has no {' and '.join(extra)}.",
                "Lay out the project with a command of its own, without --scheduler.",
            )
        typer.echo(write_template(scheduler, project))
        return
    if mother is None or not capture:
        missing = [flag for flag in ("--mother", "--capture") if not given[flag]]
        raise InputError(
            f"A project needs {' and '.join(missing)}.",
            "Write --mother SLIDE, and --capture NAME=FOLDER once for every capture.",
        )
    typer.echo(init_project(project, mother, capture, pixel_size_raw=pixel_size_raw, platform=platform))


@app.command()
@_with_options("captures", "pixel_size_raw", "pixel_size", "platform", "out")
def align(
    project: Project,
    landmarks: Annotated[
        Optional[Path], typer.Option(help="Pairs of landmarks for the one capture that is named.")
    ] = None,
    matrix: Annotated[
        Optional[Path], typer.Option(help="A matrix for it: transform.json, or Xenium Explorer's imagealignment.csv.")
    ] = None,
    automatic: Annotated[
        bool, typer.Option("--automatic", help="Search by the images, whatever landmarks or tables there are.")
    ] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="Then move each to where the images agree most, nearby.")
    ] = False,
    kind: Annotated[str, typer.Option(help="similarity or affine.")] = "similarity",
    again: Annotated[bool, typer.Option("--again", help="Align anew, also what has a transform.")] = False,
    **options: Any,
) -> None:
    """Place captures on the mother image, and draw how they lie."""
    from iscale.align.command import Wishes, align_project, checked_kind
    from iscale.progress import for_terminal

    wishes = Wishes(matrix, landmarks, automatic, refine, checked_kind(kind), again)
    with interruptible():
        text, bad = align_project(project, wishes, watcher=for_terminal(), **options)
    typer.echo(text)
    if bad:
        raise typer.Exit(1)


@app.command()
@_with_options()
def check(
    project: Project,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    **options: Any,
) -> None:
    """Say what would go wrong, before anything runs; exit code 1 where a run would fail."""
    from iscale.check.project import run_check

    with interruptible():
        report = run_check(project, options)
    typer.echo(report.to_json() if as_json else report.text())
    if report.fails:
        raise typer.Exit(1)


@app.command()
def info(run: Annotated[Path, typer.Argument(help="A project, its iSCALE_output, or run.zarr.")]) -> None:
    """Say what a run holds, from what, and with which parameters."""
    from iscale.results import open_run

    typer.echo(open_run(run).describe())


@app.command()
def status(run: Annotated[Path, typer.Argument(help="A project, its iSCALE_output, or run.zarr.")]) -> None:
    """Say how a run goes that another shell or machine does: regions done, rate, time left, failures."""
    from iscale.status import describe_status, run_store_at

    typer.echo(describe_status(run_store_at(run)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the demo.")] = Path("demo"),
    dataset: Annotated[str, typer.Option(help="synthetic, or her2st.")] = "synthetic",
    source: Annotated[Optional[Path], typer.Option(help="Folder of the her2st files.")] = None,
    memory: Memory = None,
    dask: Dask = None,
    workers: Workers = None,
) -> None:
    """Run the pipeline on a data set whose truth is known, and compare."""
    from iscale.demo.command import her2st_demo, synthetic_demo
    from iscale.errors import InputError
    from iscale.progress import for_terminal

    options = {"memory": memory, "dask": dask, "workers": workers, "watcher": for_terminal()}
    with interruptible():
        if dataset == "synthetic":
            typer.echo(synthetic_demo(folder, **options))
            return
        if dataset == "her2st" and source is not None:
            typer.echo(her2st_demo(folder, source, **options))
            return
        raise InputError(
            f"--dataset {dataset} --source {source}: not a demo.", "Use synthetic, or her2st with --source FOLDER."
        )


weights_app = typer.Typer(help="Check and convert the weight files of HIPT.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
WeightsFolder = Annotated[Path, typer.Argument(help="Folder of the two weight files.")]


@weights_app.command("verify")
def verify_weights(folder: WeightsFolder) -> None:
    """Say whether the files can be used, and whether they are the published ones."""
    from iscale import weights_command

    typer.echo(weights_command.verify_weights(folder))


@weights_app.command("convert")
def convert_weights(
    folder: WeightsFolder,
    out: Annotated[Optional[Path], typer.Option(help="Where to write. Default: beside the files.")] = None,
) -> None:
    """Write what is used of the published files as safetensors: 98 MB instead of 1.1 GB."""
    from iscale import weights_command

    typer.echo(weights_command.convert_weights(folder, out))


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"iscale {__version__}")
        raise typer.Exit


def repeat_flag(arguments: list[str], flag: str) -> list[str]:
    """Let a flag take several values, as the published scripts' flags do.

    >>> repeat_flag(["run", "P", "--captures", "D1", "D2", "--seed", "1"], "--captures")
    ['run', 'P', '--captures', 'D1', '--captures', 'D2', '--seed', '1']
    """
    result: list[str] = []
    repeating = False
    for argument in arguments:
        if argument.startswith("-"):
            repeating = argument == flag
        elif repeating and result[-1] != flag:
            result.append(flag)
        result.append(argument)
    return result


def main() -> None:
    """Entry point: errors of the user's making are one message and an exit code, without a traceback."""
    # Before torch is imported: threads that wait for work then sleep, and do not keep shared cores busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(repeat_flag(repeat_flag(sys.argv[1:], "--captures"), "--n-clusters"))
    except IscaleError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        print(
            f"Error: {error.filename}: {error.strerror}.\n  Check that it is there and yours to use.", file=sys.stderr
        )
        sys.exit(2)

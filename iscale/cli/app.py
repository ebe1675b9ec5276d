"""The command line: one program, a verb per stage. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from iscale import __version__
from iscale.cli import reading
from iscale.cli.flags import DryRun, Project, Restart, with_options
from iscale.cli.interruption import interruptible
from iscale.errors import IscaleError
from iscale.stages import LAST, OWN, Stage, stages

app = typer.Typer(
    name="iscale",
    help="Gene expression in every 8 um superpixel of a whole slide, from an H&E image and a few daughter captures.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _stage_command(name: str, stage: str, summary: str) -> Callable[..., None]:
    @with_options()
    def command(project: Project, dry_run: DryRun = False, restart: Restart = False, **options: Any) -> None:
        from iscale.engine.watchers import for_terminal
        from iscale.pipeline.run import describe_plan, run

        if dry_run:
            typer.echo(describe_plan(project, stage=stage, restart=restart, **options))
            return
        with interruptible():
            folder = run(project, stage=stage, restart=restart, watcher=for_terminal(), **options)
        typer.echo(f"{name}: done, in {folder}")

    command.__doc__ = summary
    return command


app.command("run")(_stage_command("run", LAST, "Run all stages, or what is missing of them."))


def add_stages(known: Iterable[Stage]) -> None:
    """Give every stage that is called by its own name its command, and none twice."""
    there = {command.name for command in app.registered_commands}
    for stage in known:
        if stage.called == stage.name and stage.name not in there:
            app.command(stage.name)(_stage_command(stage.name, stage.name, stage.help))


add_stages(OWN)


@app.command()
@with_options()
def evaluate(
    project: Annotated[Path, typer.Argument(help="The project folder; with --truth also a run.", show_default=False)],
    truth: Annotated[
        Optional[Path],
        typer.Option(help="What was measured: a map of superpixels, a capture, a table of spots, cnts-truth-agg."),
    ] = None,
    **options: Any,
) -> None:
    """Say which genes to believe: against a truth (--truth), or against what is held out (--hold-out)."""
    from iscale.engine.watchers import for_terminal
    from iscale.errors import InputError

    if truth is not None:
        from iscale.trust.evaluate import evaluate_run

        given = {name: value for name, value in options.items() if value is not None}
        place = given.pop("out", project)
        if unused := [f"--{name.replace('_', '-')}" for name in given if name not in ("memory", "platform")]:
            raise InputError(
                f"--truth compares a run as it is: {', '.join(unused)} can change nothing.",
                "Leave them out; with --truth there are --out, --memory and --platform (of the truth).",
            )
        with interruptible():
            typer.echo(evaluate_run(place, truth, watcher=for_terminal(), **given))
        return
    if options["hold_out"] in (None, "none"):
        raise InputError(
            "There is nothing to evaluate against.",
            "Name a truth, --truth PATH, or what to hold out: --hold-out capture, region or spots.",
        )
    from iscale.pipeline.run import run
    from iscale.results import is_run
    from iscale.trust.table import describe_trust

    if is_run(project):
        raise InputError(
            f"{project} is a run: to hold spots out the model is trained again, on the project's captures.",
            f"Name the project: iscale evaluate PROJECT --hold-out {options['hold_out']}.",
        )

    with interruptible():
        folder = run(project, stage="evaluate", watcher=for_terminal(), **options)
    typer.echo(describe_trust(folder, options["hold_out"]))


@app.command()
@with_options("pixel_size_raw", "platform")
def init(
    project: Annotated[
        Path,
        typer.Argument(help="The project folder to make; with --scheduler: the YAML file.", show_default=False),
    ],
    mother: Annotated[
        Optional[Path], typer.Option(help="The slide; without it captures are added to a project.")
    ] = None,
    capture: Annotated[
        Optional[list[str]],
        typer.Option(help="NAME=FOLDER: what an instrument's software wrote, or one .h5ad or .zarr; repeat for more."),
    ] = None,
    scheduler: Annotated[
        Optional[str],
        typer.Option(help="slurm or lsf: write instead a commented file for --dask that describes your cluster."),
    ] = None,
    **options: Any,
) -> None:
    """Lay out a project (links to a slide and captures, settings), add captures to one, or write a cluster's file."""
    from iscale.batch.template import write_template
    from iscale.cli.init import init_project
    from iscale.errors import InputError

    given = {
        "--mother": mother,
        "--capture": capture,
        **{f"--{name.replace('_', '-')}": value for name, value in options.items()},
    }
    if scheduler is not None:
        if extra := [flag for flag, value in given.items() if value]:
            raise InputError(
                f"--scheduler writes a cluster's file, which has no {' and '.join(extra)}.",
                "Lay out the project with a command of its own, without --scheduler.",
            )
        typer.echo(write_template(scheduler, project))
        return
    if mother is None and capture and options["pixel_size_raw"] is None:
        from iscale.cli.init import add_captures

        typer.echo(add_captures(project, capture, platform=options["platform"]))
        return
    if mother is None or not capture:
        missing = [flag for flag in ("--mother", "--capture") if not given[flag]]
        raise InputError(
            f"A project needs {' and '.join(missing)}.",
            "Write --mother SLIDE, and --capture NAME=FOLDER once for every capture.",
        )
    typer.echo(init_project(project, mother, capture, **options))


@app.command()
@with_options("captures", "pixel_size_raw", "pixel_size", "platform", "out")
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
    from iscale.engine.watchers import for_terminal
    from iscale.pipeline.align import Wishes, align_project, checked_kind

    wishes = Wishes(matrix, landmarks, automatic, refine, checked_kind(kind), again)
    with interruptible():
        text, bad = align_project(project, wishes, watcher=for_terminal(), **options)
    typer.echo(text)
    if bad:
        raise typer.Exit(1)


@app.command()
@with_options()
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


for _read in (reading.info, reading.status, reading.aggregate, reading.export, reading.view):
    app.command()(_read)


@app.command()
@with_options("memory", "dask", "workers")
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the demo.")] = Path("demo"),
    dataset: Annotated[str, typer.Option(help="synthetic, or her2st.")] = "synthetic",
    source: Annotated[Optional[Path], typer.Option(help="Folder of the her2st files.")] = None,
    **run_options: Any,
) -> None:
    """Run the pipeline on a data set whose truth is known, and compare."""
    from iscale.demo.command import her2st_demo, synthetic_demo
    from iscale.engine.watchers import for_terminal
    from iscale.errors import InputError

    options = {**run_options, "watcher": for_terminal()}
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
    from iscale.cli import weights

    typer.echo(weights.verify_weights(folder))


@weights_app.command("convert")
def convert_weights(
    folder: WeightsFolder,
    out: Annotated[Optional[Path], typer.Option(help="Where to write. Default: beside the files.")] = None,
) -> None:
    """Write what is used of the published files as safetensors: 98 MB instead of 1.1 GB."""
    from iscale.cli import weights

    typer.echo(weights.convert_weights(folder, out))


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
        add_stages(stages().values())
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

"""Commands that read a run: what it holds, how it goes, its genes per cell, in other tools, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from iscale.cli.interruption import interruptible

RunPath = Annotated[Path, typer.Argument(help="A project, its iSCALE_output, or run.zarr.", show_default=False)]
Genes = Annotated[
    Optional[str],
    typer.Option(help="Names with commas between, or a file with one a line. Default: the imputed genes."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a target that is there.")]


def info(run: RunPath) -> None:
    """Say what a run holds, from what, and with which parameters."""
    from iscale.results import open_run

    typer.echo(open_run(run).describe())


def status(run: RunPath) -> None:
    """Say how a run goes that another shell or machine does: regions done, rate, time left, failures."""
    from iscale.pipeline.status import describe_status, run_store_at

    typer.echo(describe_status(run_store_at(run)))


def aggregate(
    run: RunPath,
    over: Annotated[
        str,
        typer.Option(
            help="Polygons (.geojson), Xenium's cell_boundaries, a labels image, a table of spots, or bins:16 (um).",
            show_default=False,
        ),
    ],
    genes: Genes = None,
    to: Annotated[
        Optional[str], typer.Option(help="h5ad, csv, or geojson (for QuPath). Default: by the name of --out, or h5ad.")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="The file to write. Default: iSCALE_output/aggregate/NAME.h5ad.")
    ] = None,
    units: Annotated[
        Optional[str], typer.Option(help="Of positions: px, um or analysis-px. Default: by format.")
    ] = None,
    capture: Annotated[Optional[str], typer.Option(help="Capture of the run in whose frame the positions are.")] = None,
    radius_um: Annotated[Optional[float], typer.Option(help="Radius of the spots.")] = None,
    no_uncertainty: Annotated[
        bool, typer.Option("--no-uncertainty", help="Leave out the layer of uncertainty.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Sum expression over cells, spots or bins: AnnData, CSV or GeoJSON, one row each."""
    from iscale.engine.watchers import for_terminal
    from iscale.export.areas.aggregate import aggregate_run

    with interruptible(resumes=False):
        text = aggregate_run(
            run,
            over,
            genes=genes,
            to=to,
            out=out,
            overwrite=overwrite,
            units=units,
            capture=capture,
            radius_um=radius_um,
            uncertainty=not no_uncertainty,
            watcher=for_terminal(),
        )
    typer.echo(text)


def export(
    run: RunPath,
    to: Annotated[
        str, typer.Option(help="h5ad, spatialdata, ome-zarr, ome-tiff, parquet or pickle.", show_default=False)
    ],
    genes: Annotated[
        Optional[str],
        typer.Option(help="A,B or a file of one a line. Default: the imputed genes; of images the first eight."),
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(help="File or folder to write. Default: in iSCALE_output/export/.")
    ] = None,
    bin_um: Annotated[
        Optional[float], typer.Option("--bin", help="Side of bins, um: 8, 16, 32 ... Default: a superpixel.")
    ] = None,
    window: Annotated[Optional[str], typer.Option(help="x0,y0,x1,y1 in um from the slide's corner.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a run in the format of another tool: AnnData, SpatialData, OME-Zarr, OME-TIFF, Parquet, pickles."""
    from iscale.engine.watchers import for_terminal
    from iscale.export.command import export_run

    with interruptible(resumes=False):
        text = export_run(
            run,
            to,
            genes=genes,
            out=out,
            bin_um=bin_um,
            window=window,
            overwrite=overwrite,
            watcher=for_terminal(),
        )
    typer.echo(text)


def view(
    run: Annotated[str, typer.Argument(help="A project, its iSCALE_output, or run.zarr.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own are warned of.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Look at a run in the browser: slide, genes, clusters, spots, regions."""
    from iscale.results import open_run
    from iscale.view.server import view_run

    view_run(open_run(run), host=host, port=port, browser=not no_browser, say=typer.echo)

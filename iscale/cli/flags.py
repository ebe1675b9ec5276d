"""Flags of the command line: each with its help, and those that are options of a run together."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

Project = Annotated[Path, typer.Argument(help="The project folder.", show_default=False)]
Captures = Annotated[
    Optional[list[str]],
    typer.Option("--captures", metavar="NAME ...", help="Daughter captures to use, as --captures D1 D2. Default: all."),
]
PixelSizeRaw = Annotated[Optional[float], typer.Option(help="um per pixel of the mother image, if its file has none.")]
PixelSize = Annotated[Optional[float], typer.Option(help="um per pixel of the analysis. Default: 0.5.")]
NGenes = Annotated[Optional[int], typer.Option(help="Most variable genes to impute. Default: 1000.")]
NPlots = Annotated[Optional[int], typer.Option(help="Genes to draw. Default: 30.")]
NClusters = Annotated[
    Optional[list[str]],
    typer.Option(
        "--n-clusters",
        metavar="NUMBER ...",
        help="Clusters of superpixels, 2 to 100; for several: --n-clusters 6 10. Default: 10. Clusterings of other "
        "numbers are removed.",
    ),
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
Materialize = Annotated[
    Optional[str], typer.Option(help="Genes whose maps are written: none, top (the --n-genes) or all. Default: top.")
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
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an earlier run left, its options too.")]


OPTIONS: dict[str, Any] = {
    "captures": Captures,
    "pixel_size_raw": PixelSizeRaw,
    "pixel_size": PixelSize,
    "n_genes": NGenes,
    "materialize": Materialize,
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
"""Flags that are fields of :class:`iscale.options.Options`."""


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
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

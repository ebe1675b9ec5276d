"""``iscale export RUN --to KIND``: a run as a file that other tools open."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iscale.engine.machine import give_back
from iscale.engine.progress import Watcher
from iscale.engine.watchers import Silence
from iscale.errors import InputError
from iscale.export.request import (
    Request,
    Window,
    bin_side,
    check_target,
    check_tissue,
    choose_region,
    parse_window,
    replacing,
)
from iscale.model.genes import choose_genes, open_source
from iscale.results import Run, open_run
from iscale.trust.prediction import open_prediction
from iscale.words import similar_names

FOLDER = "export"
"""Folder of the exports in a run's output."""

CHANNELS = 8
"""Genes of an image where none are named: a viewer shows a channel each."""


@dataclass(frozen=True)
class Kind:
    """A format.

    Attributes
    ----------
    module
        Where its ``write`` is.
    default
        Path below the output folder; ``{bin}`` stands for the side of the bins in um.
    suffixes
        Ends of names that its readers take.
    bins, windows
        Whether it has bins, and can be of a window.
    channels
        Whether genes are channels of an image.
    parts
        Groups and arrays of the store that it reads besides the expression, where they are there.
    """

    module: str
    default: str
    suffixes: tuple[str, ...]
    bins: bool = False
    windows: bool = True
    channels: bool = False
    parts: tuple[str, ...] = ()


TABLE_PARTS = ("tissue", "clusters", "clusters/refined", "annotation", "embedding")

KINDS = {
    "h5ad": Kind("h5ad", f"{FOLDER}/bins-{{bin}}um.h5ad", (".h5ad",), bins=True, parts=TABLE_PARTS),
    "spatialdata": Kind(
        "spatialdata",
        f"{FOLDER}/spatialdata-{{bin}}um.zarr",
        (".zarr",),
        bins=True,
        parts=(*TABLE_PARTS, "captures"),
    ),
    "ome-zarr": Kind("ome_zarr", f"{FOLDER}/genes.ome.zarr", (".zarr",), channels=True),
    "ome-tiff": Kind("ome_tiff", f"{FOLDER}/genes.ome.tif", (".ome.tif", ".ome.tiff"), channels=True),
    "parquet": Kind("parquet", f"{FOLDER}/bins-{{bin}}um.parquet", (".parquet",), bins=True),
    "pickle": Kind("pickles", "super_res_gene_expression", (), windows=False, parts=("tissue", "embedding")),
}
"""Formats by the names of ``--to``."""


def export_run(
    run: str | Path,
    kind: str,
    *,
    genes: str | Sequence[str] | None = None,
    out: str | Path | None = None,
    bin_um: float | None = None,
    window: str | Window | None = None,
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> str:
    """Write a run in the format of another tool.

    Work goes through the slide a shard at a time and through the genes in blocks. The result is written beside its
    name, and renamed when it is whole.

    Parameters
    ----------
    run
        The run, as for `iscale.open_run`.
    kind
        One of `KINDS`: ``h5ad``, ``spatialdata``, ``ome-zarr``, ``ome-tiff``, ``parquet``, ``pickle``.
    genes
        Names, or text with commas between them, or the path of a file of one name a line. By default the imputed
        ones, of images the first eight of these. Others that the captures measured are computed.
    out
        File or folder to write. By default in ``export/`` of the run's output folder; pickles in
        ``super_res_gene_expression/``.
    bin_um
        Side of the bins of tables: a superpixel (8 um at the default resolution), or 2, 4, 8 or 16 of them.
    window
        x0, y0, x1, y1 in um from the slide's corner, also as text with commas; by default the whole slide.
    overwrite
        Replace a target that is there.
    watcher
        Who is told of progress.

    Returns
    -------
    str
        What was written, and where.

    Raises
    ------
    InputError
        The run, a gene, the window, the bins or the target cannot be used.
    StoreError
        The target cannot be written.
    """
    chosen = _kind(kind)
    opened = open_run(run)
    prediction = open_prediction(opened, chosen.parts)
    if bin_um is not None and not chosen.bins:
        raise InputError(f"--bin: {kind} has no bins.", f"Bins are of {', '.join(k for k in KINDS if KINDS[k].bins)}.")
    if window is not None and not chosen.windows:
        raise InputError(f"--window: {kind} holds whole slides.", "Leave it out, or take another format.")
    side = bin_side(bin_um, prediction.grid.superpixel_um)
    place = parse_window(window) if isinstance(window, str) else window
    region = choose_region(place, prediction.grid, side)
    source = open_source(opened.store)
    names = choose_genes(genes, source, CHANNELS if chosen.channels else None)
    bins = f"{prediction.grid.superpixel_um * side:g}"
    target = Path(out).expanduser() if out is not None else _default(opened, chosen.default.format(bin=bins))
    check_target(target, chosen.suffixes, opened.store, overwrite=overwrite)
    with replacing(target) as part:
        request = Request(
            opened, source, prediction.grid, names, region, place is None, side, part, watcher or Silence()
        )
        check_tissue(request)
        text: str = importlib.import_module(f"iscale.export.{chosen.module}").write(request)
        give_back()
    first = f"The first {len(names)} genes; name others with --genes.\n" if chosen.channels and genes is None else ""
    return f"{first}{text}\n{target}"


def _kind(kind: str) -> Kind:
    if kind.lower() in KINDS:
        return KINDS[kind.lower()]
    close = similar_names(kind, KINDS, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    raise InputError(f"--to {kind}: there is no such format.", f"{meant}Choose one of {', '.join(KINDS)}.")


def _default(run: Run, name: str) -> Path:
    if run.store.url:
        raise InputError(f"{run.store.place}: where is the export to be written?", "Name a place with --out.")
    return run.store.folder / name

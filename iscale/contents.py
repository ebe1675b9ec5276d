"""What a run holds, as text: ``iscale info``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr

from iscale.basis.source import open_source
from iscale.engine.plan import format_bytes
from iscale.made_with import report_of
from iscale.outdated import EVALUATION
from iscale.store.run_store import RunStore
from iscale.wording import plural

PARTS = (
    "image",
    "tissue",
    "features",
    "captures",
    "training",
    "expression",
    "embedding",
    "basis",
    "clusters",
    "annotation",
)
"""Groups of the store."""

MADE_OF_IT = ("aggregate", "export", "super_res_gene_expression", EVALUATION, "report.html")
"""Files and folders beside the store that later commands write."""

RESULTS = ("predict", "refine", "cluster", "annotate")
"""Stages whose results these show."""


def describe(store: RunStore) -> str:
    """What a run holds, from what, with which parameters.

    Raises
    ------
    StoreError
        If a part is damaged.
    """
    report = report_of(store)
    lines = [f"run: {store.place}"]
    if report:
        lines += [f"made by: iscale {report['iscale']}, from {report['project']}"]
        lines += [f"  {key} = {value}" for key, value in report["options"].items() if value not in (None, {})]
        lines += [f"  {notice}" for notice in report["notices"]]
    lines += [*_slide(store), *_genes(store)]
    lines += [_part(store, part) for part in PARTS]
    return "\n".join([*lines, *_made_of_it(store)])


def _slide(store: RunStore) -> Iterator[str]:
    """How large the slide is."""
    about = store.attributes("image") if store.has("image") else {}
    if {"raw_shape_px", "raw_pixel_size_um", "pixel_size_um"} <= about.keys():
        (height, width), um = about["raw_shape_px"], about["raw_pixel_size_um"]
        yield (
            f"slide: {width:,} x {height:,} px of {um:g} um, {width * um / 1000:.3g} x {height * um / 1000:.3g} mm "
            f"(width x height); superpixels of {16 * about['pixel_size_um']:g} um"
        )


def _genes(store: RunStore) -> Iterator[str]:
    """How many genes can be read, and which of them lie there."""
    if store.has("expression/gene"):
        source = open_source(store)
        more = len(source.genes) - source.written
        yield f"genes: {source.written:,} written" + (f", {more:,} more computed when they are read" if more else "")


def _part(store: RunStore, part: str) -> str:
    if not store.has(part):
        return f"{part}: not there yet"
    try:
        group = zarr.open_group(store.root, path=part, mode="r")
        members = sorted(group.arrays())
    except ValueError as error:
        raise store.damaged(part, error) from error
    arrays = [f"{name} {_size(a)} {a.dtype}{_earlier(a.attrs.get('outdated'))}" for name, a in members if a.ndim > 1]
    inner = arrays or sorted(group.group_keys())
    return f"{part}: " + "; ".join(inner) + _earlier(store.outdated(part))


def _made_of_it(store: RunStore) -> Iterator[str]:
    """What was made of the run, and lies beside it."""
    if store.folder == Path():  # opened by its URL, nothing lies beside it
        return
    results = [path for of in RESULTS for path in store.ledgers.glob(f"{of}*.jsonl")]
    newest = max((path.stat().st_mtime for path in results), default=0.0)
    for name in MADE_OF_IT:
        path = store.folder / name
        entries = [path] if path.is_file() else _entries(path)
        if not entries:
            continue
        aged = name != EVALUATION  # what is of a former model is put aside; trust may be had before a prediction
        old = [entry for entry in entries if aged and entry.stat().st_mtime < newest]
        mark = f" -- OLDER THAN THE RUN'S RESULTS: {_named(old) if path.is_dir() else 'make it anew'}" if old else ""
        what = f"{format_bytes(path.stat().st_size)}" if path.is_file() else _named(entries)
        yield f"beside it: {name}{'/' if path.is_dir() else ''} ({what}){mark}"


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    return sorted(path for path in folder.glob("*") if not path.name.startswith("."))


def _named(entries: list[Path]) -> str:
    names = ", ".join(path.name for path in entries[:SHOWN]) + (" ..." if len(entries) > SHOWN else "")
    return f"{plural(len(entries), 'entry', 'entries')}: {names}"


SHOWN = 5
"""Entries of a folder that are named."""


def _size(array: zarr.Array[Any]) -> str:
    """Axes and shape, as ``(y, x: 256 x 256)``."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    return f"({', '.join(map(str, names))}: {' x '.join(map(str, array.shape))})"


def _earlier(why: Any) -> str:
    """What is said of what is outdated."""
    return f" -- OF AN EARLIER RUN: {why}" if why else ""

"""Reading a run: lazy, named arrays over the store, whatever of it exists so far; and what it holds, as text."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from iscale.encoders.base import FeatureGroup
from iscale.engine.plan import format_bytes
from iscale.errors import InputError
from iscale.model.genes import LazyGenes, open_source
from iscale.project.files import find_captures
from iscale.project.layout import CAPTURES_FOLDER
from iscale.stages import Stage, groups, stages
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS
from iscale.store.place import is_url, store_url
from iscale.store.remedies import command_for, making
from iscale.store.run_store import EVALUATION, OUTPUT_FOLDER, RunStore, report_of
from iscale.transform import read_transform
from iscale.words import by, in_words, plural

if TYPE_CHECKING:
    import pandas as pd


MADE_OF_IT = ("aggregate", "export", "super_res_gene_expression", EVALUATION, "report.html")
"""Files and folders beside the store that later commands write."""


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
        lines += [f"  {key} = {in_words(value)}" for key, value in report["options"].items() if value not in (None, {})]
        lines += [f"  {notice}" for notice in report["notices"]]
    lines += [*_slide(store), *_genes(store)]
    lines += [_part(store, part) for part in groups()]
    lines += [f"OF A FORMER TRANSFORM: {told}" for told in of_former_transforms(store)]
    return "\n".join([*lines, *_made_of_it(store)])


def of_former_transforms(store: RunStore) -> list[str]:
    """What is to be said where the transform of a capture is another one by now than that of the run."""
    own = store.folder.parent  # a project that was moved or copied is where its output is
    beside = store.folder.name == OUTPUT_FOLDER and (own / CAPTURES_FOLDER).is_dir()
    project = own if beside else Path(str(report_of(store).get("project") or ""))
    if not store.has("captures") or not (beside or project.is_absolute()):
        return []
    found = []
    with contextlib.suppress(InputError, OSError):  # a project that is gone, or is being changed
        for capture in find_captures(project, None):
            stored = f"captures/{capture.name}/uns/transform"
            if capture.transform is None or not store.has(stored):
                continue
            was, now = np.asarray(store.array(stored)[...]), read_transform(capture.transform).matrix
            if not np.allclose(was, now, rtol=1e-9, atol=1e-9):
                found.append(
                    f"capture {capture.name}: {capture.transform} was replaced since; what the run holds is of the "
                    "former one. Run the project again."
                )
    return found


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
    results = [path for stage in stages().values() if stage.results for path in _ledgers(store, stage)]
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


def _ledgers(store: RunStore, stage: Stage) -> list[Path]:
    """Ledgers of a stage's steps."""
    return [path for path in store.ledgers.glob("*.jsonl") if stage.owns(path.stem.replace(".", "/"))]


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
    return f"({', '.join(map(str, names))}: {by(array.shape)})"


def _earlier(why: Any) -> str:
    """What is said of what is outdated."""
    return f" -- OF AN EARLIER RUN: {why}" if why else ""


READ_GENES = 2 * GENES_PER_CHUNK
READ_SIDE = 8 * SHARD_SUPERPIXELS
"""Genes, and side in superpixels, of a Dask chunk of the opened arrays: few tasks for a whole slide; a slice reads only
the stored chunks that it touches, a list of genes the Dask chunks that hold them."""


def open_run(path: str | Path) -> Run:
    """Open a run; warns where a capture's transform was replaced since it was made.

    Parameters
    ----------
    path
        A project folder, its ``iSCALE_output``, or the ``run.zarr`` in that; or the URL that was its ``--out``.

    Raises
    ------
    InputError
        If there is no run.
    StoreError
        If the run is of another version.
    """
    if is_url(str(path)):
        return _open_url(str(path))
    given = Path(path).expanduser()
    for folder in (given.parent if given.name == "run.zarr" else given, given / "iSCALE_output"):
        store = RunStore(folder)
        if store.has():
            store.check()
            for told in of_former_transforms(store):
                warnings.warn(told, stacklevel=2)
            return Run(store)
    raise InputError(f"{given}: no run.zarr here, nor in its iSCALE_output.", "Make one: iscale run PROJECT.")


def is_run(path: Path) -> bool:
    """Whether a path is an output folder or a ``run.zarr``, not the project that it is of."""
    folder = path.expanduser()
    return folder.name.endswith(".zarr") or (folder / "run.zarr").is_dir()


def _open_url(url: str) -> Run:
    store = RunStore(Path(), store_url(url))
    if not store.has():
        raise InputError(f"{store.place}: no run here.", f"Make one: iscale run PROJECT --out {url}.")
    store.check()
    return Run(store)


class Run:
    """What a run holds; arrays are ``xarray.DataArray`` that read what is asked of them, when it is.

    Parameters
    ----------
    store
        The store.
    """

    def __init__(self, store: RunStore) -> None:
        self.store = store

    @functools.cached_property
    def expression(self) -> xr.DataArray:
        """Expected counts per superpixel of the imputed genes: (gene, y, x) float32, y and x in um; NaN off tissue.

        Computed as it is read where it was not written (``--materialize none``).
        """
        return self._imputed("expression", uncertainty=False)

    @functools.cached_property
    def uncertainty(self) -> xr.DataArray:
        """Spread of the expected counts over the ensemble: (gene, y, x) float32."""
        return self._imputed("uncertainty", uncertainty=True)

    @functools.cached_property
    def lazy_expression(self) -> xr.DataArray:
        """`expression` of every gene that the captures measured: what was not written is computed as it is read.

        Of a run with the recipe ``published`` these are the imputed genes alone.
        """
        return self._every_gene("expression", uncertainty=False)

    def gene(self, name: str) -> xr.DataArray:
        """`lazy_expression` of one gene: (y, x) float32.

        Raises
        ------
        InputError
            If the captures did not measure it; the nearest names are told.
        """
        if not isinstance(name, str):
            raise InputError(f"{name!r} is no name of a gene.", "For several: run.lazy_expression.sel(gene=[...]).")
        return self.lazy_expression[open_source(self.store).row(name)]

    @functools.cached_property
    def lazy_uncertainty(self) -> xr.DataArray:
        """`uncertainty` of every gene that the captures measured."""
        return self._every_gene("uncertainty", uncertainty=True)

    @functools.cached_property
    def depth(self) -> xr.DataArray:
        """Expected counts of all genes together: (y, x) float32; ``expression / depth`` is composition."""
        return self._open("expression", "depth")

    @functools.cached_property
    def refined(self) -> xr.DataArray:
        """`expression`, 0 in tissue superpixels that are unlikely to hold cells: computed as it is read."""
        expression = self.expression
        refined = expression.where(self.cells | expression.isnull(), np.float32(0))
        return refined.assign_attrs(expression.attrs).rename("refined")

    @functools.cached_property
    def cells(self) -> xr.DataArray:
        """Which superpixels are likely to hold cells: (y, x) bool."""
        return self._open("tissue", "cells")

    @functools.cached_property
    def embedding(self) -> xr.DataArray:
        """What clusters are made from: (component, y, x) float32; NaN off tissue."""
        return self._open("embedding", "embedding")

    @functools.cached_property
    def clusters(self) -> xr.DataArray:
        """Cluster of every tissue superpixel: (n_clusters, y, x) uint8; 1 is the largest, 0 is off tissue."""
        return self._open("clusters", "labels")

    @functools.cached_property
    def clusters_refined(self) -> xr.DataArray:
        """The same, of clusters found among superpixels with cells alone; 0 elsewhere."""
        return self._open("clusters", "refined")

    @functools.cached_property
    def annotation(self) -> xr.DataArray:
        """Label of every tissue superpixel: (threshold, y, x) uint8.

        A number k above 0 is ``attrs["labels"][k - 1]``, of which the last is "Unclassified"; 0 is off tissue.
        """
        names = [*self.annotation_scores["label"].to_numpy().tolist(), "Unclassified"]
        return self._open("annotation", "labels").assign_attrs(labels=names)

    @functools.cached_property
    def annotation_scores(self) -> xr.DataArray:
        """Score of every label: (label, y, x) float32, the mean of its markers' expression, each scaled to [0, 1]."""
        return self._open("annotation", "score")

    @functools.cached_property
    def trust(self) -> pd.DataFrame:
        """How well each gene is predicted where it was held out, the best first; ``word`` says it in one.

        Of the way of holding out that is the hardest of those that were tried: whole captures, regions, single spots.
        """
        import pandas as pd

        for how in ("capture", "region", "spots"):
            path = self.store.folder / "evaluation" / f"trust-{how}.tsv"
            if path.is_file():
                return pd.read_csv(path, sep="\t", index_col="gene")
        raise InputError(
            f"{self.store.place}: no gene has been held out yet.",
            f"Make it: {command_for(self.store, 'evaluate', '--hold-out', 'region')}.",
        )

    @functools.cached_property
    def tissue(self) -> xr.DataArray:
        """Which superpixels are tissue: (y, x) bool."""
        return self._open("tissue", "mask")

    @functools.cached_property
    def features(self) -> xr.DataArray:
        """What the model sees: (feature, y, x) float32, every group at superpixels and smoothed."""
        from iscale.features.read import lazy_features

        self._need("features")
        groups = tuple(
            FeatureGroup(g["name"], tuple(g["features"]), g["stride"], g["smooth"])
            for g in self.store.attributes("features")["groups"]
        )
        return lazy_features(self.store, groups, self.tissue)

    @functools.cached_property
    def captures(self) -> dict[str, Any]:
        """The daughter captures as AnnData, in scanpy's layout, by name.

        ``obsm["spatial"]`` is x, y in full-resolution pixels of the capture's own image; ``uns["transform"]``, (3, 3),
        takes (x, y, 1) of these to full-resolution pixels of the mother image. :func:`iscale.on_mother` gives the
        spots' places in um from the slide's corner, as the coordinates of `expression`. The image ``hires`` of
        ``uns["spatial"]``, over which scanpy draws the spots, is the slide beneath them.

        Counts of a capture that has more than 32 million of them (other than 0) stay in the store: ``adata[spots]`` and
        ``adata.X[spots]`` read what is asked for, ``adata.to_memory()`` all.
        """
        from iscale.captures.stage import open_capture

        self._need("captures")
        names = sorted(zarr.open_group(self.store.root, path="captures", mode="r").group_keys())
        found = {}
        for name in names:
            found[name] = open_capture(zarr.open_group(self.store.root, path=f"captures/{name}", mode="r"))
            self._put_image(name, found[name])
        return found

    def _put_image(self, name: str, adata: Any) -> None:
        """Put the slide as it lies beneath the spots of a capture where scanpy looks for an image."""
        from iscale.plots.overview import image_beneath

        about = adata.uns["spatial"][name]
        if adata.n_obs and self.store.has("image/0"):
            factors = about["scalefactors"]
            xy, diameter = np.asarray(adata.obsm["spatial"]), float(factors["spot_diameter_fullres"])
            picture, scale = image_beneath(self.store, np.asarray(adata.uns["transform"]), xy, diameter)
            about["images"] = {"hires": picture}
            factors["tissue_hires_scalef"] = scale

    @functools.cached_property
    def training(self) -> xr.Dataset:
        """The integrated spots: counts (spot, gene), location, held-out flag and held-out scores."""
        self._need("training")
        opened: xr.Dataset = xr.open_zarr(self.store.root, group="training", consolidated=False, chunks={})
        return opened

    @functools.cached_property
    def image(self) -> xr.DataTree:
        """Levels of the image pyramid, each a child whose ``image`` is (c, y, x) uint8, y and x in um."""
        self._need("image")
        attributes = self.store.attributes("image")
        scales = attributes["ome"]["multiscales"][0]["datasets"]
        levels = {}
        for dataset in scales:
            step = dataset["coordinateTransformations"][0]["scale"][-1]
            array = self._lazy(f"image/{dataset['path']}", {"y": 1024, "x": 1024})
            centres = {dim: (dim, (np.arange(array.sizes[dim]) + 0.5) * step, {"units": "um"}) for dim in "yx"}
            levels[dataset["path"]] = xr.Dataset({"image": array.assign_coords({"c": list("RGB"), **centres})})
        return xr.DataTree.from_dict(levels)

    def view(self, *, height: int = 700) -> Any:
        """The run in the browser, for a notebook: an object that shows itself where a cell ends with it.

        Its server runs in this process, on this machine's own address. ``iscale view RUN`` does the same in a terminal.
        """
        from iscale.view.server import view

        return view(self, height=height)

    def __repr__(self) -> str:
        return self.describe()

    @property
    def pixel_size_um(self) -> float:
        """Side of an analysis pixel, in um; a superpixel is 16 of them wide."""
        return float(self.store.attributes("image")["pixel_size_um"])

    def describe(self) -> str:
        """What the run holds, from what, with which parameters, as text."""
        return describe(self.store)

    def _imputed(self, name: str, *, uncertainty: bool) -> xr.DataArray:
        if self.store.has(f"expression/{name}"):
            return self._open("expression", name)
        return self._every_gene(name, uncertainty=uncertainty)[: open_source(self.store).imputed]

    def _every_gene(self, name: str, *, uncertainty: bool) -> xr.DataArray:
        import dask.array as da

        self._need("expression/gene")
        source = open_source(self.store)
        genes = LazyGenes(source, len(source.genes), uncertainty=uncertainty)
        chunks = tuple(min(side, n) for side, n in zip((READ_GENES, READ_SIDE, READ_SIDE), genes.shape, strict=True))
        names = np.array(source.genes, dtype=np.dtypes.StringDType())
        depth = self.depth
        return xr.DataArray(
            da.from_array(genes, chunks=chunks, name=False),
            dims=("gene", "y", "x"),
            coords={"gene": ("gene", names), "y": depth["y"], "x": depth["x"]},
            attrs={"units": "counts"},
            name=name,
        )

    def _open(self, group: str, name: str) -> xr.DataArray:
        self._need(f"{group}/{name}")
        coordinates = {
            dim: (dim, np.asarray(self.store.array(f"{group}/{dim}")[...]))
            for dim in _dims(self.store.array(f"{group}/{name}"))
        }
        array = self._lazy(f"{group}/{name}", {"gene": READ_GENES, "y": READ_SIDE, "x": READ_SIDE})
        array = array.assign_coords(coordinates)
        for dim in "yx":
            array[dim].attrs["units"] = "um"
        return array.rename(name)

    def _lazy(self, path: str, chunks: dict[str, int]) -> xr.DataArray:
        import dask.array as da

        stored = self.store.array(path)
        dims = _dims(stored)
        sizes = tuple(min(chunks.get(dim, n), n) for dim, n in zip(dims, stored.shape, strict=True))
        source = _AsFloat32(stored) if stored.dtype == np.float16 else stored
        return xr.DataArray(da.from_array(source, chunks=sizes, name=False), dims=dims, attrs=dict(stored.attrs))

    def _need(self, path: str) -> None:
        if not self.store.has(path):
            raise InputError(f"{self.store.place}: has no {path} yet.", f"Make it: {making(self.store, path)}.")
        if old := self.store.outdated(path.split("/")[0]) or self.store.outdated(path):
            warnings.warn(f"{path} is of an earlier run: {old}. Run the project again.", stacklevel=4)


class _AsFloat32:
    """A stored float16 array, read as float32: sums of float16 overflow at 65,504, and nobody expects that."""

    def __init__(self, stored: zarr.Array[Any]) -> None:
        self._stored = stored
        self.shape, self.ndim, self.dtype = stored.shape, stored.ndim, np.dtype(np.float32)

    def __getitem__(self, place: Any) -> NDArray[np.float32]:
        return np.asarray(self._stored[place], dtype=np.float32)


def _dims(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Names of an array's axes."""
    return tuple(str(name) for name in getattr(array.metadata, "dimension_names", None) or ())

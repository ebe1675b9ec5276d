"""Stage ``integrate``: captures and training spots into the store, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from iscale.captures.counts import AT_ONCE, Counts, blocks, row_bounds
from iscale.captures.integrate import mean_counts
from iscale.captures.spots import Capture, TrainingSpots
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, single_task
from iscale.engine.progress import tell
from iscale.engine.step import Step, nothing
from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.store.anndata_file import InChunks, encoding
from iscale.store.layout import FILE_GENES, ArrayLayout
from iscale.store.run_store import RunStore
from iscale.transform import Transform

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

CHUNK, SHARD = 1 << 18, 1 << 23
"""Counts that are read at least, and that share a file: 500 million are 120 files."""

SPOTS = 1 << 20
"""Spots whose starts share a file."""

MOST_READ = 1 << 25
"""A capture with more counts is opened without them."""


SHARED_GENES, SHARED_COUNTS = "training/shared_gene", "training/shared_counts"
"""Where names and counts of the genes that all captures measured are stored."""

HELD_BYTES = 128 * 2**20
"""Of a block of genes, whose counts of all spots are added up at once: so often are all counts read."""


def write_counts(group: zarr.Group, counts: Counts) -> None:
    """Write counts into an empty group."""
    group.attrs.update(encoding("csr_matrix") | {"shape": list(counts.shape)})
    n = counts.nnz
    indptr = counts.indptr.astype(np.int32 if n < 2**31 else np.int64)
    group.create_array("indptr", data=indptr, chunks=(min(SPOTS, len(indptr)),))
    chunk, shard = (max(1, min(CHUNK, n)),), (SHARD,) if n > SHARD else None
    arrays = [
        group.create_array(name, shape=(n,), dtype=dtype, chunks=chunk, shards=shard)
        for name, dtype in (("data", np.float32), ("indices", np.int32))
    ]
    data, genes = (InChunks(array, SHARD) for array in arrays)  # a part of a shard would be read and written again
    for _, block in blocks(counts):
        data.add(block.data)
        genes.add(block.indices)
    data.close()
    genes.close()


def open_capture(group: zarr.Group, *, counts: bool = True) -> ad.AnnData:
    """The AnnData of a capture; of one with very many counts, these stay in the store until they are asked for.

    Without ``counts`` it has none.
    """
    data = group["X/data"]
    if counts and isinstance(data, zarr.Array) and data.shape[0] <= MOST_READ:
        return ad.io.read_zarr(group)
    parts = {name: ad.io.read_elem(group[name]) for name in ("obs", "var", "obsm", "uns")}
    return ad.AnnData(X=ad.io.sparse_dataset(group["X"]) if counts else None, **parts)


def dense_genes(group: zarr.Group, genes: Sequence[str]) -> NDArray[np.float32]:
    """(spot, gene) counts of a few genes of a capture in the store, read block by block."""
    names = ad.io.read_elem(group["var"]).index
    columns = names.get_indexer(list(genes))
    stored = ad.io.sparse_dataset(group["X"])
    indptr = np.asarray(zarr.open_array(group.store_path, path="X/indptr", mode="r")[...])
    found = np.zeros((len(indptr) - 1, len(columns)), np.float32)
    for start, stop in row_bounds(indptr, AT_ONCE):
        found[start:stop] = stored[start:stop][:, columns].toarray()
    return found


def files_of(counts: Counts) -> int:
    """About how many files the counts will be."""
    per_file = SHARD if counts.nnz > SHARD else CHUNK
    return 4 + 2 * -(-counts.nnz // per_file) + -(-counts.shape[0] // SPOTS)


WORK_PER_SPOT = 200
"""Bytes of a spot while captures are merged, and while their names are written: as measured on 2 million bins."""

BLOCKS_BYTES = 64 * AT_ONCE
"""A block of counts, and what is made of it while it is added up or written."""


def integrate_step(
    store: RunStore, captures: Sequence[Capture], spots: TrainingSpots, grid: SlideGrid, resources: Resources
) -> Step:
    """The step that writes ``captures/`` and ``training/``, which the driving process holds already."""

    def write(_: list[object]) -> None:
        store.make_group("captures", {})
        for capture in captures:
            write_capture(store, capture, grid)
        write_training(store, spots, grid)
        write_shared_counts(store, captures, spots)

    return Step(
        name="integrate",
        kernel=nothing,
        context=None,
        plan=single_task("integrate", integrate_bytes(captures, spots), resources),
        fingerprint=spots_fingerprint(captures, spots, grid),
        outputs=store.metadata(
            *(f"captures/{name}" for name in spots.captures), "training", "training/counts", SHARED_COUNTS
        ),
        finish=write,
        disk_bytes=sum(8 * c.counts.nnz for c in captures) + spots.counts.nbytes + shared_layout(spots).bytes,
        files=sum(24 + files_of(c.counts) for c in captures) + 10 + shared_layout(spots).files,
        note=f"{len(spots.depth)} spots, {len(spots.genes)} genes, and all {len(spots.shared_genes)} to ask for",
        where="here",
    )


def integrate_bytes(captures: Sequence[Capture], spots: TrainingSpots) -> int:
    """Peak memory of stacking, merging and writing captures, what these hold with it.

    Blocks of counts are of one size, so only names and places grow with the captures.
    """
    held = sum(capture.held_bytes for capture in captures)
    n_spots = sum(len(capture.spot_ids) for capture in captures)
    merged = max(2 * spots.counts.nbytes, spots.counts.nbytes + 2 * HELD_BYTES)
    return held + WORK_PER_SPOT * n_spots + merged + BLOCKS_BYTES


def spots_fingerprint(captures: Sequence[Capture], spots: TrainingSpots, grid: SlideGrid) -> str:
    """Fingerprint of the captures' content and of what was made of it."""
    contents = [*(capture.content for capture in captures), spots.content]
    return fingerprint("integrate", {"genes": list(spots.genes), "pixel_size_um": grid.pixel_size_um}, *contents)


def write_capture(store: RunStore, capture: Capture, grid: SlideGrid) -> None:
    """Write a capture as AnnData, in scanpy's layout, positions in full-resolution pixels of its own image.

    ``uns["transform"]`` takes these to full-resolution pixels of the mother image; :func:`on_mother` applies it.
    """
    own_um = capture.own_um_per_px
    matrix = Transform(capture.transform)
    diameter_um = 2 * capture.radius_um
    factors = {"spot_diameter_fullres": diameter_um / (own_um or matrix.scale * grid.raw_pixel_size_um)}
    if own_um is not None:
        factors["microns_per_pixel"] = own_um
    metadata = {"platform": capture.platform, "spot_diameter_um": diameter_um}
    data = ad.AnnData(
        obs=pd.DataFrame(index=pd.Index(capture.spot_ids, dtype=object)),
        var=pd.DataFrame(
            {"gene_ids": np.asarray(capture.gene_ids, dtype=object)}, index=pd.Index(capture.genes, dtype=object)
        ),
        obsm={"spatial": capture.source_xy_px},
        uns={
            "transform": capture.transform,
            "mother_um_per_px": grid.raw_pixel_size_um,
            "spatial": {capture.name: {"images": {}, "scalefactors": factors, "metadata": metadata}},
        },
    )
    with ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        # Not `write_zarr`, which consolidates metadata: that is outside the Zarr v3 specification, and warned of.
        captures = zarr.open_group(store.root, path="captures", mode="r+")
        ad.io.write_elem(captures, capture.name, data)
        write_counts(captures.create_group(f"{capture.name}/X"), capture.counts)


def on_mother(adata: ad.AnnData) -> NDArray[np.float64]:
    """Where the spots of a run's capture lie on the mother image.

    Parameters
    ----------
    adata
        One of ``open_run(...).captures``, or a part of one.

    Returns
    -------
    xy_um
        (spot, 2): x, y in um from the slide's corner, as the coordinates of ``run.expression``.

    Raises
    ------
    InputError
        Where it does not say where it lies.
    """
    missing = [f"uns[{key!r}]" for key in ("transform", "mother_um_per_px") if key not in adata.uns]
    missing += [] if "spatial" in adata.obsm else ["obsm['spatial']"]
    if missing:
        raise InputError(
            f"This AnnData of {adata.n_obs} spots has no {' and no '.join(missing)}.",
            "Take it from iscale.open_run(PROJECT).captures, of a run of this version; joining AnnData loses uns.",
        )
    matrix = Transform(np.asarray(adata.uns["transform"], np.float64))
    return matrix.apply(np.asarray(adata.obsm["spatial"])) * float(adata.uns["mother_um_per_px"])


def write_training(store: RunStore, spots: TrainingSpots, grid: SlideGrid) -> None:
    """Write the integrated spots: positions in um from the slide's corner."""
    kept = {"capture_scale": list(spots.capture_scale), "agreement": list(spots.agreement)}
    store.make_group("training", {"captures": list(spots.captures), **kept})
    store.put("training/gene", spots.genes, ("gene",))
    store.put("training/counts", spots.counts, ("spot", "gene"))
    store.put("training/depth", spots.depth, ("spot",), long_name="counts of all genes")
    store.put("training/xy", spots.xy_px * grid.pixel_size_um, ("spot", "axis"), units="um")
    store.put("training/radius", spots.radius_um, ("spot",), units="um")
    store.put("training/capture", spots.capture, ("spot",), long_name="index of the capture; -1: merged of several")


def read_training(store: RunStore, grid: SlideGrid) -> TrainingSpots:
    """Read the integrated spots back."""

    def values(name: str) -> np.ndarray:
        return np.asarray(store.array(f"training/{name}")[...])

    kept = store.attributes("training")
    return TrainingSpots(
        genes=tuple(str(gene) for gene in values("gene")),
        counts=values("counts"),
        depth=values("depth"),
        xy_px=values("xy") / grid.pixel_size_um,
        radius_um=values("radius"),
        capture=values("capture"),
        captures=tuple(kept["captures"]),
        capture_scale=tuple(kept.get("capture_scale", ())),
        agreement=tuple(kept.get("agreement", ())),
    )


def check(job: Job, alone: bool) -> None:
    """Read the stage's inputs before any work."""
    _ = job.spots


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    yield integrate_step(job.store, job.captures, job.spots, job.grid, job.workers.of("here"))


def shared_layout(spots: TrainingSpots) -> ArrayLayout:
    """Counts of all shared genes: (spot, shared_gene) float32."""
    shape = len(spots.depth), len(spots.shared_genes)
    chunk = shape[0], min(FILE_GENES, shape[1])
    return ArrayLayout(SHARED_COUNTS, ("spot", "shared_gene"), shape, "float32", chunk, chunk)


def write_shared_counts(store: RunStore, captures: Sequence[Capture], spots: TrainingSpots) -> None:
    """Write the training spots' counts of every gene that all captures measured, blocks of genes at a time."""
    store.put(SHARED_GENES, spots.shared_genes, ("shared_gene",))
    layout = shared_layout(spots)
    store.make(layout, {"long_name": "counts of every gene that all captures measured"})
    array = store.array(SHARED_COUNTS, "r+")
    column = {gene: i for i, gene in enumerate(spots.shared_genes)}
    of_capture = [np.array([column.get(gene, -1) for gene in capture.genes]) for capture in captures]
    for genes in _gene_blocks(*layout.shape):
        places = [_within(columns, genes) for columns in of_capture]
        array[:, genes] = mean_counts(
            [capture.counts for capture in captures],
            places,
            spots.capture_scale,
            spots.slot,
            len(spots.depth),
            genes.stop - genes.start,
        )
        tell(genes.stop, layout.shape[1])


def _gene_blocks(n_spots: int, n_genes: int) -> Iterator[slice]:
    """Blocks of genes that are whole files."""
    step = max(1, HELD_BYTES // (4 * max(n_spots, 1) * FILE_GENES)) * FILE_GENES
    for start in range(0, n_genes, step):
        yield slice(start, min(start + step, n_genes))


def _within(columns: NDArray[np.int64], genes: slice) -> NDArray[np.int64]:
    inside = (columns >= genes.start) & (columns < genes.stop)
    return np.where(inside, columns - genes.start, -1)

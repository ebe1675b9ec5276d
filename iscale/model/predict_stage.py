"""Stage ``predict``: the ensemble mapped over the features of every tissue superpixel.

It writes the genes that are to be written, and the factors that every other gene is computed from when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iscale.encoders import get_encoder
from iscale.encoders.base import FeatureGroup
from iscale.engine.ledger import fingerprint
from iscale.engine.machine import here
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.features.read import read_features
from iscale.geometry import Region, SlideGrid
from iscale.model.ensemble import load_ensemble
from iscale.model.loadings import (
    COARSE_PATH,
    FACTORS_PATH,
    as_components,
    coarse_means,
    read_loadings,
    with_every_gene,
    write_loadings,
)
from iscale.model.sizes import FACTORS, SIZES, STATES
from iscale.store import layout
from iscale.store.run_store import RunStore
from iscale.words import plural

if TYPE_CHECKING:
    from iscale.model.ensemble import Ensemble
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

TILE = 64
"""Side, in superpixels, of the tiles that the network sees at a time."""

GENES_AT_ONCE = 64
"""Genes of which all states are held at a time."""

VERSION = 3
"""Raised when a run leaves other arrays of the same model and features."""

LONG_NAMES = {
    "expression/expression": "expected counts per superpixel: their sum over a spot's disc is the spot's expected "
    "count; the disc of a spot that lies in superpixel (i, j) is all (i + di, j + dj) with di^2 + dj^2 <= r^2, r the "
    "spot's radius in superpixels",
    "expression/uncertainty": "spread (standard deviation) over the ensemble, of the expected counts",
    "expression/depth": "expected counts of all genes together, per superpixel",
    "embedding/embedding": "gene embedding: what superpixels are clustered by",
    FACTORS_PATH: "factors of the ensemble's states, one state after the other: every gene is computed of them",
    COARSE_PATH: f"means of the factors over the tissue of {layout.COARSE_STEP} x {layout.COARSE_STEP} superpixels",
}


@dataclass(frozen=True)
class PredictContext:
    """What a task needs to know; the fingerprint tells a worker when the model it holds is old.

    Attributes
    ----------
    genes
        How many are written: the first ones of those that can be.
    """

    store: RunStore
    grid: SlideGrid
    groups: tuple[FeatureGroup, ...]
    genes: int
    device: str
    model: str


@lru_cache(maxsize=1)
def _ensemble(store: RunStore, device: str, model: str, genes: int) -> Ensemble:
    """The ensemble of the run, for every gene that captures measured where more are written than it was trained on."""
    del model
    ensemble = load_ensemble(store.folder / "model", device)
    return with_every_gene(ensemble, read_loadings(store.folder / "model")) if genes > len(ensemble.genes) else ensemble


def predict_region(context: PredictContext, region: Region) -> int:
    """Predict the tissue of a region, a shard at a time; returns the number of tissue superpixels."""
    context = replace(context, device=here(context.device))
    tissue = np.asarray(context.store.array("tissue/mask")[region.slices])
    for shard in region.tiles(layout.SHARD_SUPERPIXELS):
        if tissue[shard.within(region)].any():
            _predict_shard(context, shard, tissue[shard.within(region)])
    return int(tissue.sum())


def _predict_shard(context: PredictContext, shard: Region, tissue: NDArray[np.bool_]) -> None:
    """Predict one shard: what the genes are computed from once, then the genes, as many at a time as share a file."""
    store = context.store
    ensemble = _ensemble(store, context.device, context.model, context.genes)
    tiles = [tile for tile in shard.tiles(TILE) if tissue[tile.within(shard)].any()]
    hidden = [_hidden(context, ensemble, tile, tissue[tile.within(shard)]) for tile in tiles]

    depth = np.full(shard.shape, np.nan, dtype=np.float16)
    embedding = np.full((SIZES[ensemble.recipe].embedding_width, *shard.shape), np.nan, dtype=np.float16)
    for tile, state in zip(tiles, hidden, strict=True):
        within = tile.within(shard)
        depth[within][tissue[within]] = ensemble.depth(state).cpu().numpy()
        embedding[:, *within][:, tissue[within]] = ensemble.embedding(state).T.cpu().numpy()
    store.write("expression/depth", shard, depth)
    store.write("embedding/embedding", shard, embedding)
    del depth, embedding
    if SIZES[ensemble.recipe].factors:
        _write_factors(store, shard, tissue, tiles, hidden)

    for start in range(0, context.genes, layout.GENES_PER_SHARD):
        genes = slice(start, min(start + layout.GENES_PER_SHARD, context.genes))
        mean = np.full((genes.stop - genes.start, *shard.shape), np.nan, dtype=np.float16)
        spread = mean.copy()
        for tile, state in zip(tiles, hidden, strict=True):
            within = tile.within(shard)
            _fill(ensemble, state, genes, tissue[within], mean[:, *within], spread[:, *within])
        store.write("expression/expression", shard, mean, genes)
        store.write("expression/uncertainty", shard, spread, genes)


def _write_factors(
    store: RunStore, shard: Region, tissue: NDArray[np.bool_], tiles: list[Region], hidden: list[Any]
) -> None:
    """Write the factors of a shard, and their means over blocks."""
    components = np.zeros((len(hidden[0]) * FACTORS, *shard.shape), np.float32)
    for tile, state in zip(tiles, hidden, strict=True):
        within = tile.within(shard)
        components[:, *within][:, tissue[within]] = as_components(state.cpu().numpy())
    store.write(COARSE_PATH, shard.coarsened(layout.COARSE_STEP), coarse_means(components, tissue))
    components[:, ~tissue] = np.nan
    store.write(FACTORS_PATH, shard, components.astype(np.float16))


def _hidden(context: PredictContext, ensemble: Ensemble, tile: Region, tissue: NDArray[np.bool_]) -> Any:
    """What the genes of a tile's tissue superpixels are computed from."""
    import torch

    features = read_features(context.store, context.groups, tile, context.device)[:, tissue].T
    i, j = np.nonzero(tissue)
    step = context.grid.superpixel_um
    xy_um = np.stack([(tile.x0 + j + 0.5) * step, (tile.y0 + i + 0.5) * step], axis=1)
    device = torch.device(context.device)
    return ensemble.hidden(
        torch.from_numpy(np.ascontiguousarray(features)).to(device),
        torch.from_numpy(xy_um.astype(np.float32)).to(device),
    )


def _fill(
    ensemble: Ensemble,
    hidden: Any,
    genes: slice,
    tissue: NDArray[np.bool_],
    mean: NDArray[np.float16],
    spread: NDArray[np.float16],
) -> None:
    """Write the genes of one tile into (gene, y, x) views of the region's arrays."""
    for start in range(genes.start, genes.stop, GENES_AT_ONCE):
        some = slice(start, min(start + GENES_AT_ONCE, genes.stop))
        rows = slice(some.start - genes.start, some.stop - genes.start)
        estimate, deviation = ensemble.expression(hidden, some)
        mean[rows, tissue] = estimate.cpu().numpy()
        spread[rows, tissue] = deviation.cpu().numpy()


def predict_step(
    context: PredictContext,
    gene_names: tuple[str, ...],
    *,
    recipe: str,
    n_states: int,
    seed: int,
    inputs: tuple[str, str],
    resources: Resources,
) -> Step:
    """The step that fills ``expression/``, ``embedding/`` and the factors of ``basis/``.

    ``gene_names`` are those of ``expression/``, of which the context's number, the first ones, are written; inputs are
    the fingerprints of the features and of the model.
    """
    shape, side = context.grid.superpixel_shape, layout.SHARD_SUPERPIXELS
    arrays = _arrays(context, recipe, n_states)
    shard_bytes = _shard_bytes(context, recipe, n_states)
    has_factors = SIZES[recipe].factors > 0

    def prepare() -> None:
        of_model, provenance = {"recipe": recipe, "seed": seed}, {"features": inputs[0], "model": inputs[1]}
        groups = {group: {**of_model, "inputs": provenance} for group in ("expression", "embedding")}
        if has_factors:
            groups["basis"] = {**of_model, "n_states": n_states, "inputs": provenance}
        _prepare(context, groups, arrays, gene_names)

    return Step(
        name="predict",
        kernel=predict_region,
        context=context,
        plan=plan_regions(
            "predict",
            shape,
            (side, side),
            lambda rows_columns: shard_bytes + rows_columns[0] * rows_columns[1],
            resources,
        ),
        fingerprint=fingerprint(
            "predict", {"genes": list(gene_names), "written": context.genes, "version": VERSION}, *inputs
        ),
        outputs=context.store.metadata(
            *("expression", "expression/gene", "embedding"),
            *(("basis", "basis/gene", "basis/loading") if has_factors else ()),
            *(array.path for array in arrays),
        ),
        prepare=prepare,
        disk_bytes=sum(array.bytes for array in arrays),
        files=sum(array.files for array in arrays) + 10,
        note=f"{plural(context.genes, 'gene')} written"
        + (", all others computed when they are read" if has_factors else ""),
        where="gpu",
    )


def _arrays(context: PredictContext, recipe: str, n_states: int) -> list[layout.ArrayLayout]:
    """The arrays that are filled."""
    shape = context.grid.superpixel_shape
    arrays = [layout.plane("expression/depth", shape), layout.embedding(SIZES[recipe].embedding_width, shape)]
    if context.genes:
        names = ("expression", "uncertainty")
        arrays += [layout.genes(f"expression/{name}", context.genes, shape) for name in names]
    if SIZES[recipe].factors:
        arrays += layout.factors(n_states * SIZES[recipe].factors, shape)
    return arrays


def _shard_bytes(context: PredictContext, recipe: str, n_states: int) -> int:
    """Peak bytes of predicting a shard."""
    size = SIZES[recipe]
    n_features = sum(len(group.features) for group in context.groups)
    tile_bytes = TILE * TILE * (12 * n_features + 4 * 16 * GENES_AT_ONCE) + 64 * 2**20
    # Of a shard: what the genes are computed from; estimate and spread, or the embedding before them, and as much again
    # while they are compressed.
    results = 2 * 2 * max(2 * min(layout.GENES_PER_SHARD, context.genes), size.embedding_width)
    of_factors = (4 + 3 * 2) * n_states * size.factors
    return tile_bytes + layout.SHARD_SUPERPIXELS**2 * (size.hidden_bytes(n_states) + max(results, of_factors))


def _prepare(
    context: PredictContext,
    groups: dict[str, dict[str, Any]],
    arrays: list[layout.ArrayLayout],
    gene_names: tuple[str, ...],
) -> None:
    """Make the groups and arrays, empty, with what says what is in them."""
    store, grid = context.store, context.grid
    for group, attributes in groups.items():
        store.make_group(group, attributes)
        if group == "basis":
            write_loadings(store, read_loadings(store.folder / "model"))
        else:
            store.put_coordinates(group, grid.superpixel_shape, grid.superpixel_um)
    for array in arrays:
        units = {"units": "counts"} if array.path.startswith("expression") else {}
        store.make(array, {"long_name": LONG_NAMES[array.path], **units})
    store.put("expression/gene", gene_names, ("gene",))
    n_components = next(array.shape[0] for array in arrays if array.path == "embedding/embedding")
    store.put("embedding/component", np.arange(1, n_components + 1), ("component",))


def check(job: Job, alone: bool) -> None:
    """Read the stage's inputs before any work."""
    _ = job.genes


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    groups = get_encoder(job.encoder).groups
    written = 0 if job.options.materialize == "none" else len(job.genes)
    yield predict_step(
        PredictContext(job.store, job.grid, groups, written, workers.device, made["fit"]),
        job.genes,
        recipe=job.options.recipe,
        n_states=STATES,
        seed=job.options.seed,
        inputs=(made["features"], made["fit"]),
        resources=workers.of("gpu"),
    )

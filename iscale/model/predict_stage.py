"""Stage ``predict``: the ensemble mapped over the features of every tissue superpixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from iscale.device import here
from iscale.encoders.base import FeatureGroup
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.features.read import read_features
from iscale.geometry import Region, SlideGrid
from iscale.model.ensemble import Ensemble, embedding_width, hidden_bytes, load_ensemble
from iscale.store import layout
from iscale.store.run_store import RunStore

TILE = 64
"""Side, in superpixels, of the tiles that the network sees at a time."""

GENES_AT_ONCE = 64
"""Genes of which all states are held at a time."""

VERSION = 2
"""Raised when a run leaves other arrays of the same model and features."""


@dataclass(frozen=True)
class PredictContext:
    """What a task needs to know; the fingerprint tells a worker when the model it holds is old."""

    store: RunStore
    grid: SlideGrid
    groups: tuple[FeatureGroup, ...]
    genes: int
    device: str
    model: str


@lru_cache(maxsize=1)
def _ensemble(store: RunStore, device: str, model: str) -> Ensemble:
    del model
    return load_ensemble(store.folder / "model", device)


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
    ensemble = _ensemble(store, context.device, context.model)
    tiles = [tile for tile in shard.tiles(TILE) if tissue[tile.within(shard)].any()]
    hidden = [_hidden(context, ensemble, tile, tissue[tile.within(shard)]) for tile in tiles]

    depth = np.full(shard.shape, np.nan, dtype=np.float16)
    embedding = np.full((embedding_width(ensemble.recipe), *shard.shape), np.nan, dtype=np.float16)
    for tile, state in zip(tiles, hidden, strict=True):
        within = tile.within(shard)
        depth[within][tissue[within]] = ensemble.depth(state).cpu().numpy()
        embedding[:, *within][:, tissue[within]] = ensemble.embedding(state).T.cpu().numpy()
    store.write("expression/depth", shard, depth)
    store.write("embedding/embedding", shard, embedding)
    del depth, embedding

    for start in range(0, context.genes, layout.GENES_PER_SHARD):
        genes = slice(start, min(start + layout.GENES_PER_SHARD, context.genes))
        mean = np.full((genes.stop - genes.start, *shard.shape), np.nan, dtype=np.float16)
        spread = mean.copy()
        for tile, state in zip(tiles, hidden, strict=True):
            within = tile.within(shard)
            _fill(ensemble, state, genes, tissue[within], mean[:, *within], spread[:, *within])
        store.write("expression/expression", shard, mean, genes)
        store.write("expression/uncertainty", shard, spread, genes)


def _hidden(context: PredictContext, ensemble: Ensemble, tile: Region, tissue: NDArray[np.bool_]) -> Any:
    """What the genes of a tile's tissue superpixels are computed from."""
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
        part = slice(start, min(start + GENES_AT_ONCE, genes.stop))
        rows = slice(part.start - genes.start, part.stop - genes.start)
        estimate, deviation = ensemble.expression(hidden, part)
        mean[rows, tissue] = estimate.cpu().numpy()
        spread[rows, tissue] = deviation.cpu().numpy()


def predict_step(
    context: PredictContext,
    gene_names: tuple[str, ...],
    *,
    recipe: str,
    seed: int,
    inputs: tuple[str, str],
    resources: Resources,
) -> Step:
    """The step that fills ``expression/`` and ``embedding/``.

    Parameters
    ----------
    inputs
        Fingerprints of the features and of the model.
    """
    store, grid = context.store, context.grid
    shape, side = grid.superpixel_shape, layout.SHARD_SUPERPIXELS
    n_features = sum(len(group.features) for group in context.groups)
    n_components = embedding_width(recipe)
    arrays = [
        layout.genes("expression/expression", len(gene_names), shape),
        layout.genes("expression/uncertainty", len(gene_names), shape),
        layout.plane("expression/depth", shape),
        layout.embedding(n_components, shape),
    ]

    written = min(layout.GENES_PER_SHARD, len(gene_names))
    tile_bytes = TILE * TILE * (12 * n_features + 4 * 16 * GENES_AT_ONCE) + 64 * 2**20
    # Of a shard: what the genes are computed from; estimate and spread, or the embedding before them, and as much again
    # while they are compressed.
    stored = max(2 * written, n_components)
    shard_bytes = side * side * (hidden_bytes(recipe, n_features) + 2 * 2 * stored)

    def prepare() -> None:
        provenance = {"features": inputs[0], "model": inputs[1]}
        for group in ("expression", "embedding"):
            store.make_group(group, {"recipe": recipe, "seed": seed, "inputs": provenance})
            store.put_coordinates(group, shape, grid.superpixel_um)
        described = {
            "expression/expression": "expected counts per superpixel: their sum over a spot's disc is the spot's "
            "expected count; the disc of a spot that lies in superpixel (i, j) is all (i + di, j + dj) with "
            "di^2 + dj^2 <= r^2, r the spot's radius in superpixels",
            "expression/uncertainty": "spread (standard deviation) over the ensemble, of the expected counts",
            "expression/depth": "expected counts of all genes together, per superpixel",
            "embedding/embedding": "gene embedding: what superpixels are clustered by",
        }
        for array in arrays:
            units = {} if array.path.startswith("embedding") else {"units": "counts"}
            store.make(array, {"long_name": described[array.path], **units})
        store.put("expression/gene", gene_names, ("gene",))
        store.put("embedding/component", np.arange(1, n_components + 1), ("component",))

    return Step(
        name="predict",
        kernel=predict_region,
        context=context,
        plan=plan_regions(
            "predict",
            shape,
            (side, side),
            lambda rows_columns: tile_bytes + shard_bytes + rows_columns[0] * rows_columns[1],
            resources,
        ),
        fingerprint=fingerprint("predict", {"genes": list(gene_names), "version": VERSION}, *inputs),
        outputs=store.metadata("expression", "expression/gene", "embedding", *(array.path for array in arrays)),
        prepare=prepare,
        disk_bytes=sum(array.bytes for array in arrays),
        files=sum(array.files for array in arrays) + 10,
        note=f"{len(gene_names)} genes",
        where="gpu",
    )

"""Genes that were not trained on are the regression of their counts on the factors of those that were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.model.data import SharedGenes
from iscale.model.discs import disc_rows
from iscale.model.fit import fit

N_SPOTS, SIDE, FEATURES, TRAINED, ALL = 120, 40, 10, 6, 24


@pytest.fixture(scope="module")
def measured() -> tuple[TrainingSpots, DiscFeatures, SharedGenes]:
    """Spots with 24 genes that depend on three directions of the features, of which six are trained on."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(SIDE * SIDE, FEATURES)).astype(np.float32)
    rates = np.exp(features[:, :3] @ rng.normal(0, 0.3, (3, ALL)) + rng.uniform(0, 1, ALL))
    centre = rng.integers(2, SIDE - 2, size=(N_SPOTS, 2))
    radius = np.full(N_SPOTS, 20.0)
    spot, place = disc_rows(centre, radius, 12.0, (SIDE, SIDE))
    at = place[:, 0] * SIDE + place[:, 1]
    counts = np.zeros((N_SPOTS, ALL))
    np.add.at(counts, spot, rates[at])
    counts = rng.poisson(counts).astype(np.float32)
    names = tuple(f"G{k}" for k in range(ALL))
    spots = TrainingSpots(
        genes=names[:TRAINED],
        counts=np.ascontiguousarray(counts[:, :TRAINED]),
        depth=counts.sum(axis=1),
        xy_px=(centre[:, ::-1] * 16 + 8).astype(np.float64),
        radius_um=radius,
        capture=np.zeros(N_SPOTS, np.int64),
        captures=("A",),
        shared_genes=names,
    )
    return spots, DiscFeatures(features[at], spot), SharedGenes(names, lambda genes: counts[:, genes])


def fitted(measured: tuple[TrainingSpots, DiscFeatures, SharedGenes]):
    spots, discs, shared = measured
    torch.set_num_threads(1)
    return fit(spots, discs, pixel_size_um=0.75, superpixel_um=12.0, shared=shared)


def test_trained_genes_come_first_and_keep_what_they_have(measured) -> None:
    result = fitted(measured)
    loadings, parts = result.loadings, result.ensemble.numbers
    assert loadings.genes[:TRAINED] == measured[0].genes
    assert sorted(loadings.genes) == sorted(measured[2].genes)
    assert (loadings.loading[:, :TRAINED] == parts.loading.numpy()).all()
    assert (loadings.share[:TRAINED] == parts.share.numpy()).all()


def test_a_trained_gene_would_get_the_loading_that_it_has(measured) -> None:
    spots, discs, shared = measured
    again = SharedGenes(tuple(f"again{k}" for k in range(ALL)), shared.counts)
    result = fitted((spots, discs, again))
    parts = result.ensemble.numbers
    found = result.loadings.loading[:, TRAINED : 2 * TRAINED]
    np.testing.assert_allclose(found, parts.loading.numpy(), atol=2e-4 * np.abs(found).max())
    np.testing.assert_allclose(result.loadings.level[TRAINED : 2 * TRAINED], parts.level.numpy(), rtol=1e-4)
    np.testing.assert_allclose(result.loadings.share[TRAINED : 2 * TRAINED], parts.share.numpy(), rtol=1e-3)


def test_expected_counts_of_the_training_spots_are_the_measured_ones(measured) -> None:
    from iscale.model.loadings import as_components

    spots, discs, shared = measured
    result = fitted(measured)
    centre_um = torch.from_numpy((spots.xy_px * 0.75).astype(np.float32))[discs.spot]
    hidden = result.ensemble.hidden(torch.from_numpy(discs.features), centre_um)
    loadings = result.loadings
    totals = loadings.expression(as_components(hidden.numpy())).sum(axis=1)
    counts = shared.counts(slice(None))
    column = [shared.genes.index(gene) for gene in loadings.genes]
    np.testing.assert_allclose(totals, counts[:, column].sum(axis=0), rtol=1e-3)


def test_without_shared_genes_there_are_no_loadings(measured) -> None:
    spots, discs, _ = measured
    assert fit(spots, discs, pixel_size_um=0.75, superpixel_um=12.0).loadings is None


def test_the_published_recipe_gives_no_other_genes(measured) -> None:
    spots, discs, shared = measured
    few = replace(spots)
    result = fit(few, discs, pixel_size_um=0.75, superpixel_um=12.0, shared=shared, recipe="published", max_epochs=1)
    assert result.loadings is None


def test_where_every_gene_was_trained_on_there_is_nothing_to_add(measured) -> None:
    spots, discs, shared = measured
    all_of_it = SharedGenes(spots.genes, lambda genes: shared.counts(slice(0, TRAINED))[:, genes])
    result = fitted((spots, discs, all_of_it))
    assert result.loadings.genes == spots.genes
    assert (result.loadings.loading == result.ensemble.numbers.loading.numpy()).all()

"""The group ``basis/`` of the store: the factors of every superpixel, and what turns them into genes.

``basis/factors`` holds, per superpixel, the factors of every state of the ensemble, one state after the other;
``basis/coarse`` their means over the tissue of 4 x 4 superpixels, for overviews. ``basis/loading``, ``level`` and
``share`` turn the factors of a state into the expected counts of a gene (:mod:`iscale.basis.decode`). Stage ``predict``
writes all of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iscale.basis.loadings import NAMES, Loadings
from iscale.model.sizes import FACTORS
from iscale.store.layout import COARSE_STEP
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.model.ensemble import Ensemble

FACTORS_PATH, COARSE_PATH = "basis/factors", "basis/coarse"


def write_loadings(store: RunStore, loadings: Loadings) -> None:
    """Write what turns factors into genes into the group, for readers of the run."""
    store.put("basis/gene", loadings.genes, ("gene",))
    store.put("basis/loading", loadings.loading, ("factor", "gene"), long_name="log1p of counts per unit of a factor")
    store.put("basis/level", loadings.level, ("gene",), long_name="log1p of counts where all factors are 0")
    store.put("basis/share", loadings.share, ("gene",), long_name="counts of a superpixel over those of a spot")


def as_components(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """(component, n): the factors of all states below each other, `FACTORS` of each, missing ones 0.

    Parameters
    ----------
    hidden
        (state, n, factor + 1): as :meth:`iscale.model.additive.AdditiveEnsemble.hidden` gives it, the last is depth.
    """
    n_states, n, n_outputs = hidden.shape
    components = np.zeros((n_states, FACTORS, n), np.float32)
    components[:, : n_outputs - 1] = hidden[:, :, :-1].transpose(0, 2, 1)
    return components.reshape(n_states * FACTORS, n)


def coarse_means(components: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Means over the tissue of blocks of `COARSE_STEP` superpixels a side; NaN where there is none.

    Parameters
    ----------
    components
        (component, y, x), 0 off tissue.
    tissue
        (y, x); sides are multiples of the step.
    """
    count = _block_sums(tissue[None].astype(np.float32))
    with np.errstate(invalid="ignore", divide="ignore"):
        means: NDArray[np.float16] = (_block_sums(components) / count).astype(np.float16)
    return means


def _block_sums(values: NDArray[np.float32]) -> NDArray[np.float32]:
    n, h, w = values.shape
    step = COARSE_STEP
    sums: NDArray[np.float32] = values.reshape(n, h // step, step, w // step, step).sum(axis=(2, 4), dtype=np.float32)
    return sums


def with_every_gene(ensemble: Ensemble, loadings: Loadings) -> Ensemble:
    """An ensemble for all genes that have loadings, on its device."""
    import torch

    from iscale.model.additive import AdditiveEnsemble

    if not isinstance(ensemble, AdditiveEnsemble):
        raise TypeError(f"the recipe {ensemble.recipe!r} has no factors")
    device = ensemble.parts.loading.device
    numbers = {name: torch.from_numpy(getattr(loadings, name)).to(device) for name in NAMES}
    return AdditiveEnsemble(loadings.genes, replace(ensemble.parts, **numbers))

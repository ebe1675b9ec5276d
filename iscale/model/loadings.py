"""What turns factors into genes, kept beside the model and, with the factors of superpixels, in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from iscale.arrays import block_view
from iscale.errors import StoreError
from iscale.model.sizes import FACTORS
from iscale.store.layout import COARSE_STEP
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.model.ensemble import Ensemble


NUMBERS_FILE, GENES_FILE = "every_gene.safetensors", "every_gene.json"
NAMES = ("loading", "level", "share")


@dataclass(frozen=True)
class Loadings:
    """What turns the factors of a state into the expected counts of genes.

    Attributes
    ----------
    genes
        (gene,) names: those that the ensemble was trained on, then the others.
    loading, level
        (factor, gene) and (gene,) float32: ``log1p`` of a spot's counts is ``factors @ loading + level``.
    share
        (gene,) float32: what turns a spot's counts into the expected counts of one superpixel.
    """

    genes: tuple[str, ...]
    loading: NDArray[np.float32]
    level: NDArray[np.float32]
    share: NDArray[np.float32]

    def save(self, folder: Path) -> None:
        """Write the numbers and the names into a model's folder."""
        numbers = {name: np.ascontiguousarray(getattr(self, name)) for name in NAMES}
        save_file(numbers, folder / NUMBERS_FILE)
        (folder / GENES_FILE).write_text(json.dumps(list(self.genes)))


def read_loadings(folder: Path) -> Loadings:
    """The loadings in a model's folder.

    Raises
    ------
    StoreError
        If they are missing, damaged, or numbers and names do not belong together.
    """
    try:
        genes = tuple(str(gene) for gene in json.loads((folder / GENES_FILE).read_text()))
        loading, level, share = (load_file(folder / NUMBERS_FILE)[name] for name in NAMES)
        if not loading.shape[1] == len(level) == len(share) == len(genes):
            raise ValueError(f"{len(genes)} genes, loadings of {loading.shape[1]}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StoreError(
            f"{folder} does not hold what turns factors into genes: {error}",
            f"Delete {folder} and run the project again: the fit is made anew.",
        ) from error
    return Loadings(genes, loading, level, share)


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
    sums, count = (
        block_view(values, COARSE_STEP).sum(axis=(2, 4), dtype=np.float32)
        for values in (components, tissue[None].astype(np.float32))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        means: NDArray[np.float16] = (sums / count).astype(np.float16)
    return means


def with_every_gene(ensemble: Ensemble, loadings: Loadings) -> Ensemble:
    """An ensemble for all genes that have loadings, on its device."""
    import torch

    from iscale.model.additive import AdditiveEnsemble

    if not isinstance(ensemble, AdditiveEnsemble):
        raise TypeError(f"the recipe {ensemble.recipe!r} has no factors")
    device = ensemble.parts.loading.device
    numbers = {name: torch.from_numpy(getattr(loadings, name)).to(device) for name in NAMES}
    return AdditiveEnsemble(loadings.genes, replace(ensemble.parts, **numbers))

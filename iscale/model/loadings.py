"""What turns factors into genes, in NumPy; it is kept beside the model and, with superpixels' factors, in the store."""

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
from iscale.model.ensemble import fit_anew
from iscale.model.sizes import FACTORS
from iscale.store.layout import COARSE_STEP
from iscale.store.run_store import RunStore

if TYPE_CHECKING:
    from iscale.model.ensemble import Ensemble


SHARPNESS = np.float32(8)
"""Of the bend by which ``log1p`` of counts ends at 0: see :func:`iscale.model.additive.positive_counts`."""

GENES_AT_ONCE, CELLS_AT_ONCE = 16, 1 << 14
"""Genes and superpixels of which the values of all states are held."""

NUMBERS_FILE, GENES_FILE = "every_gene.safetensors", "every_gene.json"
NAMES = ("loading", "level", "share")
FACTORS_PATH, COARSE_PATH = "basis/factors", "basis/coarse"


@dataclass(frozen=True)
class Loadings:
    """What turns the factors of states into the expected counts of genes.

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

    def of(self, rows: NDArray[np.int64]) -> Loadings:
        """Of some genes alone, given by their places in ``genes``."""
        return Loadings(
            tuple(self.genes[row] for row in rows), self.loading[:, rows], self.level[rows], self.share[rows]
        )

    def expression(self, components: NDArray[np.floating]) -> NDArray[np.float32]:
        """Mean over the states: (gene, ...) float32 of (component, ...); NaN where these are."""
        return self._over_states(components, spread=False)

    def uncertainty(self, components: NDArray[np.floating]) -> NDArray[np.float32]:
        """Standard deviation over the states: (gene, ...) float32 of (component, ...)."""
        return self._over_states(components, spread=True)

    def _over_states(self, components: NDArray[np.floating], *, spread: bool) -> NDArray[np.float32]:
        n_genes, shape = self.loading.shape[1], components.shape[1:]
        flat = components.reshape(len(components), -1)
        tissue = np.flatnonzero(~np.isnan(flat[0]))
        result = np.full((n_genes, flat.shape[1]), np.nan, np.float32)
        for b in range(0, len(tissue), CELLS_AT_ONCE):
            cells = tissue[b : b + CELLS_AT_ONCE]
            states = _as_float32(np.take(flat, cells, axis=1)).reshape(-1, FACTORS, len(cells))
            factors = states[:, : len(self.loading)]
            for a in range(0, n_genes, GENES_AT_ONCE):
                genes = slice(a, a + GENES_AT_ONCE)
                counts = positive_counts(self.loading[:, genes].T @ factors + self.level[genes, None])
                value = counts.std(axis=0) if spread else counts.mean(axis=0)
                result[genes, cells] = value * self.share[genes, None]
        return result.reshape(n_genes, *shape)

    def save(self, folder: Path) -> None:
        """Write the numbers and the names into a model's folder."""
        numbers = {name: np.ascontiguousarray(getattr(self, name)) for name in NAMES}
        save_file(numbers, folder / NUMBERS_FILE)
        (folder / GENES_FILE).write_text(json.dumps(list(self.genes)))


def read_loadings(folder: Path) -> Loadings:
    """The loadings in a model's folder; a `StoreError` where they are missing, damaged, or do not belong together."""
    try:
        genes = tuple(str(gene) for gene in json.loads((folder / GENES_FILE).read_text()))
        loading, level, share = (load_file(folder / NUMBERS_FILE)[name] for name in NAMES)
        if not loading.shape[1] == len(level) == len(share) == len(genes):
            raise ValueError(f"{len(genes)} genes, loadings of {loading.shape[1]}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StoreError(f"{folder} does not hold what turns factors into genes: {error}", fit_anew(folder)) from error
    return Loadings(genes, loading, level, share)


def positive_counts(log_counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """``expm1``, bent near 0 so that it never goes below; overwrites its argument.

    See :func:`iscale.model.additive.positive_counts`. The logarithm of ``1 + exp`` is taken where it does not overflow.
    """
    bent = np.exp(-SHARPNESS * np.abs(log_counts))
    np.log1p(bent, out=bent)
    bent /= SHARPNESS
    np.maximum(log_counts, 0, out=log_counts)
    log_counts += bent
    return np.expm1(log_counts, out=log_counts)


def _as_float32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Finite values in single precision; those of half precision by moving bits, which is quicker than ``astype``.

    >>> _as_float32(np.array([0, -1.5, 6e-8, 65504], np.float16)).tolist() == [0.0, -1.5, 2.0**-24, 65504.0]
    True
    """
    if values.dtype != np.float16:
        return values.astype(np.float32, copy=False)
    bits = values.view(np.int16).astype(np.int32)
    bits <<= 13  # the mantissa is 13 bits longer
    bits &= np.int32(~0x70000000)  # the copies of the sign
    found = bits.view(np.float32)
    found *= np.float32(2.0**112)  # exponents are counted from 127, not from 15
    return found


def write_loadings(store: RunStore, loadings: Loadings) -> None:
    """Write what turns factors into genes into the store, for readers of the run."""
    store.put("basis/gene", loadings.genes, ("gene",))
    store.put("basis/loading", loadings.loading, ("factor", "gene"), long_name="log1p of counts per unit of a factor")
    store.put("basis/level", loadings.level, ("gene",), long_name="log1p of counts where all factors are 0")
    store.put("basis/share", loadings.share, ("gene",), long_name="counts of a superpixel over those of a spot")


def stored_loadings(store: RunStore) -> Loadings:
    """What `write_loadings` wrote."""
    return Loadings(store.names("basis/gene"), *(np.asarray(store.array(f"basis/{name}")[...]) for name in NAMES))


def as_components(hidden: NDArray[np.float32]) -> NDArray[np.float32]:
    """(component, n): the factors of all states below each other, `FACTORS` of each, missing ones 0.

    Of (state, n, factor + 1), as :meth:`iscale.model.additive.AdditiveEnsemble.hidden` gives it; the last is depth.
    """
    n_states, n, n_outputs = hidden.shape
    components = np.zeros((n_states, FACTORS, n), np.float32)
    components[:, : n_outputs - 1] = hidden[:, :, :-1].transpose(0, 2, 1)
    return components.reshape(n_states * FACTORS, n)


def coarse_means(components: NDArray[np.float32], tissue: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Means over the tissue of blocks of `COARSE_STEP` superpixels a side; NaN where there is none.

    Of (component, y, x), 0 off tissue, and tissue (y, x), whose sides are multiples of the step.
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
    device = ensemble.numbers.loading.device
    numbers = {name: torch.from_numpy(getattr(loadings, name)).to(device) for name in NAMES}
    return AdditiveEnsemble(loadings.genes, replace(ensemble.numbers, **numbers))

"""Genes from factors, in NumPy: what :meth:`iscale.model.additive.AdditiveEnsemble.expression` computes in torch.

A reader of a run need not load torch for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.model.sizes import FACTORS

SHARPNESS = np.float32(8)
"""Of the bend by which ``log1p`` of counts ends at 0: see :func:`iscale.model.additive.positive_counts`."""

GENES_AT_ONCE, CELLS_AT_ONCE = 16, 1 << 14
"""Genes and superpixels of which the values of all states are held."""


@dataclass(frozen=True)
class Decoder:
    """What turns factors into the expected counts of some genes.

    Attributes
    ----------
    loading, level, share
        (factor, gene), (gene,) and (gene,) float32.
    """

    loading: NDArray[np.float32]
    level: NDArray[np.float32]
    share: NDArray[np.float32]

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
            states = single(np.take(flat, cells, axis=1)).reshape(-1, FACTORS, len(cells))
            factors = states[:, : len(self.loading)]
            for a in range(0, n_genes, GENES_AT_ONCE):
                genes = slice(a, a + GENES_AT_ONCE)
                counts = positive_counts(self.loading[:, genes].T @ factors + self.level[genes, None])
                value = counts.std(axis=0) if spread else counts.mean(axis=0)
                result[genes, cells] = value * self.share[genes, None]
        return result.reshape(n_genes, *shape)


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


def single(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Finite values in single precision; those of half precision by moving bits, which is quicker than ``astype``.

    >>> single(np.array([0, -1.5, 6e-8, 65504], np.float16)).tolist() == [0.0, -1.5, 2.0**-24, 65504.0]
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

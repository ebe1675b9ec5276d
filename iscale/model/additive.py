"""The ensemble of the default recipe: appearance and place, added; factors shared by genes; one output for depth."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.model.basis import Appearance, nearness
from iscale.model.ensemble import Ensemble, expect_tensors
from iscale.model.published import deviation_over_states
from iscale.model.sizes import FACTORS, RANDOM_FEATURES

ROW_BLOCK, GENE_BLOCK = 1024, 64
"""Superpixels and genes that are computed at a time, so that the states' values stay in cache."""
SHARPNESS = 8.0


@dataclass(frozen=True)
class AdditiveTensors:
    """All numbers of the ensemble, float32; an output is a factor, or (the last) the logarithm of depth.

    Attributes
    ----------
    centre, scale, frequencies, phase
        See :class:`iscale.model.basis.Appearance`.
    anchors
        (anchor, 2): places, in um.
    constant, linear, waves, place
        (state, 1, output), (state, feature, output), (state, random, output) and (state, anchor, output).
    loading, level
        (factor, gene) and (gene,): ``log1p`` of a spot's counts is ``factors @ loading + level``.
    share
        (gene,): what turns a spot's counts into the expected counts of one superpixel.
    """

    centre: Tensor
    scale: Tensor
    frequencies: Tensor
    phase: Tensor
    anchors: Tensor
    constant: Tensor
    linear: Tensor
    waves: Tensor
    place: Tensor
    loading: Tensor
    level: Tensor
    share: Tensor


class AdditiveEnsemble(Ensemble):
    """States that differ in their random features and in the fifth of the spots that they have not seen."""

    recipe = "default"

    def __init__(self, genes: tuple[str, ...], parts: AdditiveTensors) -> None:
        self.genes = genes
        self.parts = parts
        self.n_states = len(parts.constant)
        self._appearance = Appearance(parts.centre, parts.scale, parts.frequencies, parts.phase)
        self._axes = relative_axes(parts.loading)

    def hidden(self, features: Tensor, xy_um: Tensor) -> Tensor:
        """(state, n, factor + 1): factors, which mean the same in every state, and the logarithm of depth."""
        parts, n = self.parts, len(features)
        result = features.new_empty(self.n_states, n, parts.constant.shape[2])
        for start in range(0, n, ROW_BLOCK):
            rows = slice(start, start + ROW_BLOCK)
            scaled = self._appearance.scaled(features[rows])
            block = torch.matmul(scaled, parts.linear) + parts.constant
            block += torch.matmul(self._appearance.waves(scaled), parts.waves)
            block += torch.matmul(nearness(xy_um[rows], parts.anchors), parts.place)
            result[:, rows] = block
        return result

    def expression(self, hidden: Tensor, genes: slice) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over states: see :meth:`Ensemble.expression`."""
        start, stop, _ = genes.indices(len(self.genes))
        n = hidden.shape[1]
        mean, spread = hidden.new_empty(2, stop - start, n).unbind()
        for a in range(start, stop, GENE_BLOCK):
            gene = slice(a, min(a + GENE_BLOCK, stop))
            loading, level = self.parts.loading[:, gene].T, self.parts.level[gene, None]
            share = self.parts.share[gene, None]
            for b in range(0, n, ROW_BLOCK):
                at = slice(gene.start - start, gene.stop - start), slice(b, b + ROW_BLOCK)
                counts = positive_counts(torch.matmul(loading, hidden[:, b : b + ROW_BLOCK, :-1].mT) + level)
                middle = counts.mean(dim=0)
                torch.mul(middle, share, out=mean[at])
                torch.mul(deviation_over_states(counts, middle), share, out=spread[at])
        return mean, spread

    def totals(self, hidden: Tensor) -> Tensor:
        """(gene,) float64: expected counts of all superpixels together, without the time that their spread takes."""
        parts, n = self.parts, hidden.shape[1]
        result = torch.zeros(len(self.genes), dtype=torch.float64, device=hidden.device)
        for a in range(0, len(self.genes), GENE_BLOCK):
            gene = slice(a, a + GENE_BLOCK)
            loading, level = parts.loading[:, gene].T, parts.level[gene, None]
            for b in range(0, n, ROW_BLOCK):
                counts = positive_counts(torch.matmul(loading, hidden[:, b : b + ROW_BLOCK, :-1].mT) + level)
                result[gene] += counts.mean(dim=0).sum(dim=1, dtype=torch.float64)
        return result * parts.share

    def depth(self, hidden: Tensor) -> Tensor:
        """Mean over states: see :meth:`Ensemble.depth`."""
        return hidden[..., -1].exp().mean(dim=0)

    def embedding(self, hidden: Tensor) -> Tensor:
        """(n, 32): relative expression of all genes, by its principal axes: see :func:`relative_axes`.

        Factors are averaged over the states, in each of which they mean the same. Clusters agree with known regions
        about as well as by principal components of predicted composition, for which all genes would have to be read.
        By the factors as they are, or with depth left in, as many clusters as regions agree as well, but more clusters
        fall apart on one demo of two (docs/benchmarks.md, Clusters).
        """
        factors = hidden[..., :-1].mean(dim=0)
        result = factors.new_zeros(len(factors), FACTORS)
        torch.matmul(factors, self._axes, out=result[:, : self._axes.shape[1]])
        return result

    def task_bytes(self, n_superpixels: int, n_genes: int) -> int:
        """Features, places, hidden layer and results of the tile; the values of one block; the ensemble itself."""
        n_features, n_outputs = self.parts.linear.shape[1:]
        tile = n_superpixels * 4 * (n_features + 2 + 2 * n_genes + self.n_states * n_outputs + 2)
        rows = self.n_states * (2 * RANDOM_FEATURES + 3 * n_outputs) + 2 * n_features + 2 * len(self.parts.anchors)
        block = 4 * ROW_BLOCK * max(rows, 4 * GENE_BLOCK * self.n_states)
        return tile + block + 4 * sum(tensor.numel() for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All numbers, by the names of :class:`AdditiveTensors`."""
        return {field.name: getattr(self.parts, field.name) for field in fields(AdditiveTensors)}


def positive_counts(log_counts: Tensor) -> Tensor:
    """``expm1``, bent over ``2 ln(2) / SHARPNESS`` so that it ends at 0 and never below; overwrites its argument."""
    return F.softplus(log_counts, beta=SHARPNESS).expm1_()


def relative_axes(loading: Tensor) -> Tensor:
    """What takes factors to an embedding whose distances are those of relative expression.

    ``log1p`` of counts is ``factors @ loading + level``. Less its mean over the genes, which holds the depth, it is the
    centred log-ratio of composition (Aitchison 1982; but for the 1 that is added to counts). The distance of two
    superpixels in it, the root mean square over the genes, is that of ``factors @ axes``: no map of a gene is needed.

    Parameters
    ----------
    loading
        (factor, gene).

    Returns
    -------
    axes
        (factor, component) float32, as many components as factors, those that can vary most first. Each has the sign
        that makes its largest entry positive.
    """
    centred = loading.double().cpu()
    centred = centred - centred.mean(dim=1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred @ centred.T / centred.shape[1])
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    axes: Tensor = vectors * largest.sign() * values.clamp_min(0).sqrt()
    return axes.flip(1).to(loading).contiguous()


def from_parts(
    genes: tuple[str, ...], n_states: int, tensors: dict[str, Tensor], settings: dict[str, Any]
) -> AdditiveEnsemble:
    """Build an ensemble from what :meth:`AdditiveEnsemble.tensors` gave.

    Raises
    ------
    ValueError
        If a tensor is missing, or shapes do not belong together.
    """
    if settings:
        raise ValueError(f"the default recipe has no settings, found {sorted(settings)}")
    features, outputs = tensors["linear"].shape[1:]
    anchors = len(tensors["anchors"])
    expect_tensors(
        tensors,
        {
            "centre": (features,),
            "scale": (features,),
            "frequencies": (n_states, features, RANDOM_FEATURES),
            "phase": (n_states, 1, RANDOM_FEATURES),
            "anchors": (anchors, 2),
            "constant": (n_states, 1, outputs),
            "linear": (n_states, features, outputs),
            "waves": (n_states, RANDOM_FEATURES, outputs),
            "place": (n_states, anchors, outputs),
            "loading": (outputs - 1, len(genes)),
            "level": (len(genes),),
            "share": (len(genes),),
        },
    )
    return AdditiveEnsemble(genes, AdditiveTensors(**tensors))

"""The published recipe (method, section 4): its network, several initialisations at once; the mean, Adam."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from iscale.engine.machine import all_cores
from iscale.engine.progress import tell
from iscale.model.data import Epoch, OnEpoch, RowFile, SharedGenes, TrainingData
from iscale.model.discs import blocks_of
from iscale.model.ensemble import (
    GENE_BLOCK,
    ROW_BLOCK,
    Ensemble,
    deviation_over_states,
    expect_tensors,
    expression_blocks,
)
from iscale.model.sizes import HIDDEN_LAYERS, HIDDEN_WIDTH, SIZES, batch_size

REFIT = False
"""As published: what is scored is what is kept."""
EPOCHS = 1000
LEARNING_RATE = 1e-4

LEAK = 0.1
FLOOR = 0.01
"""alpha of the ELU, and the constant added after it: outputs stay above 0."""

PREDICT_ROWS = 1024
"""Superpixels that are predicted at a time, so that the activations of a state stay in cache."""


def layer_views(flat: Tensor, n_states: int, widths: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Cut a flat tensor into weights (state, in, out) and biases (state, 1, out) per layer, as views."""
    shapes = [(n_states, a, b) for a, b in pairwise(widths)] + [(n_states, 1, b) for b in widths[1:]]
    pieces = torch.split(flat, [a * b * c for a, b, c in shapes])
    views = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    return views[: len(widths) - 1], views[len(widths) - 1 :]


class StackedNetworks:
    """``n_states`` independent networks of the same shape.

    Each is ``HIDDEN_LAYERS`` linear layers of ``HIDDEN_WIDTH``, each followed by LeakyReLU(0.1), then linear and
    ``ELU(alpha=0.01) + 0.01`` (method, section 4). All parameters are one float32 tensor, ``flat``, of which
    ``weights`` and ``biases`` are views.
    """

    def __init__(self, n_states: int, n_features: int, n_outputs: int, device: torch.device) -> None:
        self.n_states = n_states
        self.widths = (n_features, *[HIDDEN_WIDTH] * HIDDEN_LAYERS, n_outputs)
        size = sum((a + 1) * b for a, b in pairwise(self.widths))
        self.flat = torch.zeros(n_states * size, device=device)
        self.weights, self.biases = layer_views(self.flat, n_states, self.widths)

    @property
    def groups(self) -> list[slice]:
        """States that are computed together: one on a CPU, all elsewhere."""
        size = 1 if self.flat.device.type == "cpu" else self.n_states
        return [slice(s, s + size) for s in range(0, self.n_states, size)]

    def initialise(self, seed: int) -> None:
        """Draw all parameters uniformly within 1 / sqrt(inputs), as torch's linear layers do by default.

        State ``k`` depends on ``seed`` and ``k`` only, not on how many states there are, nor on the device.
        """
        for state in range(self.n_states):
            generator = np.random.default_rng([seed, 1, state])
            for weight, bias in zip(self.weights, self.biases, strict=True):
                bound = weight.shape[1] ** -0.5
                for values in (weight[state], bias[state]):
                    drawn = generator.random(values.shape, dtype=np.float32) * (2 * bound) - bound
                    values.copy_(torch.from_numpy(drawn.astype(np.float32)))

    def hidden(self, features: Tensor) -> Tensor:
        """Last hidden layer of every state, (state, n, hidden), of (n, feature) float32."""
        n = len(features)
        out = features.new_empty(self.n_states, n, HIDDEN_WIDTH)
        for a in range(0, n, PREDICT_ROWS):
            at = slice(a, min(a + PREDICT_ROWS, n))
            for group in self.groups:
                h = features[at].expand(group.stop - group.start, -1, -1)
                for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                    h = F.leaky_relu_(torch.baddbmm(bias[group], h, weight[group]), LEAK)
                out[group, at] = h
        return out

    def outputs(self, hidden: Tensor, columns: slice) -> Tensor:
        """Some outputs (state, output, n) of every state from its last hidden layer (state, n, hidden).

        ``ELU(z) + 0.01`` is computed as ``max(z, 0) + 0.01 exp(min(z, 0))``, which is the same and keeps its relative
        precision near 0.
        """
        weight = self.weights[-1][:, :, columns].transpose(1, 2)
        bias = self.biases[-1][:, :, columns].transpose(1, 2)
        z = torch.baddbmm(bias, weight, hidden.transpose(1, 2))
        low = z.clamp(max=0).exp_()
        return z.clamp_(min=0).add_(low, alpha=FLOOR)


class DiscGradients:
    """Loss and gradients of stacked networks for batches of discs of at most ``max_rows``: fills ``flat.grad``.

    Buffers are allocated once.
    """

    def __init__(self, networks: StackedNetworks, max_rows: int) -> None:
        self.networks = networks
        flat, widths = networks.flat, networks.widths
        flat.grad = torch.zeros_like(flat)
        self.weight_grads, self.bias_grads = layer_views(flat.grad, networks.n_states, widths)
        size = networks.groups[0].stop
        self.features = flat.new_empty(max_rows, widths[0])
        self.layers = [flat.new_empty(size, max_rows, width) for width in widths[1:]]
        self.layer_grads = [flat.new_empty(size, max_rows, HIDDEN_WIDTH) for _ in range(2)]

    def __call__(self, features: Tensor | RowFile, rows: Tensor, pooling: Tensor, target: Tensor) -> Tensor:
        """Fill the gradients of the mean over spots and outputs of the squared error; (state,) losses.

        Of the ``rows`` (row,) of all features (all rows, feature), averaged over discs by ``pooling`` (spot, row), as
        :meth:`TrainingData.disc_mean` gives them, and the scaled expression (spot, output) that they should come to.
        """
        x = self.features[: len(rows)]
        if isinstance(features, Tensor):
            torch.index_select(features, 0, rows, out=x)
        else:
            x.copy_(features[rows])
        losses = []
        for group in self.networks.groups:
            activations = self._forward(group, x)
            error = torch.matmul(pooling, activations[-1]).add_(FLOOR).sub_(target)
            losses.append(error.square().mean(dim=(1, 2)))
            self._backward(group, activations, torch.matmul(pooling.T, error.mul_(2 / target.numel())))
        return torch.cat(losses)

    def _forward(self, group: slice, x: Tensor) -> list[Tensor]:
        """Input and every layer's output (state of the group, row, width), without the last constant."""
        activations = [x.expand(group.stop - group.start, -1, -1)]
        last = len(self.layers) - 1
        for k, (weight, bias) in enumerate(zip(self.networks.weights, self.networks.biases, strict=True)):
            out = self.layers[k][:, : len(x)]
            torch.baddbmm(bias[group], activations[-1], weight[group], out=out)
            activations.append(F.leaky_relu_(out, LEAK) if k < last else F.elu_(out, FLOOR))
        return activations

    def _backward(self, group: slice, activations: list[Tensor], grad: Tensor) -> None:
        """Gradients of all layers, from that of the last layer's output; ``grad`` is overwritten."""
        aten = torch.ops.aten  # the derivatives of both activations can be had from their results, in place
        aten.elu_backward.grad_input(grad, FLOOR, 1, 1, True, activations[-1], grad_input=grad)
        for k in reversed(range(len(self.layers))):
            below = activations[k]
            torch.bmm(below.transpose(1, 2), grad, out=self.weight_grads[k][group])
            torch.sum(grad, 1, keepdim=True, out=self.bias_grads[k][group])
            if k > 0:
                grad_below = self.layer_grads[k % 2][:, : below.shape[1]]
                torch.bmm(grad, self.networks.weights[k][group].transpose(1, 2), out=grad_below)
                grad = aten.leaky_relu_backward.grad_input(grad_below, below, LEAK, True, grad_input=grad_below)


@dataclass(frozen=True)
class DiscScale:
    """Min-max scaling of counts per superpixel, per output.

    The method scales a spot's counts and gives a superpixel the share 1 / (superpixels of a disc) of them. Here the
    share is taken first, which is the same for spots of one radius and stays right where radii differ. As published,
    the share is that of the full disc, also for a spot of whose disc a part lies off tissue.

    Attributes
    ----------
    low, span
        (output,) float32: least value over the spots, and largest less least.
    """

    low: Tensor
    span: Tensor

    @classmethod
    def of(cls, blocks: Iterable[Tensor]) -> DiscScale:
        """Scaling of (spot, output) values, given as blocks of spots."""
        ends = [(block.amin(dim=0), block.amax(dim=0)) for block in blocks]
        low, high = (torch.stack(end) for end in zip(*ends, strict=True))
        return cls(low.amin(dim=0), high.amax(dim=0) - low.amin(dim=0))

    def scale(self, per_superpixel: Tensor) -> Tensor:
        """Values in [0, 1]; 0 where an output is the same in all spots."""
        return (per_superpixel - self.low) / torch.where(self.span > 0, self.span, 1)


class PublishedEnsemble(Ensemble):
    """States of the published network; the estimate is their median."""

    recipe = "published"

    def __init__(self, genes: tuple[str, ...], networks: StackedNetworks, scale: DiscScale) -> None:
        self.genes = genes
        self.networks = networks
        self.scale = scale
        self.n_states = networks.n_states

    def hidden(self, features: Tensor, xy_um: Tensor) -> Tensor:
        """Last hidden layer of every state, (state, n, 256); the method does not look at positions."""
        return self.networks.hidden(features)

    def expression(self, hidden: Tensor, genes: slice) -> tuple[Tensor, Tensor]:
        """Median and standard deviation over states: see :meth:`Ensemble.expression`."""
        start, stop, _ = genes.indices(len(self.genes))
        return self._estimate(hidden, start, stop)

    def depth(self, hidden: Tensor) -> Tensor:
        """Median over states of the output trained on the counts of all genes: see :meth:`Ensemble.depth`."""
        return self._estimate(hidden, len(self.genes), len(self.genes) + 1)[0][0]

    def embedding(self, hidden: Tensor) -> Tensor:
        """(n, 256): median over states of the last hidden layer, as published: see :meth:`Ensemble.embedding`.

        Units of states that were initialised independently do not correspond, so a component is no one thing.
        """
        blocks = (hidden[:, start : start + ROW_BLOCK] for start in range(0, hidden.shape[1], ROW_BLOCK))
        return torch.cat([median_over_states(block) for block in blocks])

    def _estimate(self, hidden: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        n = hidden.shape[1]
        estimate, spread = hidden.new_empty(2, stop - start, n).unbind()
        for outputs, rows in expression_blocks(start, stop, n):
            at = slice(outputs.start - start, outputs.stop - start), rows
            span, low = self.scale.span[outputs, None], self.scale.low[outputs, None]
            values = self.networks.outputs(hidden[:, rows], outputs)
            middle = median_over_states(values)
            torch.mul(deviation_over_states(values, middle), span, out=spread[at])
            torch.addcmul(low, middle, span, out=estimate[at])
        return estimate, spread

    def task_bytes(self, n_superpixels: int, n_genes: int) -> int:
        """Features, hidden layers and results of the tile, and the values of one block."""
        n_features = self.networks.widths[0]
        per_superpixel = 4 * (n_features + 2 * n_genes) + SIZES["published"].hidden_bytes(self.n_states)
        hidden_block = 3 * PREDICT_ROWS * max(HIDDEN_WIDTH, n_features) * self.n_states
        gene_block = 4 * GENE_BLOCK * ROW_BLOCK * self.n_states
        return n_superpixels * per_superpixel + 4 * (max(hidden_block, gene_block) + self.networks.flat.numel())

    def tensors(self) -> dict[str, Tensor]:
        """Weights (state, in, out) and biases (state, 1, out) per layer, and the scaling."""
        tensors = {"scale.low": self.scale.low, "scale.span": self.scale.span}
        for k, (weight, bias) in enumerate(zip(self.networks.weights, self.networks.biases, strict=True)):
            tensors |= {f"layers.{k}.weight": weight, f"layers.{k}.bias": bias}
        return tensors


def median_over_states(values: Tensor) -> Tensor:
    """Median along the first axis, as numpy's; NaN where a state is NaN.

    Elementwise minima and maxima, since ``torch.median`` is some 20 times slower along a short axis. Each pass takes
    the largest of the values left to their end; half of the passes of a full sort suffice.
    """
    rows = list(values.unbind())
    middle = len(rows) // 2
    needed = middle if len(rows) % 2 else middle - 1
    for last in range(len(rows) - 1, needed - 1, -1):
        for k in range(last):
            rows[k], rows[k + 1] = torch.minimum(rows[k], rows[k + 1]), torch.maximum(rows[k], rows[k + 1])
    return rows[middle] if len(rows) % 2 else (rows[needed] + rows[middle]) / 2


def train(
    data: TrainingData,
    *,
    seed: int,
    n_states: int,
    max_epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[PublishedEnsemble, list[Epoch]]:
    """Train as published: Adam, learning rate 1e-4, batches of min(128, spots / 16), 1000 epochs.

    All states share the order in which spots are drawn (published: each state shuffles for itself), so that a batch's
    features are gathered once. Held-out spots enter neither the scaling nor the weights; they do not stop the training.
    See :class:`iscale.model.ensemble.Recipe`: the seed fixes the initial weights and the order of spots, and a loss is
    the mean over spots and states.
    """
    scale = DiscScale.of(per_superpixel(data, at) for at in blocks_of(data.starts, data.train_spots))
    networks = StackedNetworks(n_states, data.features.shape[1], len(data.genes) + 1, data.features.device)
    networks.initialise(seed)
    with all_cores(), torch.no_grad():
        history = _run_epochs(networks, data, scale, seed=seed, epochs=max_epochs or EPOCHS, on_epoch=on_epoch)
    return PublishedEnsemble(data.genes, networks, scale), history


def per_superpixel(data: TrainingData, spots: NDArray[np.int64]) -> Tensor:
    """(spot, gene + 1): counts of spots, and last their depth, per superpixel of the full disc."""
    return torch.cat([data.counts[spots], data.depth[spots, None]], dim=1).div_(data.disc_size[spots, None])


def _run_epochs(
    networks: StackedNetworks, data: TrainingData, scale: DiscScale, *, seed: int, epochs: int, on_epoch: OnEpoch | None
) -> list[Epoch]:
    spots, shuffle = data.train_spots, np.random.default_rng([seed, 2])
    batch = batch_size(len(spots))
    rows_per_spot = np.sort(np.diff(data.starts))
    gradients = DiscGradients(networks, max_rows=int(rows_per_spot[-batch:].sum()))
    optimizer = torch.optim.Adam([networks.flat], lr=LEARNING_RATE, fused=True)
    history: list[Epoch] = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        order = shuffle.permutation(spots)
        for members in np.split(order, range(batch, len(order), batch)):
            rows, pooling = data.disc_mean(members)
            losses = gradients(data.features, rows, pooling, scale.scale(per_superpixel(data, members)))
            optimizer.step()
            total += float(losses.mean()) * len(members)
        held_out = _loss(networks, data, scale, data.held_out_spots)
        history.append({"epoch": epoch, "train_loss": total / len(spots), "held_out_loss": held_out})
        tell(epoch, epochs)
        if on_epoch:
            on_epoch(history[-1])
    return history


def _loss(networks: StackedNetworks, data: TrainingData, scale: DiscScale, spots: NDArray[np.int64]) -> float:
    """Mean squared error over spots, outputs and states; NaN without spots."""
    total = 0.0
    for members in blocks_of(data.starts, spots, most_rows=PREDICT_ROWS):
        target = scale.scale(per_superpixel(data, members))
        rows, pooling = data.disc_mean(members)
        hidden = networks.hidden(data.features[rows])
        for a in range(0, target.shape[1], GENE_BLOCK):
            outputs = slice(a, min(a + GENE_BLOCK, target.shape[1]))
            error = torch.matmul(networks.outputs(hidden, outputs), pooling.T).sub_(target[:, outputs].T)
            total += float(error.square_().sum()) / error.shape[0] / target.shape[1]
    return total / len(spots) if len(spots) else float("nan")


def every_gene(ensemble: PublishedEnsemble, data: TrainingData, shared: SharedGenes) -> None:
    """None: every gene has weights of its own in the last layer, which only training gives."""
    del ensemble, data, shared


def from_tensors(
    genes: tuple[str, ...], n_states: int, tensors: dict[str, Tensor], settings: dict[str, Any]
) -> PublishedEnsemble:
    """Build an ensemble from what :meth:`PublishedEnsemble.tensors` gave, if that fits the network for these genes."""
    if settings:
        raise ValueError(f"the published recipe has no settings, found {', '.join(sorted(settings))}")
    n_features, n_outputs = tensors["layers.0.weight"].shape[1], len(genes) + 1
    networks = StackedNetworks(n_states, n_features, n_outputs, tensors["layers.0.weight"].device)
    shapes: dict[str, tuple[int, ...]] = {"scale.low": (n_outputs,), "scale.span": (n_outputs,)}
    for k, (a, b) in enumerate(pairwise(networks.widths)):
        shapes |= {f"layers.{k}.weight": (n_states, a, b), f"layers.{k}.bias": (n_states, 1, b)}
    expect_tensors(tensors, shapes)
    for k, (weight, bias) in enumerate(zip(networks.weights, networks.biases, strict=True)):
        weight.copy_(tensors[f"layers.{k}.weight"])
        bias.copy_(tensors[f"layers.{k}.bias"])
    return PublishedEnsemble(genes, networks, DiscScale(tensors["scale.low"], tensors["scale.span"]))

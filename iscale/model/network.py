"""The published network, several initialisations of it as one batched model, with its gradients written out.

Written out rather than left to autograd because a fit is bound by the rate of matrix products: buffers are allocated
once, elementwise steps work in place, the gradient of the input is never formed, and on a CPU one state at a time is
taken through all layers, so that its activations (1 MB a layer) stay in cache. On other devices all states go at once.
The same code does both: a *group* is a slice of states.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.model.row_file import RowFile
from iscale.model.sizes import HIDDEN_LAYERS, HIDDEN_WIDTH

LEAK = 0.1
FLOOR = 0.01
"""alpha of the ELU, and the constant added after it: outputs stay above 0."""

PREDICT_ROWS = 1024
"""Superpixels that are predicted at a time, so that the activations of a state stay in cache."""


def layer_views(flat: Tensor, n_states: int, widths: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Cut a flat tensor into weights (state, in, out) and biases (state, 1, out) per layer, as views."""
    shapes = [(n_states, a, b) for a, b in pairwise(widths)] + [(n_states, 1, b) for b in widths[1:]]
    parts = torch.split(flat, [a * b * c for a, b, c in shapes])
    views = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return views[: len(widths) - 1], views[len(widths) - 1 :]


class StackedNetworks:
    """``n_states`` independent networks of the same shape.

    Each is ``HIDDEN_LAYERS`` linear layers of ``HIDDEN_WIDTH``, each followed by LeakyReLU(0.1), then linear and
    ``ELU(alpha=0.01) + 0.01`` (method, section 4).

    Parameters
    ----------
    n_states, n_features, n_outputs
        Sizes.
    device
        Where the weights lie.

    Attributes
    ----------
    flat
        All parameters, one float32 tensor; ``weights`` and ``biases`` are views of it.
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
                for part in (weight[state], bias[state]):
                    drawn = generator.random(part.shape, dtype=np.float32) * (2 * bound) - bound
                    part.copy_(torch.from_numpy(drawn.astype(np.float32)))

    def hidden(self, features: Tensor) -> Tensor:
        """Last hidden layer of every state.

        Parameters
        ----------
        features
            (n, feature) float32.

        Returns
        -------
        Tensor
            (state, n, hidden).
        """
        n = len(features)
        out = features.new_empty(self.n_states, n, HIDDEN_WIDTH)
        for at in _chunks(n):
            for group in self.groups:
                h = features[at].expand(group.stop - group.start, -1, -1)
                for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
                    h = F.leaky_relu_(torch.baddbmm(bias[group], h, weight[group]), LEAK)
                out[group, at] = h
        return out

    def outputs(self, hidden: Tensor, columns: slice) -> Tensor:
        """Outputs of every state from its last hidden layer.

        Parameters
        ----------
        hidden
            (state, n, hidden).
        columns
            Which outputs.

        Returns
        -------
        Tensor
            (state, output, n). ``ELU(z) + 0.01`` is computed as ``max(z, 0) + 0.01 exp(min(z, 0))``, which is the same
            and keeps its relative precision near 0.
        """
        weight = self.weights[-1][:, :, columns].transpose(1, 2)
        bias = self.biases[-1][:, :, columns].transpose(1, 2)
        z = torch.baddbmm(bias, weight, hidden.transpose(1, 2))
        low = z.clamp(max=0).exp_()
        return z.clamp_(min=0).add_(low, alpha=FLOOR)


def _chunks(n: int) -> list[slice]:
    return [slice(a, min(a + PREDICT_ROWS, n)) for a in range(0, n, PREDICT_ROWS)]


class DiscGradients:
    """Loss and gradients of stacked networks for batches of discs, in buffers allocated once.

    Parameters
    ----------
    networks
        Whose ``flat.grad`` is filled.
    max_rows
        Most rows a batch may have.
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
        """Fill the gradients of the mean over spots and outputs of the squared error; states add up.

        Parameters
        ----------
        features
            (all rows, feature), of which the batch takes ``rows``.
        rows
            (row,) indices.
        pooling
            (spot, row): the mean over a disc as a matrix, 1 / (rows of the spot) or 0.
        target
            (spot, output) scaled expression.

        Returns
        -------
        Tensor
            (state,) losses.
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

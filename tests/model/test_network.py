from __future__ import annotations

import numpy as np
import torch
from torch import nn

from iscale.model.published import DiscGradients, StackedNetworks

CPU = torch.device("cpu")


def test_prediction_is_that_of_plain_modules(as_modules) -> None:
    networks = StackedNetworks(3, 7, 4, CPU)
    networks.initialise(5)
    x = torch.randn(2500, 7)
    outputs = networks.outputs(networks.hidden(x), slice(1, 3))
    assert outputs.shape == (3, 2, 2500)
    with torch.no_grad():
        for state, module in enumerate(as_modules(networks)):
            torch.testing.assert_close(outputs[state].T, module(x)[:, 1:3] + 0.01, rtol=1e-5, atol=1e-7)


def test_gradients_are_those_of_autograd_for_ragged_discs(as_modules) -> None:
    networks = StackedNetworks(3, 7, 4, CPU)
    networks.initialise(5)
    x, target = torch.randn(20, 7), torch.rand(3, 4)
    rows, owner = torch.tensor([3, 4, 5, 11, 0, 19]), torch.tensor([0, 0, 0, 1, 2, 2])
    pooling = torch.zeros(3, 6)
    pooling[owner, torch.arange(6)] = 1 / torch.tensor([3.0, 1.0, 2.0])[owner]
    gradients = DiscGradients(networks, max_rows=9)
    losses = gradients(x, rows, pooling, target)
    for state, module in enumerate(as_modules(networks)):
        y = module(x[rows]) + 0.01
        means = torch.stack([y[owner == spot].mean(dim=0) for spot in range(3)])
        loss = nn.functional.mse_loss(means, target)
        loss.backward()
        torch.testing.assert_close(losses[state], loss.detach())
        for k, layer in enumerate(m for m in module if isinstance(m, nn.Linear)):
            assert layer.weight.grad is not None
            assert layer.bias.grad is not None
            torch.testing.assert_close(gradients.weight_grads[k][state].T, layer.weight.grad, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(gradients.bias_grads[k][state, 0], layer.bias.grad, rtol=1e-4, atol=1e-7)


def test_all_states_at_once_give_what_one_at_a_time_gives(monkeypatch) -> None:
    """The way taken on other devices than the CPU."""
    x, target = torch.randn(12, 7), torch.rand(4, 5)
    pooling = torch.kron(torch.eye(4), torch.full((1, 3), 1 / 3))
    grads, hidden = [], []
    for groups in ([slice(0, 1), slice(1, 2), slice(2, 3)], [slice(0, 3)]):
        monkeypatch.setattr(StackedNetworks, "groups", groups)
        networks = StackedNetworks(3, 7, 5, CPU)
        networks.initialise(0)
        DiscGradients(networks, max_rows=15)(x, torch.arange(12), pooling, target)
        assert networks.flat.grad is not None
        grads.append(networks.flat.grad.clone())
        hidden.append(networks.hidden(x))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(hidden[0], hidden[1], rtol=1e-5, atol=1e-7)


def test_a_state_does_not_depend_on_how_many_there_are() -> None:
    two, four = StackedNetworks(2, 6, 3, CPU), StackedNetworks(4, 6, 3, CPU)
    two.initialise(9)
    four.initialise(9)
    for a, b in zip(two.weights, four.weights, strict=True):
        assert torch.equal(a, b[:2])
        assert not torch.equal(b[0], b[1])
        assert float(a.abs().max()) <= a.shape[1] ** -0.5


def test_outputs_keep_relative_precision_near_zero() -> None:
    networks = StackedNetworks(1, 2, 1, CPU)
    networks.biases[-1].fill_(-15.0)
    outputs = networks.outputs(networks.hidden(torch.zeros(1, 2)), slice(0, 1))
    np.testing.assert_allclose(outputs.numpy(), 0.01 * np.exp(-15.0), rtol=1e-5)

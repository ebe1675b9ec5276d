from __future__ import annotations

import dataclasses

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from iscale.engine.progress import listening
from iscale.geometry import Region
from iscale.model.data import TrainingData, training_data
from iscale.model.ensemble import deviation_over_states, load_ensemble
from iscale.model.fit import fit, predict_spots
from iscale.model.published import (
    DiscGradients,
    DiscScale,
    PublishedEnsemble,
    StackedNetworks,
    median_over_states,
    train,
)
from iscale.model.sizes import SIZES


def data_of(problem, seed: int = 0) -> TrainingData:
    return training_data(problem.spots, problem.discs, **problem.frame, seed=seed, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(problem):
    """Thirty epochs: the published recipe overfits so few spots when it trains for longer."""
    return fit(problem.spots, problem.discs, **problem.frame, recipe="published", seed=0, max_epochs=30)


@pytest.mark.parametrize("n_states", [1, 2, 3, 4, 5, 6, 7])
def test_median_equals_numpys(n_states: int) -> None:
    values = torch.randn(n_states, 30, 40)
    np.testing.assert_array_equal(median_over_states(values).numpy(), np.median(values.numpy(), axis=0))


def test_median_of_a_missing_value_is_missing() -> None:
    values = torch.randn(5, 3)
    values[2, 1] = torch.nan
    assert torch.isnan(median_over_states(values)).tolist() == [False, True, False]


def test_deviation_is_numpys_even_far_from_zero() -> None:
    values = 1000 + torch.randn(5, 100)
    expected = values.double().numpy().std(axis=0)
    centre = median_over_states(values)
    np.testing.assert_allclose(deviation_over_states(values, centre).numpy(), expected, rtol=1e-4)


def test_loss_falls_and_held_out_spots_are_predicted(trained, problem) -> None:
    losses = [line["train_loss"] for line in trained.history]
    assert [line["epoch"] for line in trained.history] == list(range(1, 31))
    assert losses[-1] < 0.2 * losses[0]
    assert trained.history[-1]["held_out_loss"] < 0.5 * trained.history[0]["held_out_loss"]
    assert trained.held_out.sum() == 16
    assert trained.held_out_scores["counts"].shape == (4,)
    assert trained.held_out_scores["counts"].min() > 0.8


def test_expression_of_superpixels_is_recovered_from_discs(trained, problem) -> None:
    """Spots of two radii, some cut by the border or a hole: what is learnt is per superpixel."""
    x = torch.from_numpy(problem.features)
    ensemble = trained.ensemble
    estimate, spread = ensemble.expression(ensemble.hidden(x, x[:, :2]), slice(0, 4))
    for gene in range(4):
        assert np.corrcoef(estimate[gene], problem.truth[:, gene])[0, 1] > 0.6
    assert bool((estimate > 0).all())
    assert bool((spread >= 0).all())
    depth = ensemble.depth(ensemble.hidden(x, x[:, :2]))
    assert np.corrcoef(depth, problem.truth.sum(axis=1))[0, 1] > 0.6


def test_sums_over_discs_are_expected_counts(trained, problem) -> None:
    data = data_of(problem)
    full = np.flatnonzero(np.diff(data.starts) == data.disc_size.numpy())
    predicted, depth = predict_spots(trained.ensemble, data, full)
    np.testing.assert_allclose(predicted.sum(), problem.spots.counts[full].sum(), rtol=0.05)
    np.testing.assert_allclose(depth.sum(), problem.spots.depth[full].sum(), rtol=0.05)


@pytest.mark.parametrize("cores", [1, 2])
def test_same_bytes_whatever_the_threads_outside(problem, tmp_path, monkeypatch, cores) -> None:
    monkeypatch.setattr("iscale.engine.machine.available_cores", lambda: cores)
    before, files = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            result = fit(problem.spots, problem.discs, **problem.frame, recipe="published", seed=3, max_epochs=2)
            folder = tmp_path / f"{len(files)}"
            result.ensemble.save(folder)
            files.append([(folder / name).read_bytes() for name in ("ensemble.safetensors", "ensemble.json")])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert files[0] == files[1] == files[2]


def test_another_seed_gives_another_model(problem) -> None:
    a, b = (train(data_of(problem), seed=seed, n_states=1, max_epochs=1)[0] for seed in (0, 1))
    assert not torch.equal(a.networks.flat, b.networks.flat)


def test_training_is_that_of_plain_torch(problem, as_modules) -> None:
    """A state is the network of the paper, as autograd and torch's Adam train it on the same batches."""
    data = data_of(problem)
    ensemble, _ = train(data, seed=0, n_states=2, max_epochs=2)
    start = StackedNetworks(2, 12, 5, torch.device("cpu"))
    start.initialise(0)
    module = as_modules(start)[1]
    spots = data.train_spots
    share = torch.cat([data.counts, data.depth[:, None]], dim=1) / data.disc_size[:, None]
    low, high = share[spots].amin(dim=0), share[spots].amax(dim=0)
    optimizer, shuffle = torch.optim.Adam(module.parameters(), lr=1e-4), np.random.default_rng([0, 2])
    for _ in range(2):
        for batch in torch.from_numpy(shuffle.permutation(spots)).split(len(spots) // 16):
            means = [module(data.features[data.starts[s] : data.starts[s + 1]]).mean(dim=0) + 0.01 for s in batch]
            loss = nn.functional.mse_loss(torch.stack(means), ((share - low) / (high - low))[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for weight, layer in zip(ensemble.networks.weights, module[::2], strict=True):
        torch.testing.assert_close(weight[1].T, layer.weight.detach(), rtol=1e-4, atol=3e-6)


def test_training_tells_how_far_it_is(problem, monkeypatch) -> None:
    monkeypatch.setattr("iscale.engine.progress.SECONDS_BETWEEN", 0.0)
    heard: list[float] = []
    with listening(Region(0, 1, 0, 1), lambda region, fraction: heard.append(fraction)):
        train(data_of(problem), seed=0, n_states=1, max_epochs=4)
    assert heard == [0.25, 0.5, 0.75, 1]


def test_values_do_not_depend_on_the_tile(trained, problem) -> None:
    ensemble, x = trained.ensemble, torch.from_numpy(problem.features)
    hidden = ensemble.hidden(x, x[:, :2])
    whole, spread = ensemble.expression(hidden, slice(0, 4))
    for at, genes in ((slice(0, 1), slice(0, 4)), (slice(3, 1500), slice(1, 2)), (slice(1300, 1301), slice(3, 4))):
        part, part_spread = ensemble.expression(ensemble.hidden(x[at], x[at, :2]), genes)
        torch.testing.assert_close(part, whole[genes, at], rtol=1e-5, atol=0)
        torch.testing.assert_close(part_spread, spread[genes, at], rtol=1e-3, atol=1e-5 * float(whole.mean()))


def test_hidden_takes_the_bytes_that_were_said_beforehand(trained) -> None:
    hidden = trained.ensemble.hidden(torch.zeros(10, 12), torch.zeros(10, 2))
    assert hidden.numel() * 4 == 10 * SIZES["published"].hidden_bytes()


def test_prediction_stays_under_its_projection(tmp_path) -> None:
    genes = tuple(f"G{k}" for k in range(200))
    networks = StackedNetworks(5, 579, 201, torch.device("cpu"))
    networks.initialise(0)
    ensemble = PublishedEnsemble(genes, networks, DiscScale(torch.zeros(201), torch.ones(201)))
    process = psutil.Process()
    before = process.memory_info().rss
    x = torch.rand(20_000, 579)
    estimate, spread = ensemble.expression(ensemble.hidden(x, x[:, :2]), slice(0, 200))
    used = process.memory_info().rss - before
    assert used < ensemble.task_bytes(20_000, 200) * 1.1
    assert estimate.shape == spread.shape == (200, 20_000)


def test_a_gene_that_never_varies_is_predicted_at_its_share(problem) -> None:
    counts = problem.spots.counts.copy()
    size = data_of(problem).disc_size.numpy()
    counts[:, 2] = 3 * size
    spots = dataclasses.replace(problem.spots, counts=counts)
    result = fit(spots, problem.discs, **problem.frame, recipe="published", max_epochs=1)
    x = torch.from_numpy(problem.features[:5])
    estimate, spread = result.ensemble.expression(result.ensemble.hidden(x, x[:, :2]), slice(2, 3))
    assert estimate.tolist() == [[3.0] * 5]
    assert spread.tolist() == [[0.0] * 5]


def test_saved_and_loaded_predict_the_same_bits(trained, problem, tmp_path) -> None:
    trained.ensemble.save(tmp_path / "model")
    loaded = load_ensemble(tmp_path / "model")
    assert isinstance(loaded, PublishedEnsemble)
    assert (loaded.genes, loaded.n_states) == (trained.ensemble.genes, 5)
    x = torch.from_numpy(problem.features)
    for a, b in zip(
        trained.ensemble.expression(trained.ensemble.hidden(x, x[:, :2]), slice(None)),
        loaded.expression(loaded.hidden(x, x[:, :2]), slice(None)),
        strict=True,
    ):
        assert torch.equal(a, b)


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

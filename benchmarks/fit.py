"""How long a fit takes, beside the plain way of the paper and beside the machine's rate of matrix products.

``make bench-fit`` measures, on synthetic spots of the size that the paper's setting has on an ST section (347
spots, discs of 57 superpixels, 579 features, 100 genes, 5 states):

- *plain*: five loops over plain torch modules with autograd and Adam, as published;
- *published*: ``--recipe published``, the same network and loss as one batched model;
- *default*: the default recipe, from start to end;
- *predict*: superpixels per second of the published ensemble.

Operations are those of the matrix products that are needed: forward, gradients of weights, gradients of activations but
not of the input. Each time stands beside the rate of a large product measured just before and after it, and the ratio
is the median over epochs: on a machine that others use, both fall together. ``best`` is the best epoch over the best
rate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from benchmarks.matmul import matmul_rate, seconds
from benchmarks.report import machine, publish, table
from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.engine.machine import all_cores
from iscale.model.data import TrainingData
from iscale.model.discs import disc_offsets
from iscale.model.ensemble import recipe_module
from iscale.model.published import EPOCHS, PublishedEnsemble
from iscale.model.published import train as train_published
from iscale.model.sizes import HIDDEN_LAYERS, HIDDEN_WIDTH

SPOTS, FEATURES, GENES, STATES = 347, 579, 100, 5
RADIUS_UM, SUPERPIXEL_UM = 50.0, 12.0


def synthetic(seed: int = 0) -> tuple[TrainingSpots, DiscFeatures]:
    """Spots whose expression the mean features of their disc determine, with counting noise."""
    rng = np.random.default_rng(seed)
    rows = len(disc_offsets(RADIUS_UM / SUPERPIXEL_UM))
    tissue = rng.normal(size=(SPOTS, 8))
    loading = rng.normal(size=(8, FEATURES)) / 3
    features = np.repeat(tissue, rows, axis=0) @ loading + rng.normal(size=(SPOTS * rows, FEATURES))
    rate = np.exp(1.5 + tissue @ rng.normal(size=(8, GENES)) / 4)
    counts = rng.poisson(rate).astype(np.float32)
    spots = TrainingSpots(
        genes=tuple(f"G{k}" for k in range(GENES)),
        counts=counts,
        depth=3 * counts.sum(axis=1),
        xy_px=rng.uniform(0, 8000, (SPOTS, 2)),
        radius_um=np.full(SPOTS, RADIUS_UM),
        capture=np.zeros(SPOTS, np.int64),
        captures=("A",),
    )
    return spots, DiscFeatures(features.astype(np.float32), np.repeat(np.arange(SPOTS), rows))


def as_data(spots: TrainingSpots, discs: DiscFeatures, *, held_out: int) -> TrainingData:
    """The spots as a recipe gets them, with the first of them held out."""
    rows = len(discs.spot) // SPOTS
    return TrainingData(
        genes=spots.genes,
        features=torch.from_numpy(discs.features),
        starts=np.arange(SPOTS + 1) * rows,
        counts=torch.from_numpy(spots.counts),
        depth=torch.from_numpy(spots.depth),
        xy_um=torch.from_numpy(spots.xy_px.astype(np.float32)),
        disc_size=torch.full((SPOTS,), float(rows)),
        held_out=np.arange(SPOTS) < held_out,
        capture=spots.capture,
    )


def epoch_operations(rows: int, outputs: int) -> float:
    """Operations of the matrix products of one epoch of all states."""
    widths = (FEATURES, *[HIDDEN_WIDTH] * HIDDEN_LAYERS, outputs)
    return 2.0 * rows * STATES * (3 * sum(a * b for a, b in pairwise(widths)) - widths[0] * widths[1])


@dataclass
class EpochClock:
    """Times epochs, with the rate of matrix products measured between them."""

    operations: float
    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    _started: float = 0.0

    def start(self) -> None:
        self.rates.append(matmul_rate(repeats=3))
        self._started = time.perf_counter()

    def lap(self, _: object = None) -> None:
        self.times.append(time.perf_counter() - self._started)
        self.start()

    def row(self, name: str) -> tuple[list[str], float]:
        """A line of the table, of all epochs but the first, and the seconds of 1000 epochs."""
        times = self.times[1:]
        around = [(a + b) / 2 for a, b in pairwise(self.rates[1:])]
        ratio = [self.operations / t / r for t, r in zip(times, around, strict=True)]
        median, best = statistics.median(times), min(times)
        return [
            name,
            f"{EPOCHS * median:.0f} s",
            f"{EPOCHS * best:.0f} s",
            f"{self.operations / median / 1e9:.0f} GFLOP/s",
            f"{statistics.median(ratio):.2f}",
            f"{self.operations / best / max(self.rates):.2f}",
        ], EPOCHS * median


def plain_states(n: int) -> list[nn.Sequential]:
    """Networks of the paper, as anybody would write them."""
    widths = [FEATURES] + [HIDDEN_WIDTH] * HIDDEN_LAYERS
    hidden = [[layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.1))] for _ in range(n)]
    return [nn.Sequential(*layers, nn.Linear(HIDDEN_WIDTH, GENES), nn.ELU(0.01)) for layers in hidden]


def run_plain(data: TrainingData, epochs: int) -> EpochClock:
    """Five loops, one after the other; an epoch here is the sum of an epoch of each state."""
    clock = EpochClock(epoch_operations(len(data.features), GENES))
    x = data.features.view(SPOTS, -1, FEATURES)
    low, high = data.counts.amin(dim=0), data.counts.amax(dim=0)
    y = (data.counts - low) / (high - low)
    states = [(module, torch.optim.Adam(module.parameters(), lr=1e-4)) for module in plain_states(STATES)]
    clock.start()
    for _ in range(epochs):
        for module, optimizer in states:
            for batch in torch.randperm(SPOTS).split(min(128, SPOTS // 16)):
                optimizer.zero_grad()
                nn.functional.mse_loss(module(x[batch]).mean(dim=1) + 0.01, y[batch]).backward()
                optimizer.step()
        clock.lap()
    return clock


def run_published(data: TrainingData, epochs: int) -> tuple[EpochClock, PublishedEnsemble]:
    """Our published recipe, on all spots."""
    clock = EpochClock(epoch_operations(len(data.features), GENES + 1))
    clock.start()
    ensemble, _ = train_published(data, seed=0, n_states=STATES, max_epochs=epochs, on_epoch=clock.lap)
    return clock, ensemble


def run_default(data: TrainingData, published_s: float) -> str:
    """The default recipe, from start to end."""
    rate = matmul_rate()
    start = time.perf_counter()
    _, history = recipe_module("default").train(data, seed=0, n_states=STATES)
    took = time.perf_counter() - start
    return (
        f"The default recipe took {took:.1f} s, start to end ({len(history)} epochs), {published_s / took:.0f} times "
        f"as fast as {EPOCHS} epochs of the published one; matrix products ran at {rate / 1e9:.0f} GFLOP/s before it, "
        f"{matmul_rate() / 1e9:.0f} after it."
    )


def run_predict(ensemble: PublishedEnsemble, n: int = 16_384) -> str:
    """Hidden layers, then all genes, of tissue superpixels."""
    x, xy = torch.rand(n, FEATURES), torch.zeros(n, 2)
    per_superpixel = FEATURES * HIDDEN_WIDTH + (HIDDEN_LAYERS - 1) * HIDDEN_WIDTH**2 + HIDDEN_WIDTH * GENES
    with torch.no_grad():
        rate = matmul_rate()
        best = min(seconds(lambda: ensemble.expression(ensemble.hidden(x, xy), slice(0, GENES)), 7))
    ratio = 2 * per_superpixel * STATES * n / best / max(rate, matmul_rate())
    return f"The published ensemble predicts {n / best:.0f} superpixels/s ({GENES} genes), {ratio:.2f} of the rate."


def main() -> None:
    """Measure, print, and write the table into the documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="timed epochs of each way (default 12)")
    epochs = max(2, parser.parse_args().epochs + 1)
    spots, discs = synthetic()
    data = as_data(spots, discs, held_out=0)
    with all_cores():
        rate = matmul_rate()
        plain, _ = run_plain(data, epochs).row("plain: five loops, autograd")
        clock, ensemble = run_published(data, epochs)
        published, published_s = clock.row("`--recipe published`")
        predict = run_predict(ensemble)
        default = run_default(as_data(spots, discs, held_out=SPOTS // 10), published_s)
    head = [
        "way",
        f"{EPOCHS} epochs (median)",
        f"{EPOCHS} epochs (best)",
        "rate",
        "of matmul (median)",
        "of matmul (best)",
    ]
    setting = f"{SPOTS} spots, {len(discs.spot)} superpixels, {FEATURES} features, {GENES} genes, {STATES} states"
    publish(
        "fit",
        f"{machine()}; matrix products {rate / 1e9:.0f} GFLOP/s in float32. {setting}; {epochs - 1} epochs timed.\n\n"
        f"{table(head, [plain, published])}\n\n{default}\n\n{predict}",
    )


if __name__ == "__main__":
    main()

"""Held-out spots: predicted by a model and two baselines that have not seen them, and kept in the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from iscale.captures.integrate import LEAST_SPOTS
from iscale.captures.spots import DiscFeatures, TrainingSpots
from iscale.engine.machine import give_back
from iscale.engine.step import There
from iscale.geometry import Region, SlideGrid
from iscale.model.baselines import NearestBaseline, RidgeBaseline, disc_mean_features
from iscale.model.ensemble import recipe_module
from iscale.store.layout import ArrayLayout
from iscale.store.run_store import RunStore
from iscale.trust.folds import Folds, members_of

if TYPE_CHECKING:
    from iscale.model.data import TrainingData


LEAST_COVERED = 0.5
"""Share of a spot's disc that lies on the mother's tissue, of spots that are tested. Sections differ at their edges:
what a capture measured where the mother has glass tells of the alignment, not of the gene."""
GENES_AT_ONCE = 128
"""Genes of which all spots are held in float64 at a time."""


@dataclass(frozen=True)
class FoldSpots:
    """One fold: indices of the spots that the model learns from, and of those that it is tested on."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]

    @classmethod
    def of(cls, folds: Folds, fold: int, data: TrainingData) -> FoldSpots:
        """The spots of a fold; not tested are those that lie off tissue for the most part, or are empty."""
        covered = np.diff(data.starts) >= LEAST_COVERED * data.disc_size.cpu().numpy()
        known = covered & data.usable & (data.depth.cpu().numpy() > 0)
        test = folds.tested(fold)
        return cls(np.flatnonzero(folds.trained(fold) & data.usable), test[known[test]])

    @property
    def possible(self) -> bool:
        """Whether there is enough to learn from, and anything to test."""
        return len(self.train) >= LEAST_SPOTS and len(self.test) > 0


def predict_held(
    held: FoldSpots, data: TrainingData, *, recipe: str, seed: int, n_states: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train on what is not held out, as a run does, and predict the tested spots: (spot, gene) and (spot,) counts.

    Nothing of other spots than those trained on reaches the model but their number; which spots ``data`` holds out
    itself does not matter. The second array is the expected counts of all genes.
    """
    from iscale.model.fit import predict_spots

    held_out = np.ones_like(data.held_out)
    held_out[held.train] = False
    ensemble, _ = recipe_module(recipe).train(replace(data, held_out=held_out), seed=seed, n_states=n_states)
    give_back()
    return predict_spots(ensemble, data, held.test)


def predict_baselines(
    held: FoldSpots, data: TrainingData, discs: DiscFeatures, *, seed: int
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Predict ``log1p`` of the tested spots' counts from the same spots as the model has.

    Gives some genes at a time, and (tested spot, gene) of each baseline: means of the nearest spots, and ridge
    regression on the mean features of discs.
    """
    train = held.train[data.depth.cpu().numpy()[held.train] > 0]
    xy = data.xy_um.cpu().numpy().astype(np.float64)
    nearest = NearestBaseline(xy[train], xy[held.test], seed=seed)
    means = disc_mean_features(discs, len(data.starts) - 1)
    ridge = RidgeBaseline(means[train], means[held.test], seed=seed)
    del means
    for start in range(0, len(data.genes), GENES_AT_ONCE):
        genes = slice(start, min(start + GENES_AT_ONCE, len(data.genes)))
        targets = np.log1p(data.counts[train, genes].cpu().numpy().astype(np.float64))
        yield genes, nearest(targets), ridge(targets)


SPOTS_PER_CHUNK = 4096
PREDICTED = {
    "expression": "expected counts of the model that has not seen the spot",
    "knn": "log1p of expected counts: mean of the nearest spots",
    "ridge": "log1p of expected counts: ridge regression on mean features",
}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The spots that were predicted, one fold after the other: per fold which of its spots these are, and of each row
    the index of the spot.

    ``xy_um`` is (row, 2), ``depth`` and ``predicted_depth`` (row,) counts of all genes, measured and expected, and
    ``per_molecule`` (row,) what one counted molecule adds to the counts.
    """

    folds: tuple[NDArray[np.int64], ...]
    spots: NDArray[np.int64]
    capture: NDArray[np.int64]
    xy_um: Values
    depth: Values
    per_molecule: Values
    predicted_depth: Values


@dataclass(frozen=True)
class HeldOutStore:
    """The group of one way to hold out, small and picklable."""

    store: RunStore
    how: str

    @property
    def group(self) -> str:
        """Path inside the store."""
        return f"holdout/{self.how}"

    def outputs(self, n_folds: int) -> tuple[There, ...]:
        """Files that are there once it is prepared."""
        arrays = [self._path(fold, name) for fold in range(n_folds) for name in (*PREDICTED, "depth")]
        return self.store.metadata(self.group, f"{self.group}/counts", *arrays)

    def layouts(self, spots: TrainingSpots, folds: Folds) -> list[ArrayLayout]:
        """Counts of all spots, and the predictions of every fold."""
        n, n_genes = spots.counts.shape
        arrays = [_layout(f"{self.group}/counts", n, n_genes)]
        for fold in range(len(folds.names)):
            own = len(folds.tested(fold))
            arrays += [_layout(self._path(fold, name), own, n_genes) for name in PREDICTED]
            arrays.append(_layout(self._path(fold, "depth"), own, 1))
        return arrays

    def bytes_of(self, spots: TrainingSpots, folds: Folds) -> int:
        """Upper bound of what lies on disk."""
        return sum(array.bytes for array in self.layouts(spots, folds)) + 100 * len(spots.depth)

    def files_of(self, spots: TrainingSpots, folds: Folds) -> int:
        """Most files that there will be."""
        return sum(array.files for array in self.layouts(spots, folds)) + 20

    def prepare(self, spots: TrainingSpots, folds: Folds, grid: SlideGrid, provenance: dict[str, Any]) -> None:
        """Write the spots, and make the empty arrays of their predictions."""
        kept = {"captures": list(spots.captures), "capture_scale": list(spots.capture_scale)}
        self.store.make_group(self.group, {**provenance, **kept, "folds": list(folds.names)})
        self._put("gene", spots.genes, "gene")
        for name, values in {
            "depth_measured": spots.depth,
            "radius": spots.radius_um,
            "capture": spots.capture,
            "members": members_of(spots),
            "fold": folds.fold,
            "trained_on": folds.trained_on,
        }.items():
            self._put(name, values, "spot")
        self._put("xy", spots.xy_px * grid.pixel_size_um, "spot", "axis")
        for fold in range(len(folds.names)):
            self.store.make_group(f"{self.group}/{fold}", {"held_out": folds.names[fold]})
        for array in self.layouts(spots, folds):
            self.store.make(array, {"long_name": PREDICTED.get(array.path.rsplit("/", 1)[1], "counts")})
        n, n_genes = spots.counts.shape
        for start in range(0, n, SPOTS_PER_CHUNK):
            region = Region(start, min(start + SPOTS_PER_CHUNK, n), 0, n_genes)
            self.store.write(f"{self.group}/counts", region, spots.counts[region.slices])

    def read_spots(self, grid: SlideGrid) -> TrainingSpots:
        """The spots as they were prepared."""
        kept = self.store.attributes(self.group)
        return TrainingSpots(
            genes=tuple(str(gene) for gene in self._values("gene")),
            counts=self._values("counts"),
            depth=self._values("depth_measured"),
            xy_px=self._values("xy") / grid.pixel_size_um,
            radius_um=self._values("radius"),
            capture=self._values("capture"),
            captures=tuple(kept["captures"]),
            capture_scale=tuple(kept["capture_scale"]),
        )

    def read_folds(self) -> Folds:
        """How the spots are cut."""
        names = tuple(self.store.attributes(self.group)["folds"])
        return Folds(self._values("fold"), self._values("trained_on"), names)

    def write(
        self, fold: int, name: str, own: NDArray[np.int64], values: NDArray[np.floating], genes: slice = slice(None)
    ) -> None:
        """Write predictions of some spots of a fold, ``own`` among them; the genes are whole chunks."""
        array = self.store.array(self._path(fold, name))
        start, stop, _ = genes.indices(array.shape[1])
        for a in range(start, stop, GENES_AT_ONCE):
            b = min(a + GENES_AT_ONCE, stop)
            block = np.full((array.shape[0], b - a), np.nan, np.float32)
            block[own] = values[:, a - start : b - start]
            self.store.write(self._path(fold, name), Region(0, len(block), a, b), block)

    def read_rows(self) -> Rows:
        """Which spots were predicted, and what of them does not depend on genes."""
        folds = self.read_folds()
        depths = [self._values(f"{fold}/depth")[:, 0].astype(np.float64) for fold in range(len(folds.names))]
        own = tuple(np.flatnonzero(np.isfinite(depth)) for depth in depths)
        spots = np.concatenate([folds.tested(fold)[at] for fold, at in enumerate(own)])
        capture = self._values("capture")[spots]
        kept = self.store.attributes(self.group)["capture_scale"]
        # Spots merged of several captures have the index -1, the last.
        scale = np.array([*kept, 1.0])[capture] if kept else np.ones(len(spots))
        return Rows(
            folds=own,
            spots=spots,
            capture=capture,
            xy_um=self._values("xy")[spots],
            depth=self._values("depth_measured")[spots].astype(np.float64),
            per_molecule=scale / self._values("members")[spots],
            predicted_depth=np.concatenate([depth[at] for depth, at in zip(depths, own, strict=True)]),
        )

    def read(self, name: str, rows: Rows, genes: slice) -> Values:
        """(row, gene) float64: measured ``counts``, or what was predicted."""
        if name == "counts":
            return np.asarray(self.store.array(f"{self.group}/counts")[:, genes], np.float64)[rows.spots]
        parts = [np.asarray(self.store.array(self._path(k, name))[:, genes])[own] for k, own in enumerate(rows.folds)]
        return np.concatenate(parts).astype(np.float64)

    def _path(self, fold: int, name: str) -> str:
        return f"{self.group}/{fold}/{name}"

    def _put(self, name: str, values: Any, *dims: str) -> None:
        self.store.put(f"{self.group}/{name}", values, dims)

    def _values(self, name: str) -> NDArray[Any]:
        return np.asarray(self.store.array(f"{self.group}/{name}")[...])


def _layout(path: str, n_spots: int, n_genes: int) -> ArrayLayout:
    chunk = (min(SPOTS_PER_CHUNK, n_spots), min(GENES_AT_ONCE, n_genes))
    return ArrayLayout(path, ("spot", "gene"), (n_spots, n_genes), "float32", chunk, chunk, float("nan"))

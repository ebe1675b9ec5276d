from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iscale.geometry import SlideGrid
from iscale.store import layout
from iscale.store.run_store import RunStore

GENES = tuple(f"G{k}" for k in range(40))

Predicted = Callable[..., tuple[RunStore, SlideGrid]]


@pytest.fixture
def predicted(tmp_path: Path) -> Predicted:
    """Make a store as the stages before leave it: an embedding and genes that follow blobs, on tissue with holes."""

    def make(
        shape: tuple[int, int] = (208, 144), n_components: int = 4, cells: float = 0.7, seed: int = 0
    ) -> tuple[RunStore, SlideGrid]:
        store, grid = RunStore(tmp_path / "out"), SlideGrid((shape[0] * 16, shape[1] * 16), 0.5, 0.5)
        assert grid.superpixel_shape == shape
        rng = np.random.default_rng(seed)
        blobs = np.stack([gaussian_filter(rng.normal(size=shape), 12) for _ in range(n_components)])
        values = 3 * blobs / blobs.std() + rng.normal(0, 0.7, blobs.shape)
        tissue = gaussian_filter(rng.normal(size=shape), 20) > -0.01
        nuclei = tissue & (rng.random(shape) < cells)
        store.create()
        for group in ("tissue", "embedding", "expression"):
            store.make_group(group, {})
        written = {
            layout.mask("tissue/mask", shape): tissue,
            layout.mask("tissue/cells", shape): nuclei,
            layout.embedding(n_components, shape): np.where(tissue, values, np.nan).astype(np.float16),
            layout.plane("expression/depth", shape): np.where(tissue, 20 + rng.random(shape), np.nan),
        }
        slope = rng.normal(0, 0.5, (len(GENES), n_components))
        genes = 0.2 * np.exp(np.tensordot(slope, blobs / blobs.std(), axes=1))
        written[layout.genes("expression/expression", len(GENES), shape)] = np.where(tissue, genes, np.nan)
        for array, content in written.items():
            store.make(array)
            store.array(array.path, "r+")[...] = content.astype(array.dtype)
        return store, grid

    return make

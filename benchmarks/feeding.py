"""What a patch costs beside its network: pixels read and cut, tokens summed, rounded, compressed and stored.

``python -m benchmarks.feeding`` prints it; `benchmarks.scaling` holds it against the rate of a card. The program's own
kernel runs with an encoder of HIPT's shapes that computes nothing, on painted tissue, in one process with one thread of
torch. On a card the sums are the card's work, not this process': the figure is an upper bound.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import machine
from iscale.demo.painting import paint
from iscale.demo.tissue import SyntheticTissue
from iscale.encoders import EncoderSpec
from iscale.encoders.base import COLOUR, FeatureGroup
from iscale.features.by_patch import PatchesContext, encode_region
from iscale.geometry import Region
from iscale.store import layout
from iscale.store.run_store import RunStore

SIDE = 256
"""Superpixels of the slide's side: 2 x 2 shards, of which one is encoded."""


class Idle:
    """HIPT's shapes; the same drawn numbers for every patch."""

    name = "idle"
    groups = (FeatureGroup("patch", tuple(f"p{i}" for i in range(384))), COLOUR)
    patch, step, vector_width, token_width = 16, 4, 384, 384
    context, device, model_bytes = None, "cpu", 0

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        self._tokens = torch.randn(64, 16, 16, 384, generator=rng)
        self._vectors = torch.randn(64, 384, generator=rng)

    def identity(self) -> dict[str, str]:
        return {"encoder": self.name}

    def patch_bytes(self) -> int:
        return 1 << 20

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self._tokens[: len(images)], self._vectors[: len(images)]


def seconds_per_patch(repeats: int = 3) -> float:
    """The best of some tries, since others may use the machine."""
    idle, torch_threads = Idle(), torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, patch("iscale.features.by_patch.get_encoder", lambda *_: idle):
        store = slide(RunStore(Path(folder)))
        context = PatchesContext(store, EncoderSpec("idle"), False, 1 << 30)
        torch.set_num_threads(1)
        found = []
        for _ in range(repeats):
            begin = time.perf_counter()
            encoded = encode_region(context, Region(0, SIDE // 2, 0, SIDE // 2))
            found.append((time.perf_counter() - begin) / encoded["patches"])
        torch.set_num_threads(torch_threads)
    return min(found)


def slide(store: RunStore) -> RunStore:
    """A store with painted tissue everywhere, and empty arrays for its features."""
    store.create()
    for group in ("image", "tissue", "features"):
        store.make_group(group, {})
    pixels = 16 * SIDE
    arrays = [layout.image_level(0, (pixels, pixels)), layout.mask("tissue/mask", (SIDE, SIDE))]
    arrays += [layout.features(group.name, len(group.features), (SIDE, SIDE), 1) for group in Idle.groups]
    for array in [*arrays, layout.vectors(Idle.vector_width, (SIDE, SIDE), Idle.step)]:
        store.make(array)
    whole = Region(0, pixels, 0, pixels)
    painted = paint(SyntheticTissue((pixels, pixels), tissue_fraction=0.9), Region(0, pixels // 2, 0, pixels // 2))
    picture = np.tile(np.moveaxis(painted, -1, 0), (1, 2, 2))
    store.write("image/0", whole, picture)
    store.write("tissue/mask", Region(0, SIDE, 0, SIDE), np.ones((SIDE, SIDE), np.bool_))
    return store


if __name__ == "__main__":
    print(f"{seconds_per_patch() * 1e3:.2f} ms per patch; {machine()}")

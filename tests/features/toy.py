"""A patch encoder whose numbers can be worked out by hand: means of pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.encoders.base import COLOUR, FeatureGroup


class ToyContext:
    """What a patch is, the mean of what its grid is, and where in the grid it lies."""

    width = 4
    device = "cpu"

    def __init__(self, window: int | None) -> None:
        self.window = window

    def bytes_for(self, rows: int, columns: int) -> int:
        return rows * columns * 64

    def __call__(self, vectors: Tensor) -> Tensor:
        b, h, w, _ = vectors.shape
        mean = vectors.mean(dim=(1, 2, 3), keepdim=True).expand(b, h, w, 1)
        y = torch.arange(h).view(1, h, 1, 1).expand(b, h, w, 1)
        x = torch.arange(w).view(1, 1, w, 1).expand(b, h, w, 1)
        return torch.cat([vectors[..., :1], mean, y, x], dim=-1)


class ToyEncoder:
    """Tokens: mean colour of the superpixel, and mean of the patch; vector: mean colour of the patch."""

    name = "toy"
    patch = 16
    token_width = 4
    vector_width = 3
    device = "cpu"
    model_bytes = 0

    def __init__(self, shifts: int = 16, window: int | None = 16) -> None:
        self.step = {16: 4, 4: 8, 1: 16}[shifts]
        self.context = ToyContext(window)
        self.groups = (
            FeatureGroup("context", tuple("abcd"), stride=self.step, smooth=16),
            FeatureGroup("patch", tuple("wxyz"), smooth=4),
            COLOUR,
        )
        self.seen = 0

    def identity(self) -> dict[str, Any]:
        return {"encoder": "toy", "step": self.step, "window": self.context.window}

    def patch_bytes(self) -> int:
        return 2**20

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(images)
        cells = F.avg_pool2d(images.float(), 16)
        whole = images.float().mean(dim=(1, 2, 3))
        tokens = torch.cat([cells, whole.view(-1, 1, 1, 1).expand(-1, 1, 16, 16)], dim=1)
        return tokens.permute(0, 2, 3, 1), images.float().mean(dim=(2, 3))

"""Weight files as DINO's trainer writes them, for the tests of how they are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iscale.encoders import weights
from iscale.encoders.weights import CONTEXT_FILE, NETWORKS, load_weights
from iscale.errors import InputError

PTH = f"{CONTEXT_FILE}.pth"

State = dict[str, Any]


def state(which: weights.Which = CONTEXT_FILE, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in NETWORKS[which].shapes.items()}


def prefixed(tensors: State, prefix: str = "module.backbone.") -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def training(tensors: State, **more: Any) -> dict[str, Any]:
    """A checkpoint as DINO's trainer writes it."""
    return {
        "student": {"module.backbone.norm.weight": torch.zeros(192)},
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "steps": np.int64(3)}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "teacher": {**prefixed(tensors), "module.head.mlp.0.weight": torch.zeros(8, 192)},
        **more,
    }


def written(folder: Path, content: object, name: str = PTH, **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder


def refused(folder: Path, which: weights.Which = CONTEXT_FILE) -> str:
    with pytest.raises(InputError) as caught:
        load_weights(folder, which)
    assert caught.value.remedy
    return caught.value.problem

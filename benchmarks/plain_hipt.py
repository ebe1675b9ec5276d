"""The published way of HIPT's features, written plainly: what `benchmarks.features` measures against.

Dense, in memory, float32: every shift of the image is edge-padded to a multiple of 4096 px and cut into patches, which
go through ViT-256 in batches of 256 with attention written out. (ViT-4K, which costs little beside it, is left out.)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from iscale.encoders.hipt import VisionTransformer

PATCH, PADDED = 256, 4096
HEADS = 6


def shift_shape(shape_px: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of one padded shift of an image of this height and width."""
    rows, columns = (-(-(n - PATCH) // PADDED) * (PADDED // PATCH) for n in shape_px)
    return rows, columns


def patches_of(shape_px: tuple[int, int], shifts: int = 16) -> int:
    """Patches that the scheme encodes for an image of this height and width."""
    rows, columns = shift_shape(shape_px)
    return shifts * rows * columns


def cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(patch, c, y, x) patches of a (y, x, c) image, row by row."""
    h, w = (n // PATCH for n in image.shape[:2])
    return image.reshape(h, PATCH, w, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(h * w, 3, PATCH, PATCH)


@torch.inference_mode()
def encode(tensors: Mapping[str, Tensor], patches: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Tokens (patch, 256, 384) and vectors (patch, 384) of one batch of patches."""
    x = (torch.from_numpy(patches).float() / 255 - 0.5) / 0.5
    x = F.conv2d(x, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([tensors["cls_token"].expand(len(x), -1, -1), x], dim=1)
    positions = VisionTransformer(tensors, heads=HEADS, device="cpu", dtype=torch.float32).positions(16, 16)
    x = x + positions
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    for i in range(depth):
        x = _block(x, {name.split(".", 2)[2]: t for name, t in tensors.items() if name.startswith(f"blocks.{i}.")})
    x = F.layer_norm(x, x.shape[-1:], tensors["norm.weight"], tensors["norm.bias"], 1e-6)
    return x[:, 1:], x[:, 0]


def _block(x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    b, n, d = x.shape
    h = F.layer_norm(x, (d,), w["norm1.weight"], w["norm1.bias"], 1e-6)
    qkv = F.linear(h, w["attn.qkv.weight"], w["attn.qkv.bias"]).reshape(b, n, 3, HEADS, d // HEADS)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    attention = (q @ k.transpose(-2, -1) * (d // HEADS) ** -0.5).softmax(dim=-1)
    h = (attention @ v).transpose(1, 2).reshape(b, n, d)
    x = x + F.linear(h, w["attn.proj.weight"], w["attn.proj.bias"])
    h = F.layer_norm(x, (d,), w["norm2.weight"], w["norm2.bias"], 1e-6)
    h = F.gelu(F.linear(h, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
    return x + F.linear(h, w["mlp.fc2.weight"], w["mlp.fc2.bias"])

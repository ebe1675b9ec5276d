"""A vision transformer as DINO built it, for inference only: tokens in, normalised tokens out.

Weights are a dictionary of tensors under DINO's names (`cls_token`, `pos_embed`, `blocks.N.*`, `norm.*`). Layer norms,
sums and the results are float32 whatever the precision of the matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LAYER_NORM_EPS = 1e-6
POSITIONS_SIDE = 14
"""Side of the grid for which position embeddings were trained."""

PLAIN_ATTENTION_TOKENS = 512
"""Up to this many, a table of all pairs stays in a core's cache."""


class Affine(NamedTuple):
    """Weight and bias of a linear layer or a layer norm."""

    weight: Tensor
    bias: Tensor


class Block(NamedTuple):
    """One transformer block."""

    norm1: Affine
    qkv: Affine
    proj: Affine
    norm2: Affine
    fc1: Affine
    fc2: Affine


class VisionTransformer:
    """The blocks of a vision transformer, from embedded tokens to its normalised output.

    Parameters
    ----------
    tensors
        Weights under DINO's names, float32.
    heads
        Heads of the attention.
    device
        Torch device that computes.
    dtype
        Of the matrix products: float32 or bfloat16.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, heads: int, device: str, dtype: torch.dtype) -> None:
        def affine(name: str, dtype: torch.dtype) -> Affine:
            weight, bias = (tensors[f"{name}.{part}"].to(device, dtype) for part in ("weight", "bias"))
            return Affine(weight, bias)

        exact = torch.float32
        depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
        self.heads, self.dtype = heads, dtype
        self.blocks = [
            Block(
                norm1=affine(f"blocks.{i}.norm1", exact),
                qkv=affine(f"blocks.{i}.attn.qkv", dtype),
                proj=affine(f"blocks.{i}.attn.proj", dtype),
                norm2=affine(f"blocks.{i}.norm2", exact),
                fc1=affine(f"blocks.{i}.mlp.fc1", dtype),
                fc2=affine(f"blocks.{i}.mlp.fc2", dtype),
            )
            for i in range(depth)
        ]
        self.norm = affine("norm", exact)
        self.class_token = tensors["cls_token"].to(device, exact)
        self.embedding = tensors["pos_embed"].to(device, exact)
        self.width = self.class_token.shape[-1]
        self._positions: dict[tuple[int, int], Tensor] = {}

    def __call__(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Class vectors (b, width) and tokens (b, y, x, width) of embedded tokens (b, y, x, width); float32."""
        b, h, w, width = embedded.shape
        tokens = torch.cat([self.class_token.expand(b, 1, width), embedded.reshape(b, h * w, width)], dim=1)
        x = tokens.add_(self.positions(h, w))
        for block in self.blocks:
            self._attend(x, block)
            hidden = F.layer_norm(x, (width,), *block.norm2, LAYER_NORM_EPS).to(self.dtype)
            _add_linear(x, F.gelu(F.linear(hidden, *block.fc1)), block.fc2)
        x = F.layer_norm(x, (width,), *self.norm, LAYER_NORM_EPS)
        return x[:, 0], x[:, 1:].reshape(b, h, w, width)

    def _attend(self, x: Tensor, block: Block) -> None:
        """Add the attention of a block to (b, token, width)."""
        b, n, width = x.shape
        hidden = F.layer_norm(x, (width,), *block.norm1, LAYER_NORM_EPS).to(self.dtype)
        qkv = F.linear(hidden, *block.qkv).view(b, n, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = _attention(query, key, value)
        _add_linear(x, attended.transpose(1, 2).reshape(b, n, width), block.proj)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embedding (1, 1 + token, width) of a grid, resized bicubically the way of DINO.

        The scale factors handed to the interpolation are a tenth of a token larger than the ratio of the sides, and it
        is they that place the samples (method, section 2). The grid of training takes the embedding as it is.
        """
        shape = rows, columns
        if shape not in self._positions:
            self._positions[shape] = self._resized(rows, columns)
        return self._positions[shape]

    def _resized(self, rows: int, columns: int) -> Tensor:
        side = POSITIONS_SIDE
        if (rows, columns) == (side, side):
            return self.embedding
        grid = self.embedding[:, 1:].reshape(1, side, side, self.width).permute(0, 3, 1, 2)
        factors = [(rows + 0.1) / side, (columns + 0.1) / side]
        resized = F.interpolate(grid, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
        if resized.shape[-2:] != (rows, columns):
            raise ValueError(f"a grid of {rows} x {columns} was resized to {tuple(resized.shape[-2:])}")
        flat = resized.permute(0, 2, 3, 1).reshape(1, rows * columns, self.width)
        return torch.cat([self.embedding[:, :1], flat], dim=1)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of (b, head, token, feature) queries, keys and values.

    PyTorch's fused attention everywhere but for short sequences in bfloat16 on a CPU, where it computes at the speed of
    float32 and two plain products take half the time.
    """
    b, heads, n, width = query.shape
    if query.device.type != "cpu" or query.dtype == torch.float32 or n > PLAIN_ATTENTION_TOKENS:
        return F.scaled_dot_product_attention(query, key, value)
    query, key, value = (part.reshape(b * heads, n, width) for part in (query, key, value))
    weights = torch.bmm(query, key.transpose(1, 2)).mul_(width**-0.5).softmax(dim=-1)
    return torch.bmm(weights, value).view(b, heads, n, width)


def _add_linear(x: Tensor, hidden: Tensor, layer: Affine) -> None:
    """Add ``hidden @ weight.T + bias`` to ``x`` in place."""
    if hidden.dtype == x.dtype:
        # The product lands in the sum itself: neither a copy of the bias nor one of the product is made.
        x.view(-1, x.shape[-1]).addmm_(hidden.reshape(-1, hidden.shape[-1]), layer.weight.T)
        x.add_(layer.bias)
    else:
        x.add_(F.linear(hidden, *layer))

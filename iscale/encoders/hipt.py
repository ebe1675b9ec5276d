"""Encoder ``hipt``: the published features, from HIPT's two vision transformers (method, section 2).

ViT-256 turns a 256 px patch into a token of 384 numbers per superpixel and one vector; ViT-4K turns the grid of those
vectors into a context of 192 numbers per patch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.encoders.base import ContextModel, EncoderSpec, patch_groups
from iscale.encoders.weights import CONTEXT_FILE, PATCH_FILE, WeightFile, digest, load_weights, notice
from iscale.errors import InputError
from iscale.geometry import PATCH_PX, SUPERPIXEL_PX

HEADS = 6
PATCH_WIDTH = 384
CONTEXT_WIDTH = 192

WINDOW = 16
"""Side, in patches, of the regions on which ViT-4K was trained."""

PATCH_BYTES = {"float32": 7 * 2**20, "bfloat16": 5 * 2**20}
"""Of one patch on its way through ViT-256: 257 tokens, at most 10 times their width at a time, and the image."""

VERSION = 1
"""Raised when the features of the same slide and weights change."""

LAYER_NORM_EPS = 1e-6
POSITIONS_SIDE = 14
"""Side of the grid for which position embeddings were trained."""

PLAIN_ATTENTION_TOKENS = 512
"""Up to this many, a table of all pairs stays in a core's cache."""


class Affine(NamedTuple):
    """Weight and bias of a linear layer or a layer norm."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: str, device: str, dtype: torch.dtype = torch.float32) -> Affine:
        """The layer of that name."""
        return cls(*(tensors[f"{name}.{which}"].to(device, dtype) for which in ("weight", "bias")))


class Block(NamedTuple):
    """One transformer block."""

    norm1: Affine
    qkv: Affine
    proj: Affine
    norm2: Affine
    fc1: Affine
    fc2: Affine


class VisionTransformer:
    """The blocks of a vision transformer as DINO built it, for inference: embedded tokens in, normalised ones out.

    Made from float32 weights under DINO's names (`cls_token`, `pos_embed`, `blocks.N.*`, `norm.*`). Layer norms, sums
    and the results are float32 whatever the ``dtype`` of the matrix products, float32 or bfloat16.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, heads: int, device: str, dtype: torch.dtype) -> None:
        def affine(name: str, dtype: torch.dtype) -> Affine:
            return Affine.of(tensors, name, device, dtype)

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
    query, key, value = (each.reshape(b * heads, n, width) for each in (query, key, value))
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


class Networks:
    """ViT-256 and ViT-4K with what embeds their tokens (in float32), on a device.

    Made from the weights of both, float32 on the CPU; ``dtype`` is that of the matrix products.
    """

    def __init__(self, patch: dict[str, Tensor], context: dict[str, Tensor], device: str, dtype: torch.dtype) -> None:
        self.vit256 = VisionTransformer(patch, heads=HEADS, device=device, dtype=dtype)
        self.vit4k = VisionTransformer(context, heads=HEADS, device=device, dtype=dtype)
        stem = Affine.of(patch, "patch_embed.proj", device)
        self.stem = Affine(stem.weight.flatten(1), stem.bias)
        self.phi = Affine.of(context, "phi.0", device)


class HiptEncoder:
    """ViT-256 and ViT-4K with the published weights, or others of that architecture; refuses what cannot be used."""

    name = "hipt"
    patch = PATCH_PX // SUPERPIXEL_PX
    vector_width = PATCH_WIDTH
    token_width = PATCH_WIDTH

    def __init__(self, spec: EncoderSpec) -> None:
        if spec.weights is None:
            raise InputError("--encoder hipt: no weights were found.", "Name their folder: --weights DIR.")
        self.spec = spec
        self.device = spec.device
        self.step = spec.step
        files = [load_weights(spec.weights, which) for which in (PATCH_FILE, CONTEXT_FILE)]
        self._identity = self._describe(files)
        self.notices = tuple(line for file in files if (line := notice(file)))
        self._tensors = [file.tensors for file in files]
        self._networks: Networks | None = None
        self._lock = threading.Lock()
        parameters = sum(tensor.numel() for tensors in self._tensors for tensor in tensors.values())
        self.model_bytes = parameters * torch.finfo(getattr(torch, spec.precision)).bits // 8
        self.context: ContextModel | None = HiptContext(self)
        self.groups = patch_groups(CONTEXT_WIDTH, PATCH_WIDTH, self.step)

    def _describe(self, files: list[WeightFile]) -> dict[str, Any]:
        return {
            "encoder": self.name,
            "version": VERSION,
            "context": self.spec.context,
            "shifts": self.spec.shifts,
            "precision": self.spec.precision,
            "weights": {
                name: {
                    "sha256": file.source_sha256,
                    "published": file.published,
                    "tensors_sha256": digest(file.tensors),
                }
                for name, file in zip((PATCH_FILE, CONTEXT_FILE), files, strict=True)
            },
        }

    def identity(self) -> dict[str, Any]:
        """Name, version, settings and the weights' hashes, which are those of the files before a conversion."""
        return self._identity

    def patch_bytes(self) -> int:
        """Peak bytes of `encode` per patch."""
        return PATCH_BYTES[self.spec.precision]

    @property
    def networks(self) -> Networks:
        """Both networks, on the device from when they are first asked for; the weights as read are then let go."""
        with self._lock:
            if self._networks is None:
                patch, context = self._tensors
                self._networks = Networks(patch, context, self.device, getattr(torch, self.spec.precision))
                self._tensors.clear()
            return self._networks

    @torch.inference_mode()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (patch, y=16, x=16, 384) and vectors (patch, 384) of (patch, c=3, y=256, x=256) uint8 images."""
        b, side, cell = len(images), self.patch, SUPERPIXEL_PX
        blocks = images.view(b, 3, side, cell, side, cell).permute(0, 2, 4, 1, 3, 5)
        pixels = blocks.reshape(b, side, side, 3 * cell * cell).float().div_(127.5).sub_(1)
        networks = self.networks
        vectors, tokens = networks.vit256(F.linear(pixels, *networks.stem))
        return tokens, vectors


class HiptContext:
    """ViT-4K of an encoder, over grids of patch vectors: a `iscale.encoders.base.ContextModel`."""

    width = CONTEXT_WIDTH

    def __init__(self, encoder: HiptEncoder) -> None:
        self.encoder = encoder
        self.device = encoder.device
        self.window = WINDOW if encoder.spec.context == "regions" else None

    def bytes_for(self, rows: int, columns: int) -> int:
        """Peak bytes of a grid of this shape: its tokens, at most 12 times their width at a time, and the vectors."""
        return (rows * columns + 1) * 4 * (12 * CONTEXT_WIDTH + 2 * PATCH_WIDTH)

    @torch.inference_mode()
    def __call__(self, vectors: Tensor) -> Tensor:
        """Context (grid, y, x, 192) of vectors (grid, y, x, 384)."""
        networks = self.encoder.networks
        _, tokens = networks.vit4k(F.gelu(F.linear(vectors, *networks.phi)))
        return tokens

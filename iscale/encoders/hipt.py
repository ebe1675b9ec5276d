"""Encoder ``hipt``: the published features, from HIPT's two vision transformers (method, section 2).

ViT-256 turns a 256 px patch into a token of 384 numbers per superpixel and one vector; ViT-4K turns the grid of those
vectors into a context of 192 numbers per patch.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.encoders.base import COLOUR, ContextModel, FeatureGroup
from iscale.encoders.precision import check_precision
from iscale.encoders.spec import EncoderSpec
from iscale.encoders.vit import VisionTransformer
from iscale.encoders.weights import CONTEXT_FILE, PATCH_FILE, WeightFile, digest, load_weights, notice
from iscale.errors import InputError
from iscale.geometry import PATCH_PX, SUPERPIXEL_PX

HEADS = 6
PATCH_WIDTH = 384
CONTEXT_WIDTH = 192

WINDOW = 16
"""Side, in patches, of the regions on which ViT-4K was trained."""

CONTEXT_BOX = 16
PATCH_BOX = 4
"""Boxes, in superpixels, with which the model sees the features smoothed."""

PATCH_BYTES = 7 * 2**20
"""Of one patch on its way through ViT-256: 257 tokens, at most 10 times their width at a time, and the image."""

VERSION = 1
"""Raised when the features of the same slide and weights change."""


class HiptEncoder:
    """ViT-256 and ViT-4K with the published weights, or others of that architecture.

    Parameters
    ----------
    spec
        Weights' folder, context, shifts, precision and device.

    Raises
    ------
    InputError
        If the weights cannot be used, or the device lacks the precision.
    """

    name = "hipt"
    patch = PATCH_PX // SUPERPIXEL_PX
    vector_width = PATCH_WIDTH
    token_width = PATCH_WIDTH

    def __init__(self, spec: EncoderSpec) -> None:
        if spec.weights is None:
            raise InputError("--encoder hipt: no weights were found.", "Name their folder: --weights DIR.")
        check_precision(spec)
        self.spec = spec
        self.device = spec.device
        self.step = {16: 4, 4: 8, 1: 16}[spec.shifts]
        files = [load_weights(spec.weights, which) for which in (PATCH_FILE, CONTEXT_FILE)]
        self._identity = self._describe(files)
        self.notices = tuple(line for file in files if (line := notice(file)))
        self._tensors = [file.tensors for file in files]
        self.context: ContextModel | None = HiptContext(self)
        self.groups: tuple[FeatureGroup, ...] = (
            FeatureGroup("context", _names("context", CONTEXT_WIDTH), stride=self.step, smooth=CONTEXT_BOX),
            FeatureGroup("patch", _names("patch", PATCH_WIDTH), smooth=PATCH_BOX),
            COLOUR,
        )

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

    @property
    def model_bytes(self) -> int:
        """Bytes of both networks as they are held: as read, and in bfloat16 beside that."""
        size = 4 if self.spec.precision == "float32" else 4 + 2
        return size * sum(tensor.numel() for tensors in self._tensors for tensor in tensors.values())

    def patch_bytes(self) -> int:
        """Peak bytes of `encode` per patch."""
        return PATCH_BYTES

    @functools.cached_property
    def vit256(self) -> VisionTransformer:
        """The network of patches, on the device."""
        return self._network(0)

    @functools.cached_property
    def vit4k(self) -> VisionTransformer:
        """The network of the grid of patches, on the device."""
        return self._network(1)

    def _network(self, which: int) -> VisionTransformer:
        dtype = getattr(torch, self.spec.precision)
        return VisionTransformer(self._tensors[which], heads=HEADS, device=self.device, dtype=dtype)

    @functools.cached_property
    def _stem(self) -> tuple[Tensor, Tensor]:
        """Weight (width, c * y * x) and bias of the convolution that embeds a superpixel, on the device."""
        weight, bias = (self._tensors[0][f"patch_embed.proj.{part}"].to(self.device) for part in ("weight", "bias"))
        return weight.flatten(1), bias

    @functools.cached_property
    def phi(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the layer that embeds a patch's vector for ViT-4K, on the device."""
        weight, bias = (self._tensors[1][f"phi.0.{part}"].to(self.device) for part in ("weight", "bias"))
        return weight, bias

    @torch.inference_mode()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (patch, y=16, x=16, 384) and vectors (patch, 384) of (patch, c=3, y=256, x=256) uint8 images."""
        b, side, cell = len(images), self.patch, SUPERPIXEL_PX
        blocks = images.view(b, 3, side, cell, side, cell).permute(0, 2, 4, 1, 3, 5)
        pixels = blocks.reshape(b, side, side, 3 * cell * cell).float().div_(127.5).sub_(1)
        vectors, tokens = self.vit256(F.linear(pixels, *self._stem))
        return tokens, vectors


class HiptContext:
    """ViT-4K over grids of patch vectors.

    Parameters
    ----------
    encoder
        Whose network it is.
    """

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
        _, tokens = self.encoder.vit4k(F.gelu(F.linear(vectors, *self.encoder.phi)))
        return tokens


def _names(group: str, n: int) -> tuple[str, ...]:
    return tuple(f"{group}{i}" for i in range(n))

"""Encoder ``hipt``: the published features, from HIPT's two vision transformers (method, section 2).

ViT-256 turns a 256 px patch into a token of 384 numbers per superpixel and one vector; ViT-4K turns the grid of those
vectors into a context of 192 numbers per patch.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.encoders.base import COLOUR, ContextModel, FeatureGroup
from iscale.encoders.spec import EncoderSpec
from iscale.encoders.vit import Affine, VisionTransformer
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

PATCH_BYTES = {"float32": 7 * 2**20, "bfloat16": 5 * 2**20}
"""Of one patch on its way through ViT-256: 257 tokens, at most 10 times their width at a time, and the image."""

VERSION = 1
"""Raised when the features of the same slide and weights change."""


class Networks:
    """ViT-256 and ViT-4K with what embeds their tokens, on a device.

    Parameters
    ----------
    patch, context
        Weights of ViT-256 and of ViT-4K, float32 on the CPU.
    device, dtype
        Where they compute, and the type of their matrix products. Tokens are embedded in float32.
    """

    def __init__(self, patch: dict[str, Tensor], context: dict[str, Tensor], device: str, dtype: torch.dtype) -> None:
        self.vit256 = VisionTransformer(patch, heads=HEADS, device=device, dtype=dtype)
        self.vit4k = VisionTransformer(context, heads=HEADS, device=device, dtype=dtype)
        weight, bias = (patch[f"patch_embed.proj.{part}"].to(device) for part in ("weight", "bias"))
        self.stem = Affine(weight.flatten(1), bias)
        self.phi = Affine(context["phi.0.weight"].to(device), context["phi.0.bias"].to(device))


class HiptEncoder:
    """ViT-256 and ViT-4K with the published weights, or others of that architecture.

    Parameters
    ----------
    spec
        Weights' folder, context, shifts, precision and device.

    Raises
    ------
    InputError
        If the weights cannot be used.
    """

    name = "hipt"
    patch = PATCH_PX // SUPERPIXEL_PX
    vector_width = PATCH_WIDTH
    token_width = PATCH_WIDTH

    def __init__(self, spec: EncoderSpec) -> None:
        if spec.weights is None:
            raise InputError("--encoder hipt: no weights were found.", "Name their folder: --weights DIR.")
        self.spec = spec
        self.device = spec.device
        self.step = {16: 4, 4: 8, 1: 16}[spec.shifts]
        files = [load_weights(spec.weights, which) for which in (PATCH_FILE, CONTEXT_FILE)]
        self._identity = self._describe(files)
        self.notices = tuple(line for file in files if (line := notice(file)))
        self._tensors = [file.tensors for file in files]
        self._networks: Networks | None = None
        self._lock = threading.Lock()
        parameters = sum(tensor.numel() for tensors in self._tensors for tensor in tensors.values())
        self.model_bytes = parameters * torch.finfo(getattr(torch, spec.precision)).bits // 8
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
        networks = self.encoder.networks
        _, tokens = networks.vit4k(F.gelu(F.linear(vectors, *networks.phi)))
        return tokens


def _names(group: str, n: int) -> tuple[str, ...]:
    return tuple(f"{group}{i}" for i in range(n))

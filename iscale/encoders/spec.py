"""Which encoder, on what, with which settings: small and picklable, so that every worker can make its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Context = Literal["regions", "published"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is made from.

    Parameters
    ----------
    name
        ``texture``, ``hipt``, ``timm:NAME``, ``precomputed:PATH``, or the name under which a package offers its own.
    device
        Torch device that computes: ``cpu``, ``cuda``, ``cuda:1``.
    weights
        Folder of weight files, or for timm a file, for encoders that need some.
    context
        HIPT's ViT-4K sees overlapping ``regions`` of 4096 px, or the whole slide at once as ``published``.
    shifts
        How often patches are laid over the slide, each time shifted: 16, 4 or 1.
    precision
        Of the networks' matrix products.
    """

    name: str
    device: str = "cpu"
    weights: Path | None = None
    context: Context = "regions"
    shifts: int = 16
    precision: Precision = "float32"

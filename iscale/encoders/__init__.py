"""Encoders: an image region in, features per superpixel out."""

from __future__ import annotations

from iscale.encoders.base import Encoder, EncoderSpec, FeatureGroup
from iscale.encoders.registry import get_encoder

__all__ = ["Encoder", "EncoderSpec", "FeatureGroup", "get_encoder"]

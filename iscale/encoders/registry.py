"""Encoders by name: those of this package, timm's, and those that other packages offer."""

from __future__ import annotations

from functools import lru_cache

from iscale.encoders.base import Encoder
from iscale.encoders.spec import EncoderSpec


@lru_cache(maxsize=1)
def get_encoder(spec: EncoderSpec) -> Encoder:
    """The encoder of a specification, made once per process.

    Raises
    ------
    InputError
        If no encoder has that name, or it cannot be made from what it is given.
    """
    if spec.name == "hipt":
        from iscale.encoders.hipt import HiptEncoder

        return HiptEncoder(spec)
    if spec.name == "texture":
        from iscale.encoders.texture import TextureEncoder

        return TextureEncoder(spec.device)
    raise ValueError(f"no encoder is called {spec.name}")

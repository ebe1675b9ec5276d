"""Encoders: an image region in, features per superpixel out."""

from __future__ import annotations

from functools import lru_cache

from iscale.encoders.base import Encoder, FeatureGroup

__all__ = ["Encoder", "FeatureGroup", "get_encoder"]


@lru_cache(maxsize=1)
def get_encoder(name: str, device: str) -> Encoder:
    """The encoder of a name, made once per process.

    Parameters
    ----------
    name
        ``texture``.
    device
        ``cpu`` or ``cuda``.

    Raises
    ------
    ValueError
        If no encoder has that name.
    """
    if name == "texture":
        from iscale.encoders.texture import TextureEncoder

        return TextureEncoder(device)
    raise ValueError(f"no encoder is called {name}")

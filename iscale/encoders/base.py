"""What an encoder is to the rest of the program.

An encoder turns a region of the analysis image into groups of features. A group lives on a lattice: every superpixel
(patch-level features, colour, texture) or every ``stride`` superpixels (context-level features, constant over that
block), and says with which box it is smoothed when the model reads it. Groups are stored unsmoothed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FeatureGroup:
    """Features that share a lattice.

    Parameters
    ----------
    name
        Name of the array in the store, under ``features/``.
    features
        One name per feature, in order.
    stride
        Superpixels per lattice cell and axis: 1, or 4 for context on the 64 px lattice.
    smooth
        Side, in superpixels, of the box with which the model sees the group smoothed; 1 for none.
    """

    name: str
    features: tuple[str, ...]
    stride: int = 1
    smooth: int = 1


class Encoder(Protocol):
    """A region of the image in, features out; one instance lives on each worker."""

    name: str
    groups: tuple[FeatureGroup, ...]
    halo_px: int
    """Pixels around the core that the features depend on; a multiple of 16."""

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on (name, version, weights' hashes), JSON-able, for the fingerprint."""
        ...

    def task_bytes(self, core_shape_px: tuple[int, int]) -> int:
        """Peak bytes that ``encode`` allocates for a core of this height and width, input and output included."""
        ...

    def encode(self, image: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """Features of a core.

        Parameters
        ----------
        image
            (c=3, y, x) RGB of the core grown by ``halo_px`` on every side; beyond the slide, edge pixels repeated.
            The core starts at a multiple of 256 px of the slide and measures whole patches.
        tissue
            (y, x) superpixels of the core that are tissue: features elsewhere are not used.

        Returns
        -------
        dict
            Group's name to (feature, y, x) float32 on the group's lattice of the core. A value must not depend on
            how the slide was cut into cores.
        """
        ...

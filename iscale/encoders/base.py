"""What an encoder is to the rest of the program.

An encoder turns the analysis image into groups of features. A group lives on a lattice: every superpixel (patch-level
features, colour, texture) or every ``stride`` superpixels (context-level features, constant over that block), and says
with which box it is smoothed when the model reads it. Groups are stored unsmoothed.

There are three kinds, by what they must see: a `RegionEncoder` a region with its surroundings, a `PatchEncoder`
square patches, laid over the slide several times with a shift, and a `StoredFeatures` nothing, its features having been
computed elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from iscale.geometry import Region, SlideGrid


Context = Literal["regions", "published"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is made from: small and picklable, so that every worker can make its own.

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

    @property
    def step(self) -> int:
        """Superpixels from a patch of 256 px to the next, so that each superpixel is in ``shifts`` patches."""
        return {16: 4, 4: 8, 1: 16}[self.shifts]


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


COLOUR = FeatureGroup("colour", ("red", "green", "blue"))
"""Mean colour of a superpixel, in 0 to 1: stored beside what a `PatchEncoder` finds."""

CONTEXT_BOX, PATCH_BOX = 16, 4
"""Boxes, in superpixels, with which the model sees vectors and tokens smoothed: those of the method, section 2."""


def patch_groups(context_width: int, token_width: int, step: int) -> tuple[FeatureGroup, ...]:
    """The groups of a `PatchEncoder` whose patches lie ``step`` superpixels apart; no context if that has no width."""
    context, patch = (
        tuple(f"{group}{i}" for i in range(n)) for group, n in (("context", context_width), ("patch", token_width))
    )
    groups = (FeatureGroup("patch", patch, smooth=PATCH_BOX), COLOUR)
    return (FeatureGroup("context", context, stride=step, smooth=CONTEXT_BOX), *groups) if context else groups


class Encoder(Protocol):
    """What all encoders have; one instance lives on each worker."""

    name: str
    groups: tuple[FeatureGroup, ...]

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on (name, version, weights' hashes), JSON-able, for the fingerprint."""
        ...


@runtime_checkable
class RegionEncoder(Encoder, Protocol):
    """A region of the image in, features out."""

    halo_px: int
    """Pixels around the core that the features depend on; a multiple of 16."""

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


class ContextModel(Protocol):
    """A model over the grid of a slide's patch vectors: which patches lie around a patch."""

    window: int | None
    """Side of the windows, in patches, that slide over the grid by half their side; ``None``: the whole slide is one
    grid, edge-padded to whole multiples of 16 patches."""

    width: int
    """Numbers per patch that come out."""

    device: str
    """Torch device that computes."""

    def bytes_for(self, rows: int, columns: int) -> int:
        """Peak bytes of a grid of this shape."""
        ...

    def __call__(self, vectors: Tensor) -> Tensor:
        """Grids (grid, y, x, vector) in, (grid, y, x, width) out, float32 on the device."""
        ...


@runtime_checkable
class PatchEncoder(Encoder, Protocol):
    """Square patches of the image in, a token per superpixel and a vector per patch out.

    Patches lie on a lattice of ``step`` superpixels; a superpixel's features are the mean over the patches that cover
    it. ``groups`` are, in this order: ``context`` (from the vectors; its stride is ``step``; left out if there are no
    vectors), ``patch`` (from the tokens), and `COLOUR`.
    """

    patch: int
    """Side of a patch, in superpixels."""

    step: int
    """Superpixels from one patch to the next; divides ``patch`` and 128."""

    vector_width: int
    """Length of a patch's vector; 0 if there is none."""

    token_width: int
    """Length of a superpixel's token."""

    context: ContextModel | None
    """What makes the context of the vectors; ``None``: the vectors themselves are the context."""

    device: str
    """Torch device that computes."""

    model_bytes: int
    """Bytes of the weights, as held."""

    def patch_bytes(self) -> int:
        """Peak bytes of `encode` per patch of a batch."""
        ...

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens and vectors of a batch.

        Parameters
        ----------
        images
            (patch, c=3, y, x) uint8 RGB on the encoder's device, of ``16 * self.patch`` pixels a side.

        Returns
        -------
        tuple
            Tokens (patch, y, x, token_width) float32, one per superpixel; vectors (patch, vector_width) float32, or
            ``None``. What is computed for a patch must not depend on its batch beyond rounding.
        """
        ...


@runtime_checkable
class StoredFeatures(Encoder, Protocol):
    """Features computed elsewhere, read from files."""

    def check(self, grid: SlideGrid) -> None:
        """Refuse a slide to whose grid the features do not belong; ``groups`` are known from then on.

        Raises
        ------
        InputError
            If they do not, with both grids.
        """
        ...

    def read(self, group: FeatureGroup, cells: Region) -> NDArray[np.float32]:
        """A region of a group, in cells of its lattice: (feature, y, x) float32; NaN where there are none."""
        ...

"""The squares of a zoomed slide: pure arithmetic.

Zoom 0 shows the whole slide in one tile of 256 px; every further one halves what a pixel covers; at the finest a pixel
is one of the analysis image. A superpixel is 16 of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.view.refused import RefusedError

TILE_PX = 256
SUPERPIXEL_LEVEL = SUPERPIXEL_PX.bit_length() - 1
"""Level, that is halvings of the analysis image, at which a pixel is a superpixel."""


@dataclass(frozen=True)
class Tile:
    """A tile and what it covers.

    Attributes
    ----------
    level
        Halvings of the analysis image.
    pixels
        Of that level, what the tile covers; it may reach beyond the slide.
    """

    level: int
    pixels: Region

    @property
    def step(self) -> int:
        """Superpixels, per side, that are averaged into a cell of an overlay."""
        return 1 << max(0, self.level - SUPERPIXEL_LEVEL)

    @property
    def repeat(self) -> int:
        """Pixels of the tile, per side, that show one cell of an overlay."""
        return 1 << max(0, SUPERPIXEL_LEVEL - self.level)

    @property
    def cells(self) -> Region:
        """What the tile covers of the lattice of cells of `step` superpixels."""
        side = TILE_PX // self.repeat
        row, column = self.pixels.y0 // TILE_PX, self.pixels.x0 // TILE_PX
        return Region(row * side, (row + 1) * side, column * side, (column + 1) * side)


@dataclass(frozen=True)
class Zooms:
    """Zooms and tiles of a slide.

    Parameters
    ----------
    shape_px
        Height and width of the analysis image.

    Examples
    --------
    >>> zooms = Zooms((4096, 3000))
    >>> zooms.finest, zooms.coarsest_of_superpixels
    (4, 0)
    >>> tile = zooms.tile(4, 11, 15)
    >>> tile.level, str(tile.pixels), str(tile.cells), tile.repeat
    (0, 'y 3840:4096, x 2816:3072', 'y 240:256, x 176:192', 16)
    """

    shape_px: tuple[int, int]

    @property
    def finest(self) -> int:
        """The zoom at which a pixel is one of the analysis image."""
        return max(0, (-(-max(self.shape_px) // TILE_PX) - 1).bit_length())

    @property
    def coarsest_of_superpixels(self) -> int:
        """The zoom at which a pixel is a superpixel, 0 where the slide is smaller."""
        return max(0, self.finest - SUPERPIXEL_LEVEL)

    def tile(self, zoom: int, x: int, y: int) -> Tile:
        """A tile, the ``x``-th from the left and the ``y``-th from the top.

        Raises
        ------
        RefusedError
            Where there is no such zoom, or the tile lies off the slide.
        """
        if zoom > self.finest:
            raise RefusedError(404, f"There is no zoom {zoom}: this slide has 0 to {self.finest}.")
        level = self.finest - zoom
        height, width = (-(-n // (TILE_PX << level)) for n in self.shape_px)
        if x >= width or y >= height:
            raise RefusedError(
                404, f"Tile x {x}, y {y} lies off the slide, which has {width} x {height} at zoom {zoom}."
            )
        return Tile(level, Region(y * TILE_PX, (y + 1) * TILE_PX, x * TILE_PX, (x + 1) * TILE_PX))

"""Where things are: regions of arrays, and the grids of a slide, as immutable values.

Arrays are (y, x), positions are (x, y). Three grids tile a slide: pixels of the slide file ("raw"), pixels of the
analysis image (rescaled to ``pixel_size_um``, padded to whole patches), and superpixels of 16 x 16 analysis pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SUPERPIXEL_PX = 16
"""Side of a superpixel in pixels of the analysis image (method, words)."""

PATCH_PX = 256
"""The analysis image is padded with white, right and bottom, to a multiple of this (method, section 1)."""


@dataclass(frozen=True, order=True)
class Region:
    """A half-open box ``[y0, y1) x [x0, x1)`` of a two-dimensional grid.

    >>> Region(0, 4, 2, 10).shape
    (4, 8)
    >>> Region(1, 2, 3, 4).scaled(16)
    Region(y0=16, y1=32, x0=48, x1=64)
    """

    y0: int
    y1: int
    x0: int
    x1: int

    def __post_init__(self) -> None:
        if not (0 <= self.y0 < self.y1 and 0 <= self.x0 < self.x1):
            raise ValueError(f"not a region: {self.y0}:{self.y1}, {self.x0}:{self.x1}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def area(self) -> int:
        """Number of cells."""
        return self.shape[0] * self.shape[1]

    @property
    def slices(self) -> tuple[slice, slice]:
        """The region as an index of a (y, x) array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def scaled(self, factor: int) -> Region:
        """The same place on a grid ``factor`` times finer."""
        return Region(self.y0 * factor, self.y1 * factor, self.x0 * factor, self.x1 * factor)

    def coarsened(self, factor: int) -> Region:
        """The cells of a grid ``factor`` times coarser that this region touches.

        >>> Region(3, 9, 0, 4).coarsened(4)
        Region(y0=0, y1=3, x0=0, x1=1)
        """
        return Region(self.y0 // factor, -(-self.y1 // factor), self.x0 // factor, -(-self.x1 // factor))

    def grown(self, halo: int, shape: tuple[int, ...]) -> Region:
        """This region with ``halo`` more cells on every side, clipped to a grid of ``shape``.

        >>> Region(0, 4, 4, 8).grown(2, (5, 100))
        Region(y0=0, y1=5, x0=2, x1=10)
        """
        return Region(
            max(0, self.y0 - halo),
            min(shape[0], self.y1 + halo),
            max(0, self.x0 - halo),
            min(shape[1], self.x1 + halo),
        )

    def clipped(self, shape: tuple[int, ...]) -> Region:
        """What of this region lies in a grid of ``shape``, in which it begins."""
        return self.grown(0, shape)

    def common(self, other: Region) -> Region | None:
        """What two regions share.

        >>> Region(0, 4, 0, 4).common(Region(2, 9, 3, 5)), Region(0, 4, 0, 4).common(Region(0, 4, 4, 5))
        (Region(y0=2, y1=4, x0=3, x1=4), None)
        """
        y0, y1, x0, x1 = max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1)
        return Region(y0, y1, x0, x1) if y0 < y1 and x0 < x1 else None

    def within(self, outer: Region) -> tuple[slice, slice]:
        """Index of this region in an array that holds ``outer``."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )

    def tiles(self, side: int) -> Iterator[Region]:
        """Cut along the absolute multiples of ``side``, row by row.

        Tiles lie on the same lattice whatever the region, so work done by tiles does not depend on regions.

        >>> [t.shape for t in Region(2, 6, 0, 4).tiles(4)]
        [(2, 4), (2, 4)]
        """
        for y in range(self.y0 // side * side, self.y1, side):
            for x in range(self.x0 // side * side, self.x1, side):
                yield Region(max(y, self.y0), min(y + side, self.y1), max(x, self.x0), min(x + side, self.x1))

    def __str__(self) -> str:
        return f"y {self.y0}:{self.y1}, x {self.x0}:{self.x1}"


STRAY = 0.02
"""A drawn outline may stray over the border of its image by this share of the longer side."""


@dataclass(frozen=True)
class SlideGrid:
    """The grids of one slide: what the file has, and what the analysis sees.

    >>> grid = SlideGrid((1000, 2000), 0.25, 0.5)
    >>> grid.scale, grid.content_shape_px, grid.shape_px, grid.superpixel_shape
    (0.5, (500, 1000), (512, 1024), (32, 64))
    """

    raw_shape_px: tuple[int, int]
    """Height and width of the slide file's full resolution."""
    raw_pixel_size_um: float
    """Side of one of its pixels, in um."""
    pixel_size_um: float
    """Side of an analysis pixel, in um."""
    bounds_px: Region | None = None
    """The part of the full resolution that was scanned, where the file states one: other tools crop the slide to it."""

    @property
    def scale(self) -> float:
        """Analysis pixels per raw pixel."""
        return self.raw_pixel_size_um / self.pixel_size_um

    @property
    def bounds_parameter(self) -> dict[str, object]:
        """What a fingerprint must know of `bounds_px`; nothing where there are none."""
        part = self.bounds_px
        return {} if part is None else {"bounds": [part.y0, part.y1, part.x0, part.x1]}

    def corner_of_others(
        self, name: str, low_xy: tuple[float, float], high_xy: tuple[float, float]
    ) -> tuple[tuple[float, float], str]:
        """Where the corner (x, y) lies that a file of another tool counts from, and what to tell of it.

        QuPath crops a slide to what was scanned, where the slide states it, and counts from the corner of that; a file
        that spans more, ``low_xy`` to ``high_xy``, counts from the slide's.

        >>> grid = SlideGrid((1000, 2000), 0.5, 0.5, Region(160, 672, 200, 968))
        >>> grid.corner_of_others("a.geojson", (0, 0), (760, 500))[0]
        (200.0, 160.0)
        >>> grid.corner_of_others("a.geojson", (0, 0), (1500, 500))[0]
        (0.0, 0.0)
        """
        if self.bounds_px is None:
            return (0.0, 0.0), ""
        part = self.bounds_px
        (h, w), corner = part.shape, f"x {part.x0}, y {part.y0}"
        margin = STRAY * max(h, w)
        if min(low_xy) >= -margin and high_xy[0] <= w + margin and high_xy[1] <= h + margin:
            told = f"{name} counts from the corner of the scanned part of the slide ({corner}; {w} x {h} px), as QuPath"
            return (float(part.x0), float(part.y0)), told
        return (0.0, 0.0), (
            f"{name} reaches out of the scanned part of the slide ({w} x {h} px from {corner}), as QuPath crops it: it "
            "is taken to count from the corner of the whole slide"
        )

    @property
    def content_shape_px(self) -> tuple[int, int]:
        """Height and width of the slide on the analysis grid, before padding."""
        h, w = (max(1, round(n * self.scale)) for n in self.raw_shape_px)
        return h, w

    @property
    def shape_px(self) -> tuple[int, int]:
        """Height and width of the analysis image, padded to whole patches."""
        h, w = (-(-n // PATCH_PX) * PATCH_PX for n in self.content_shape_px)
        return h, w

    @property
    def superpixel_shape(self) -> tuple[int, int]:
        """Rows and columns of superpixels of the padded analysis image."""
        h, w = self.shape_px
        return h // SUPERPIXEL_PX, w // SUPERPIXEL_PX

    @property
    def superpixel_um(self) -> float:
        """Side of a superpixel, in um."""
        return self.pixel_size_um * SUPERPIXEL_PX

"""TIFF files that are not a scanner's own format: plain, planar and OME-TIFF, tiled or in strips, through tifffile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from iscale.errors import InputError
from iscale.geometry import Region
from iscale.slide.base import (
    Pixels,
    all_transparent,
    bands_of,
    check_free_memory,
    check_region,
    damaged,
    on_white,
    premultiplied_on_white,
    write_npy,
)
from iscale.slide.tiff_image import check_complete, chosen_of, open_tiff, slide_series, stated_pixel_size
from iscale.words import by

LARGEST_SEGMENT_BYTES = 64 << 20
"""A TIFF whose tiles or strips decode to more is read only whole."""

WIDEST_STRIPS_PX = 16384
"""Strips span the width: of wider compressed slides every region would decode many times what it needs."""

EXPORT = "Export the slide as 8-bit RGB (brightfield), e.g. as a tiled pyramidal TIFF."

CONVERT = "Convert it to a TIFF with tiles in JPEG, LZW or Deflate (vips tiffsave IN OUT.tif --tile --pyramid)."

WITH_ALPHA = ((4, "RGB"), (4, "YCBCR"), (2, "MINISBLACK"), (2, "MINISWHITE"))

INTERLEAVED = {"YXS", "YX", "YXC"}
PLANAR = {"SYX", "CYX"}


Alpha = Callable[[Pixels], Pixels]

_ALPHA: dict[int, Alpha] = {1: premultiplied_on_white, 2: on_white}
"""How to lay pixels over white, by the TIFF tag ExtraSamples; 0 is a sample of no known meaning."""

ALPHA_PX = 16_000_000
"""Alpha is looked at in all of a level up to so many pixels, else in windows spread over it."""
WINDOWS, WINDOW_PX = 16, 64


@dataclass(frozen=True)
class _Level:
    """One pyramid level: the TIFF pages that hold its channels, one page, or one for each of three."""

    pages: tuple[Any, ...]
    key: Any

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.key.imagelength), int(self.key.imagewidth)

    @property
    def segment(self) -> tuple[int, int]:
        """Height and width of a tile or strip."""
        if self.key.is_tiled:
            return int(self.key.tilelength), int(self.key.tilewidth)
        return min(int(self.key.rowsperstrip), self.shape[0]), self.shape[1]

    @property
    def samples(self) -> int:
        """Channels, whether in one page or one in each."""
        return int(self.key.samplesperpixel) * len(self.pages)

    @property
    def alpha(self) -> Alpha | None:
        """What a sample beyond those of the colour is; None where it says nothing of transparency, or there is none."""
        kinds = self.key.extrasamples
        return _ALPHA.get(int(kinds[0])) if self.samples in (2, 4) and len(kinds) else None

    @property
    def planes(self) -> int:
        """Separate planes of segments that a page holds (PlanarConfiguration 2)."""
        return int(self.key.shaped[0])


class TiffReader:
    """A TIFF read segment by segment (tile or strip), so that a region costs the segments it touches.

    Grey images become RGB. Which image of the file is the slide, `slide_series` says; SubIFDs are its pyramid. Refused
    is what is cut short, or not 8-bit grey, RGB or RGBA.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tiff = open_tiff(path)
        try:
            self._describe()
        except BaseException:
            self._tiff.close()
            raise

    def _describe(self) -> None:
        """Set the attributes from the file's directories."""
        path = self.path
        series = slide_series(self._tiff)
        _check_kind(path, series)
        self._levels = tuple(_level(level) for level in series.levels)
        self.levels: tuple[tuple[int, int], ...] = tuple(level.shape for level in self._levels)
        for level in self._levels:
            for page in level.pages:
                check_complete(path, page)
        self.pixel_size_um, self.pixel_size_source = stated_pixel_size(self._tiff, series, path)
        self.bounds: Region | None = None
        self.notices: tuple[str, ...] = chosen_of(self._tiff, series)
        first = self._levels[0]
        self._mapped = _memory_map(path, first)
        segment_bytes = math.prod(first.segment) * first.samples
        compressed = first.key.compression != tifffile.COMPRESSION.NONE
        wide_strips = compressed and not first.key.is_tiled and first.shape[1] > WIDEST_STRIPS_PX
        large = segment_bytes > LARGEST_SEGMENT_BYTES and self._mapped is None
        self.needs_decoding = large or wide_strips
        if first.alpha is None and first.samples in (2, 4):
            self.notices += ("the sample beside the colours is not said to be alpha, and is left out",)
        self._check_alpha()
        self.decoding_bytes = 3 * segment_bytes + 6 * math.prod(first.shape[1:]) * first.segment[0] + (64 << 20)

    def _check_alpha(self) -> None:
        """Refuse colours that are transparent everywhere, as far as the coarsest level can tell."""
        if self._levels[-1].alpha is None or self.needs_decoding:
            return
        level, (h, w) = len(self.levels) - 1, self.levels[-1]
        looked_at, regions = f"all {h} x {w} px", bands_of((h, w))
        if h * w > ALPHA_PX:
            rows, columns = (np.linspace(0, n - WINDOW_PX, WINDOWS).astype(int).tolist() for n in (h, w))
            regions = (Region(y, y + WINDOW_PX, x, x + WINDOW_PX) for y in rows for x in columns)
            looked_at = f"all {WINDOWS**2} windows of {WINDOW_PX} px that were looked at"
        coloured = False
        for region in regions:
            channels = self._channels(level, region)
            if channels[..., -1].any():
                return
            coloured |= bool(channels.any())
        if coloured:
            raise all_transparent(self.path, looked_at)

    def read(self, level: int, region: Region) -> Pixels:
        """RGB pixels (y, x, 3) uint8 of a region of a level, transparency on white."""
        check_region(self.path, self.levels, level, region)
        return _to_rgb(self._channels(level, region), self._levels[level])

    def _channels(self, level: int, region: Region) -> Pixels:
        """Samples (y, x, c) of a region, as they are stored."""
        if level == 0 and self._mapped is not None:
            return np.array(self._mapped[region.slices])
        source = self._levels[level]
        channels = np.full((*region.shape, source.samples), 255, np.uint8)
        try:
            for i, page in enumerate(source.pages):
                self._fill(channels[..., i:] if len(source.pages) > 1 else channels, page, source, region)
        except Exception as error:  # codecs raise classes of their own
            raise damaged(self.path, level, region, error) from error
        return channels

    def decode_to(self, npy: Path) -> None:
        """Write level 0 as an uncompressed (y, x, 3) uint8 ``.npy``, one row of segments after the other."""
        shape, rows = self.levels[0], self._levels[0].segment[0]
        check_free_memory(self.path, self.decoding_bytes, shape)
        write_npy(npy, shape, (self.read(0, band) for band in bands_of(shape, rows)))

    def close(self) -> None:
        """Close the file."""
        self._mapped = None
        self._tiff.close()

    def _fill(self, out: Pixels, page: Any, source: _Level, region: Region) -> None:
        """Put a page's pixels of ``region`` into ``out`` (y, x, channel), one segment at a time."""
        for plane in range(source.planes):
            for index, corner in _segments(source, region):
                pixels = self._segment(page, source, plane * _segments_per_plane(source) + index)
                if pixels is None:
                    continue
                y, x = corner
                cell = Region(y, y + pixels.shape[0], x, x + pixels.shape[1])
                if both := cell.common(region):
                    out[both.within(region)][..., plane : plane + pixels.shape[2]] = pixels[both.within(cell)]

    def _segment(self, page: Any, source: _Level, number: int) -> Pixels | None:
        """A tile or strip (y, x, channel), decoded; None where the file leaves it out."""
        offset, size = page.dataoffsets[number], page.databytecounts[number]
        if size == 0:
            return None
        handle = self._tiff.filehandle
        handle.seek(offset)
        data = handle.read(size)
        if len(data) != size:
            raise EOFError(f"segment {number}: {len(data)} of {size} bytes")
        tables = {"jpegtables": source.key.jpegtables} if source.key.jpegtables is not None else {}
        decoded, _, shape = source.key.decode(data, number, **tables)
        if decoded is None:
            return None
        pixels: Pixels = decoded[0, : shape[1], : shape[2]]
        return pixels


def _check_kind(path: Path, series: Any) -> None:
    """Refuse what is not an 8-bit brightfield image."""
    key = series.keyframe
    axes = series.get_axes(squeeze=True)
    known = tifffile.TIFF.DECOMPRESSORS
    for level in series.levels:
        kind = level.keyframe.compression
        if kind != tifffile.COMPRESSION.NONE and kind not in known:
            name = getattr(kind, "name", None)
            said = f"{name}, {int(kind)}" if name else f"compression {int(kind)}"
            raise InputError(f"{path} is compressed in a way that is not read ({said})", CONVERT)
    if key.dtype != np.uint8:
        bits = key.bitspersample
        raise InputError(f"{path} has {bits} bits per channel ({key.dtype}), not 8", EXPORT)
    if axes not in INTERLEAVED | PLANAR:
        raise InputError(
            f"{path} is a stack with axes {axes} {by(series.get_shape(squeeze=True))}, not one image", EXPORT
        )
    samples = int(key.samplesperpixel) * (len(series.pages) if axes == "CYX" else 1)
    photometric = getattr(key.photometric, "name", str(key.photometric))
    if photometric not in ("RGB", "YCBCR", "MINISBLACK", "MINISWHITE", "CFA", "LINEAR_RAW"):
        raise InputError(f"{path} has colours of kind {photometric}", EXPORT)
    in_one = int(key.samplesperpixel) == samples
    if samples not in (1, 3) and not (in_one and (samples, photometric) in WITH_ALPHA):
        raise InputError(f"{path} has {samples} channels ({photometric}), not 1 (grey), 3 (RGB) or 4 (RGBA)", EXPORT)


def _level(series: Any) -> _Level:
    key = series.keyframe
    pages = tuple(series.pages) if int(key.samplesperpixel) == 1 else (series.pages[0],)
    return _Level(pages, key)


def _memory_map(path: Path, level: _Level) -> Pixels | None:
    """Pixels (y, x, channel) of an image that lies uncompressed and in one piece, as ImageJ writes it."""
    if len(level.pages) > 1 or level.planes > 1 or not level.key.is_memmappable:
        return None
    shape = (*level.shape, level.samples)
    return np.memmap(path, np.uint8, "r", offset=int(level.key.dataoffsets[0]), shape=shape)


def _segments_per_plane(level: _Level) -> int:
    (h, w), (sh, sw) = level.shape, level.segment
    return math.ceil(h / sh) * math.ceil(w / sw)


def _segments(level: _Level, region: Region) -> Iterator[tuple[int, tuple[int, int]]]:
    """Index within its plane, and corner (y, x), of every segment that a region touches."""
    (_, w), (sh, sw) = level.shape, level.segment
    across = math.ceil(w / sw)
    for row in range(region.y0 // sh, math.ceil(region.y1 / sh)):
        for column in range(region.x0 // sw, math.ceil(region.x1 / sw)):
            yield row * across + column, (row * sh, column * sw)


def _to_rgb(channels: Pixels, level: _Level) -> Pixels:
    """Channels (y, x, c) as stored, as RGB."""
    colours = 1 if channels.shape[2] < 3 else 3
    values = channels[..., :colours]
    if level.key.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = 255 - values
    if colours == 1:
        values = np.repeat(values, 3, axis=2)
    if level.alpha is None:
        return np.ascontiguousarray(values)
    return level.alpha(np.concatenate([values, channels[..., colours:]], axis=2))

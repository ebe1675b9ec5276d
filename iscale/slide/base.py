"""What every slide reader offers, what readers share, and which slide file this is."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from iscale.engine.whole_file import whole_file
from iscale.errors import InputError, StoreError
from iscale.geometry import Region

BLOCK_BYTES = 64 << 10
BLOCKS = 64


def file_fingerprint(path: Path | str) -> str:
    """Identity of a file for reuse of what was computed from it: a sha256 over samples of it.

    Sampled: the size, the first and the last 64 KiB, and 64 blocks of 64 KiB evenly spaced between. Any change of
    size or metadata, and a re-encoding, change it; a change of a few bytes between the blocks of a file above 4 MiB
    may not. Of a MIRAX slide the sizes of the files in its companion folder count too, of a DICOM slide those of the
    ``.dcm`` files beside it. A file that cannot be read is an
    `InputError`.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(f"{size}".encode())
        last = max(0, size - BLOCK_BYTES)
        offsets = sorted({last * i // (BLOCKS + 1) for i in range(BLOCKS + 2)})
        with path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                digest.update(file.read(BLOCK_BYTES))
        parts: Iterable[Path] = ()
        if path.suffix.lower() == ".mrxs":
            parts = path.with_suffix("").glob("*")
        elif path.suffix.lower() == ".dcm":
            parts = path.resolve().parent.glob("*.[dD][cC][mM]")
        for part in sorted(parts):
            digest.update(f"{part.name} {part.stat().st_size}".encode())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from error
    return digest.hexdigest()


Pixels = npt.NDArray[np.uint8]

DAMAGED = "The file is damaged or was not copied completely: copy or export it again."


class SlideReader(Protocol):
    """A slide file, read by region.

    One reader serves one thread; workers open their own.

    Attributes
    ----------
    path
        The slide's file.
    levels
        Height and width in pixels of every pyramid level; level 0 is the full resolution.
    pixel_size_um
        Side of a level-0 pixel in um as the file states it, None where it does not, or nothing that can be.
    pixel_size_source
        The field of the file that ``pixel_size_um`` comes from, in words for a message; where that is None, why.
    bounds
        The part of level 0 that was scanned, where the file states one that is not all of it. Other tools crop to it.
    notices
        What a user should know of how the file is read.
    needs_decoding
        Whether the file has no random access at bounded memory: then ``decode_to`` a plain array first, and read that.
    decoding_bytes
        Memory that ``decode_to`` takes, at most; about the same is asked of a `read` where ``needs_decoding``.
    """

    path: Path
    levels: tuple[tuple[int, int], ...]
    pixel_size_um: float | None
    pixel_size_source: str
    bounds: Region | None
    notices: tuple[str, ...]
    needs_decoding: bool
    decoding_bytes: int

    def read(self, level: int, region: Region) -> Pixels:
        """RGB pixels (y, x, 3) uint8 of a region of a level; what the slide does not cover is white.

        Raises
        ------
        InputError
            The region cannot be decoded: the file is damaged.
        """
        ...

    def decode_to(self, npy: Path) -> None:
        """Write level 0 as an uncompressed (y, x, 3) uint8 ``.npy``, which `DecodedImage` reads by region."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def check_region(path: Path, levels: Sequence[tuple[int, int]], level: int, region: Region) -> None:
    """Refuse a region that is not inside its level (a mistake of the caller, not of the user)."""
    if not 0 <= level < len(levels):
        raise ValueError(f"{path} has {len(levels)} levels, not level {level}")
    h, w = levels[level]
    if region.y1 > h or region.x1 > w:
        raise ValueError(f"{path}: region {region} reaches out of level {level} ({h} x {w} px)")


def damaged(path: Path, level: int, region: Region, reason: object) -> InputError:
    """The error of a region that cannot be decoded."""
    return InputError(f"{path}: region {region} of level {level} cannot be read ({reason})", DAMAGED)


def on_white(rgba: Pixels) -> Pixels:
    """RGBA (y, x, 4), alpha not premultiplied, laid over white: (y, x, 3).

    >>> on_white(np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)).tolist()
    [[[10, 20, 30], [255, 255, 255]]]
    """
    alpha = rgba[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha.astype(np.uint16)
    blended = (rgba[..., :3] * weight + 255 * (255 - weight) + 127) // 255
    return blended.astype(np.uint8)


def premultiplied_on_white(rgba: Pixels) -> Pixels:
    """RGBA (y, x, 4), colours already multiplied by alpha, laid over white: (y, x, 3).

    >>> premultiplied_on_white(np.array([[[10, 20, 30, 255], [5, 10, 15, 128], [0, 0, 0, 0]]], np.uint8)).tolist()
    [[[10, 20, 30], [132, 137, 142], [255, 255, 255]]]
    """
    over: npt.NDArray[np.uint16] = rgba[..., :3].astype(np.uint16) + (255 - rgba[..., 3:].astype(np.uint16))
    return over.clip(0, 255).astype(np.uint8)


def all_transparent(path: Path, looked_at: str) -> InputError:
    """The error of an image whose colours would not be seen: all of it would be white."""
    return InputError(
        f"{path} is transparent everywhere: alpha is 0 in {looked_at}, so nothing of its colours would be seen",
        "Export it without alpha, or mark its fourth sample as no alpha (TIFF tag ExtraSamples 0).",
    )


def write_npy(npy: Path, shape_px: tuple[int, int], bands: Iterable[Pixels]) -> None:
    """Write consecutive bands of rows, each (rows, x, 3), as one ``.npy`` of (y, x, 3) uint8.

    Plain writes, not a writable memory map: on a full disk a map kills the process instead of raising. A disk that is
    full, or does not take the file, is a `StoreError`.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (*shape_px, 3)}
    try:
        with whole_file(npy) as part, part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for band in bands:
                file.write(np.ascontiguousarray(band).data)
    except OSError as error:
        size = 3 * shape_px[0] * shape_px[1]
        raise StoreError(
            f"{npy} cannot be written: {error.strerror or error} ({size / 1e9:.2f} GB are needed)",
            "Free that much space, or give another output folder.",
        ) from error


def bands_of(shape_px: tuple[int, int], rows: int | None = None) -> Iterator[Region]:
    """Cut an image of (h, w) px into bands of whole rows: of ``rows``, or of about 16 MiB as RGB."""
    h, w = shape_px
    rows = rows or max(1, (16 << 20) // (3 * w))
    for y in range(0, h, rows):
        yield Region(y, min(y + rows, h), 0, w)


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """Without Pillow's limit on the size of images, which honest slides exceed: memory is checked where they decode."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_free_memory(path: Path, needed: int, shape_px: tuple[int, int]) -> None:
    """Refuse to decode what does not fit into the memory that is free now."""
    free = psutil.virtual_memory().available
    if needed > free:
        h, w = shape_px
        raise InputError(
            f"{path}: {h} x {w} px must be decoded in one piece, which takes {needed / 1e9:.1f} GB of memory; "
            f"{free / 1e9:.1f} GB are free",
            "Convert it once to a tiled pyramidal TIFF (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg).",
        )

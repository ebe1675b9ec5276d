"""Pictures inside the page: smaller copies as data URIs, all together within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

BUDGET_BYTES = 7_000_000
"""Of all pictures together, as they stand in the page: that stays under 10 MB with all its tables."""

WIDTHS = (1200, 900, 640, 440, 300)
"""Widest copy in pixels: the first with which all pictures fit the budget."""

QUALITY = 82


@dataclass(frozen=True)
class Embedded:
    """A picture as it stands in the page: its address, and the width and height of the copy in pixels."""

    uri: str
    width: int
    height: int


def embed(paths: Sequence[Path], budget: int = BUDGET_BYTES) -> dict[Path, Embedded]:
    """Copies of pictures that fit a budget together, by file."""
    found: dict[Path, Embedded] = {}
    for width in WIDTHS:
        found = {path: _embedded(path, width) for path in dict.fromkeys(paths)}
        if sum(len(picture.uri) for picture in found.values()) <= budget:
            break
    return found


def _embedded(path: Path, widest: int) -> Embedded:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > widest:
        height = max(1, round(picture.height * widest / picture.width))
        picture = picture.resize((widest, height), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    picture.save(packed, "WEBP", quality=QUALITY, method=4)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return Embedded(f"data:image/webp;base64,{data}", picture.width, picture.height)

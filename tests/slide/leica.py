"""A Leica slide (``.scn``) as its scanner writes it: an overview, and what was scanned at its place on the glass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

NM_PER_PX = 500

XML = """<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:1">
<collection name="c" uuid="urn:uuid:2" sizeX="{wide}" sizeY="{high}"><barcode>eA==</barcode>
<image name="macro" uuid="urn:uuid:3"><creationDate>2020-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400;Leica SCN" version="1"/><pixels sizeX="128" sizeY="64">
<dimension sizeX="128" sizeY="64" r="0" ifd="0"/></pixels>
<view sizeX="{wide}" sizeY="{high}" offsetX="0" offsetY="0" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>0.6</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.03</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image>
<image name="main" uuid="urn:uuid:4"><creationDate>2020-01-01T00:00:00Z</creationDate>
<device model="Leica SCN400;Leica SCN" version="1"/><pixels sizeX="{w}" sizeY="{h}">
<dimension sizeX="{w}" sizeY="{h}" r="0" ifd="1"/></pixels>
<view sizeX="{view_w}" sizeY="{view_h}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image></collection></scn>"""


def write_scn(path: Path, scanned: np.ndarray, corner_xy: tuple[int, int], slide_px: tuple[int, int]) -> None:
    """Write what was scanned (y, x, 3) at a corner (x, y) of a slide of (height, width) px of 0.5 um."""
    (h, w), (high, wide), (x, y) = scanned.shape[:2], slide_px, corner_xy
    sizes = {"wide": wide, "high": high, "view_w": w, "view_h": h, "x": x, "y": y}
    text = XML.format(w=w, h=h, **{name: n * NM_PER_PX for name, n in sizes.items()})
    overview = np.full((64, 128, 3), 240, np.uint8)
    kinds = {"tile": (128, 128), "compression": "jpeg", "compressionargs": {"level": 95}, "metadata": None}
    kinds |= {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(overview, photometric="rgb", description=text, **kinds)
        tiff.write(scanned, photometric="rgb", **kinds)

"""Automatic alignment by images, and by few landmarks, against alignments that are known.

``make bench-alignment``. her2st: sections C3 and C5 onto C4 from the images alone, turned, mirrored and rescaled, with
the pixel size known and not; crops of C3 that hold a quarter of its tissue, onto C4, and onto another organ, where
refusal is the right answer. The two stains of the kidney: automatic, and six of the landmarks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import machine, publish, table
from iscale.align.automatic import AlignmentRefusedError, align_automatically
from iscale.align.fit import fit_landmarks, fit_pairs
from iscale.align.structure import tissue_mask
from iscale.slide.overview import Overview, read_overview
from iscale.transform import Kind, Transform

PIXEL_UM = 0.688
DRAWS, GIVEN = 200, 6
CORNERS = ("top left", "top right", "bottom right", "bottom left", "middle")


def data() -> Path:
    """Folder of the real inputs."""
    return Path(os.environ["ISCALE_DATA"])


def section(name: str) -> Overview:
    """Overview of a section of her2st."""
    return read_overview(data() / "her2st" / f"{name}.jpg", 2048 if name == "C4" else 1024, PIXEL_UM)


def spots(name: str) -> NDArray[np.float64]:
    """Positions (spot, 2) of a section's spots under tissue, in pixels of its image."""
    table = pd.read_csv(data() / "her2st" / f"{name}.spots.tsv", sep="\t")
    return table.loc[table["selected"] == 1, ["pixel_x", "pixel_y"]].to_numpy(np.float64)


def truth(name: str) -> Transform:
    """The alignment of a section onto C4 that is given."""
    affines = json.loads((data() / "her2st" / "alignment.json").read_text())
    return Transform(np.vstack([affines[name]["affine_xy_to_C4_px"], [0.0, 0.0, 1.0]]))


def turned(overview: Overview, degrees: float = 0.0, mirrored: bool = False, scale: float = 1.0) -> Overview:
    """The image as it would be had it been scanned turned, from the back, or at another resolution.

    Its full-resolution pixels stay those of the section, so that the answer is the same.
    """
    height, width = overview.rgb.shape[:2]
    angle = np.radians(degrees)
    flip = -1.0 if mirrored else 1.0
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([flip, 1.0])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ linear.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    forward = np.eye(3)
    forward[:2, :2], forward[:2, 2] = linear, -low
    back = np.linalg.inv(forward)
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    glass = tuple(int(v) for v in np.median(overview.rgb[:20].reshape(-1, 3), axis=0))
    image = Image.fromarray(overview.rgb).transform(
        size, Image.Transform.AFFINE, tuple(back[:2].ravel()), Image.Resampling.BILINEAR, fillcolor=glass
    )
    return replace(overview, rgb=np.asarray(image), to_full=overview.to_full @ back)


def crop(overview: Overview, where: str, share: float = 0.25) -> Overview:
    """The smallest box of the section's shape, in a corner of its tissue or in the middle, with a share of it."""
    mask = tissue_mask(overview)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    y0, y1, x0, x1 = rows[0] - 10, rows[-1] + 10, columns[0] - 10, columns[-1] + 10
    for part in np.linspace(0.1, 1, 200):
        h, w = int((y1 - y0) * part), int((x1 - x0) * part)
        top = {"top": y0, "bottom": y1 - h}.get(where.split()[0], (y0 + y1 - h) // 2)
        left = {"left": x0, "right": x1 - w}.get(where.split()[-1], (x0 + x1 - w) // 2)
        box = slice(max(0, top), top + h), slice(max(0, left), left + w)
        if mask[box].sum() >= share * mask.sum():
            break
    shift = np.array([[1.0, 0.0, box[1].start], [0.0, 1.0, box[0].start], [0.0, 0.0, 1.0]])
    return replace(overview, rgb=overview.rgb[box], to_full=overview.to_full @ shift)


def error_um(transform: Transform, name: str) -> float:
    """Mean distance over the spots between where a transform and the given alignment put them, in um."""
    xy = spots(name)
    return float(np.hypot(*(transform.apply(xy) - truth(name).apply(xy)).T).mean() * PIXEL_UM)


def outcome(capture: Overview, mother: Overview, error: Callable[[Transform], float]) -> list[str]:
    """Error and confidence, or that it was refused, and the time."""
    start = time.perf_counter()
    try:
        found = align_automatically(capture, mother)
        said = [f"{error(found):.0f}", f"{found.measures['confidence']:.2f}"]
    except AlignmentRefusedError:
        said = ["refused", ""]
    return [*said, f"{time.perf_counter() - start:.0f}"]


def her2st_rows() -> list[list[str]]:
    """Sections as they may come, onto C4."""
    mother = section("C4")
    ways: dict[str, Overview]
    rows = []
    for name in ("C3", "C5"):
        own = section(name)
        ways = {f"turned by {angle}": turned(own, angle) for angle in (0, 90, 137, 180)}
        ways |= {"mirrored": turned(own, mirrored=True)}
        ways |= {f"scaled by {scale}": turned(own, scale=scale) for scale in (0.8, 1.25)}
        for way, capture in ways.items():
            for known in (True, False):
                seen = capture if known else replace(capture, full_um=None)
                rows.append(
                    [
                        f"{name}, {way}",
                        "known" if known else "not",
                        *outcome(seen, mother, lambda t, n=name: error_um(t, n)),
                    ]
                )
    return rows


def crop_rows() -> list[list[str]]:
    """Quarters of C3, onto C4 and onto another organ."""
    mother = section("C4")
    other = read_overview(data() / "st_mob" / "MOB1.jpg", 2048, 4.6)
    rows = []
    for where in CORNERS:
        part = crop(section("C3"), where)
        rows.append([f"C3, a quarter, {where}", "known", *outcome(part, mother, lambda t: error_um(t, "C3"))])
        rows.append(["the same onto MOB1 (wrong: to be refused)", "known", *outcome(part, other, lambda _: np.nan)])
    return rows


def kidney() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matching landmarks (landmark, 2) of the two stains, in pixels of the two images."""
    he, ck = (
        pd.read_csv(data() / "landmarks" / f"Rat-Kidney_{stain}.csv", index_col=0) for stain in ("PanCytokeratin", "HE")
    )
    both = he.index.intersection(ck.index)
    return he.loc[both].to_numpy(np.float64), ck.loc[both].to_numpy(np.float64)


def draws(kind: Kind, seed: int = 0) -> NDArray[np.float64]:
    """Error of fits to six landmarks on the others, over that of the fit to all: (draw,)."""
    own, theirs = kidney()
    best = Transform(fit_pairs(own, theirs, kind))
    random = np.random.default_rng(seed)
    ratios = []
    for _ in range(DRAWS):
        given = random.permutation(len(own)) < GIVEN
        fitted = Transform(fit_landmarks(own[given], theirs[given], kind, um_per_px=1.0).matrix)
        off = [np.hypot(*(t.apply(own[~given]) - theirs[~given]).T).mean() for t in (fitted, best)]
        ratios.append(off[0] / off[1])
    return np.array(ratios)


def landmark_rows() -> list[list[str]]:
    """Both kinds of transform."""
    rows = []
    for kind in ("similarity", "affine"):
        ratios = draws(kind)
        rows.append([kind, f"{np.median(ratios):.2f}", f"{np.quantile(ratios, 0.95):.2f}"])
    return rows


def kidney_row() -> list[str]:
    """The two stains by their images: median error over the landmarks, in pixels of the images."""
    own, theirs = kidney()
    images = [read_overview(data() / "landmarks" / f"Rat-Kidney_{stain}.jpg") for stain in ("PanCytokeratin", "HE")]

    def error(found: Transform) -> float:
        return float(np.median(np.hypot(*(found.apply(own) - theirs).T)))

    best = error(Transform(fit_pairs(own, theirs, "similarity")))
    return [
        f"PanCytokeratin onto HE (px; similarity fitted to all landmarks: {best:.0f})",
        "not",
        *outcome(*images, error),
    ]


def main() -> None:
    """Print and publish."""
    rows = [*her2st_rows(), *crop_rows(), kidney_row()]
    text = [
        f"{machine()}; `make bench-alignment`. Error: mean over the spots, in um.",
        "",
        table(["image", "pixel size", "error", "confidence", "seconds"], rows),
        "",
        f"Landmarks: {GIVEN} of the kidney's pairs, {DRAWS} draws; error on the others over that of the same kind of "
        "transform fitted to all.",
        "",
        table(["kind", "median ratio", "95th percentile"], landmark_rows()),
    ]
    publish("alignment", "\n".join(text))


if __name__ == "__main__":
    main()

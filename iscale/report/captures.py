"""Sections of a report: the slide; the captures, where they lie on it, and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from iscale.captures.stage import on_mother, open_capture
from iscale.plots.labels import draw_slide
from iscale.plots.overview import image_overview, reduction
from iscale.report.page import Facts, Figure, Finding, Item, Missing, Section, Text, Weight, not_made, table_of
from iscale.report.scene import Scene, mean_plane, share_of
from iscale.report.values import NOT_KNOWN, count, percent, read_json, shown
from iscale.words import plural

LONGEST_PX = 1100


def slide_section(scene: Scene, captures: dict[str, NDArray[np.float64]]) -> Section:
    """The slide at a glance, with the positions (spot, 2) of each capture's spots, in um."""
    grid, items = scene.grid, list[Item]()
    height_mm, width_mm = (n * grid.pixel_size_um / 1000 for n in grid.content_shape_px)
    rows, columns = grid.superpixel_shape
    facts = [
        ("slide", f"{width_mm:.1f} x {height_mm:.1f} mm"),
        ("file", f"{grid.raw_shape_px[1]:,} x {grid.raw_shape_px[0]:,} px of {grid.raw_pixel_size_um:.4g} µm"),
        ("superpixels", f"{count(rows * columns)}, {grid.superpixel_um:g} µm wide"),
    ]
    if scene.store.has("tissue/mask"):
        on, total = share_of(scene.store, "tissue/mask")
        area = on * grid.superpixel_um**2 / 1e6
        facts.append(("tissue", f"{plural(on, 'superpixel')} ({percent(on / total)}), {area:.1f} mm²"))
        items.append(_figure(scene, captures))
    else:
        items.append(Missing("The tissue has not been found yet.", scene.command("tissue")))
    facts.append(("genes", count(len(scene.genes()))))
    return Section("slide", "The slide", (Facts(tuple(facts)), *items))


def _figure(scene: Scene, captures: dict[str, NDArray[np.float64]]) -> Figure:
    grid = scene.grid
    height, width = (n * grid.pixel_size_um for n in grid.content_shape_px)
    image, extent = image_overview(scene.store, (0.0, width, 0.0, height), LONGEST_PX)
    mask = scene.store.array("tissue/mask")
    factor = reduction(mask.shape)
    path = scene.figure("slide")
    draw_slide(path, image, extent, mean_plane(mask, factor), grid.superpixel_um * factor, captures)
    names = ", ".join(captures) or "no captures"
    alt = f"The stained slide with the outline of its tissue, and frames where captures lie: {names}."
    return Figure(path, alt, "Black: outline of the tissue. Coloured: the captures, where they lie on the slide.")


FOLDER = "alignment"
MOST_FIGURES = 12
"""Alignments shown; all are in the folder."""
MOST_PLACES = 20_000
"""Spots of a capture whose places are enough for its hull."""


@dataclass(frozen=True)
class CaptureFacts:
    """A capture as the run holds it.

    ``xy_um`` (spot, 2) is where its spots, or some of them, lie on the slide; ``placed`` what is known of its
    alignment: ``how``, ``verdict``, ``reasons``, ``quality``; empty for aligned tables.
    """

    name: str
    platform: str
    spots: int
    genes: int
    diameter_um: float
    xy_um: NDArray[np.float64]
    placed: dict[str, Any]


def read_captures(scene: Scene) -> list[CaptureFacts]:
    """The captures of the run, by name."""
    if not scene.store.has("captures"):
        return []
    aligned = read_json(scene.store.folder / FOLDER / "alignment.json")
    names = sorted(zarr.open_group(scene.store.root, path="captures", mode="r").group_keys())
    return [_read(scene, name, aligned.get(name, {})) for name in names]


def _read(scene: Scene, name: str, placed: dict[str, Any]) -> CaptureFacts:
    data = open_capture(zarr.open_group(scene.store.root, path=f"captures/{name}", mode="r"), counts=False)
    metadata = data.uns["spatial"][name]["metadata"]
    xy_um = on_mother(data)
    every = max(1, len(xy_um) // MOST_PLACES)
    return CaptureFacts(
        name=name,
        platform=str(metadata["platform"]),
        spots=data.n_obs,
        genes=data.n_vars,
        diameter_um=float(metadata["spot_diameter_um"]),
        xy_um=xy_um[::every],
        placed=placed if isinstance(placed, dict) else {},
    )


def captures_section(scene: Scene, captures: list[CaptureFacts]) -> Section:
    """The captures, how they were placed, and how far they agree."""
    title = "Captures and their alignment"
    if not captures:
        return not_made("captures", title, "The run holds no captures yet.", scene.command("fit"))
    items: list[Item] = [_measured(scene, captures)]
    training = scene.attributes("training")
    if scene.store.has("training/depth"):
        spots = scene.store.array("training/depth").shape[0]
        items.append(Facts((("training spots", f"{count(spots)}, after close ones were merged"),)))
    placed = [capture for capture in captures if capture.placed]
    if placed:
        items.append(_placed(placed))
        reasons = {capture.name: " ".join(map(str, capture.placed.get("reasons", []))) for capture in placed}
        items += [Text(f"{name}: {text}") for name, text in reasons.items() if text]
    else:
        items.append(Text("All captures were given by tables that are aligned already: there is nothing to judge."))
    if agreement := training.get("agreement"):
        items.append(_agreement(agreement))
    items += _figures(scene, placed)
    return Section("captures", title, tuple(items))


def _measured(scene: Scene, captures: list[CaptureFacts]) -> Item:
    training = scene.attributes("training")
    scale = dict(zip(training.get("captures", ()), training.get("capture_scale", ()), strict=False))
    rows = [
        [c.name, c.platform, count(c.spots), count(c.genes), f"{c.diameter_um:.3g}", shown(scale.get(c.name))]
        for c in captures
    ]
    head = ("capture", "platform", "spots", "genes measured", "spot diameter (µm)", "counts multiplied by")
    return table_of("What was measured", head, rows)


def _placed(placed: list[CaptureFacts]) -> Item:
    rows = []
    for capture in placed:
        q = capture.placed.get("quality", {})
        residual = q.get("residual_um")
        rows.append(
            [
                capture.name,
                str(capture.placed.get("verdict", NOT_KNOWN)),
                str(capture.placed.get("how", NOT_KNOWN)),
                percent(q.get("overlap")),
                percent(q.get("iou")),
                percent(q.get("spots_on_tissue")),
                shown(q.get("stain_correlation")),
                shown(q.get("counts_correlation")),
                NOT_KNOWN if residual is None else f"{residual:.0f}",
            ]
        )
    head = ("capture", "verdict", "placed by", "tissue on tissue", "outlines agree", "spots on tissue")
    more = ("structures (correlation)", "counts with nuclei (Spearman)", "landmarks off by (µm)")
    return table_of("How well captures lie", (*head, *more), rows)


def _agreement(found: list[dict[str, Any]]) -> Item:
    rows = [
        [
            " and ".join(str(name) for name in pair.get("captures", ())),
            NOT_KNOWN if pair.get("correlation") is None else "no" if pair.get("disagree") else "yes",
            count(pair.get("places", 0)),
            shown(pair.get("correlation")),
            shown(pair.get("ceiling")),
            shown(pair.get("chance")),
        ]
        for pair in found
    ]
    head = ("captures", "agree", "common places", "correlation", "if only noise parted them", "by chance")
    return table_of("Captures where they overlap: median over genes of the correlation over places", head, rows)


def _figures(scene: Scene, placed: list[CaptureFacts]) -> list[Item]:
    found: list[Item] = []
    for capture in placed[:MOST_FIGURES]:
        path = scene.copied(scene.store.folder / FOLDER / f"{capture.name}.png", f"alignment-{capture.name}")
        if path is not None:
            alt = (
                f"Capture {capture.name} on the mother image before and after alignment, laid over it, and as a "
                f"checkerboard. Verdict: {capture.placed.get('verdict', 'not known')}."
            )
            found.append(Figure(path, alt, f"Alignment of {capture.name}.", "full"))
    if len(placed) > MOST_FIGURES:
        found.append(Text(f"Alignments of {len(placed) - MOST_FIGURES} more captures: {FOLDER}/."))
    return found


def captures_findings(captures: list[CaptureFacts]) -> list[Finding]:
    """What the verdict says of the captures."""
    if not captures:
        return [Finding("bad", "The run holds no captures.")]
    total = sum(capture.spots for capture in captures)
    found = [Finding("note", f"{plural(len(captures), 'capture')} with {plural(total, 'spot')} in all.")]
    for capture in captures:
        word = capture.placed.get("verdict")
        if word in ("doubtful", "bad"):
            reasons = " ".join(str(reason) for reason in capture.placed.get("reasons", []))
            weight: Weight = "doubtful" if word == "doubtful" else "bad"
            found.append(Finding(weight, f"Capture {capture.name}: its alignment is {word}. {reasons}".strip()))
    placed = [capture for capture in captures if capture.placed]
    if placed and all(capture.placed.get("verdict") == "good" for capture in placed):
        found.append(Finding("good", f"{plural(len(placed), 'capture')} aligned, all in a good place."))
    return found

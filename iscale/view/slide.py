"""What of a run can be shown: its squares at every zoom, its genes, its classes and their colours.

Zoom 0 shows the whole slide in one tile of 256 px; every further one halves what a pixel covers; at the finest a pixel
is one of the analysis image. A superpixel is 16 of these.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX, Region
from iscale.model.genes import Source, open_source
from iscale.plots.labels import class_colours
from iscale.regions.marker_table import NOTHING, UNCLASSIFIED
from iscale.store.remedies import making
from iscale.store.run_store import RunStore
from iscale.view.query import RefusedError

if TYPE_CHECKING:
    from iscale.results import Run

TILE_PX = 256
SUPERPIXEL_LEVEL = SUPERPIXEL_PX.bit_length() - 1
"""Level, that is halvings of the analysis image, at which a pixel is a superpixel."""


@dataclass(frozen=True)
class Tile:
    """A tile: how often the analysis image is halved for it, and what it covers then; it may reach beyond the slide."""

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
    """Zooms and tiles of a slide, by the (height, width) of its analysis image.

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
        """A tile, the ``x``-th from the left and the ``y``-th from the top."""
        if zoom > self.finest:
            raise RefusedError(404, f"There is no zoom {zoom}: this slide has 0 to {self.finest}.")
        level = self.finest - zoom
        height, width = (-(-n // (TILE_PX << level)) for n in self.shape_px)
        if x >= width or y >= height:
            raise RefusedError(
                404, f"Tile x {x}, y {y} lies off the slide, which has {width} x {height} at zoom {zoom}."
            )
        return Tile(level, Region(y * TILE_PX, (y + 1) * TILE_PX, x * TILE_PX, (x + 1) * TILE_PX))


GROUPS = ("image", "tissue", "captures", "training", "expression", "clusters", "annotation")


@dataclass(frozen=True)
class Classes:
    """A map of classes: its key in addresses, a title, a row of a (row, y, x) array, names and colours of 1, 2 ..."""

    key: str
    title: str
    path: str
    row: int
    names: tuple[str, ...]
    colours: tuple[str, ...]


class Slide:
    """A run as the viewer shows it, at the state in which it was when this was made; what it lacks is not offered."""

    def __init__(self, run: Run) -> None:
        store = run.store
        if not store.has("image/0"):
            raise InputError(
                f"{store.place}: has no image yet, there is nothing to show.", f"Make it: {making(store, 'image')}."
            )
        self.run, self.store = run, store
        self.version = version(store)
        image = store.attributes("image")
        self.levels = len(image["ome"]["multiscales"][0]["datasets"])
        height, width = store.array("image/0").shape[-2:]
        self.zooms = Zooms((height, width))
        self.content_px: tuple[int, int] = tuple(image.get("content_shape_px", (height, width)))
        self.pixel_um = run.pixel_size_um
        self.shape = height // SUPERPIXEL_PX, width // SUPERPIXEL_PX
        self.source: Source | None = open_source(store) if store.has("expression/gene") else None
        self.rows = {name: row for row, name in enumerate(self.source.genes)} if self.source else {}
        self.has_cells = store.has("tissue/cells")
        self.classes = {found.key: found for found in (*_clusters(store), *_annotation(store))}

    @property
    def superpixel_um(self) -> float:
        """Side of a superpixel, in um."""
        return self.pixel_um * SUPERPIXEL_PX

    def genes(self) -> Source:
        """The genes, refused where none is predicted yet."""
        if self.source is None:
            raise RefusedError(404, f"No gene is predicted yet: {making(self.store, 'expression')} makes them.")
        return self.source

    def gene(self, name: str) -> str:
        """A gene's name as the run has it, given in any case; refused with the nearest names."""
        source = self.genes()
        alike = [] if source.has(name) else self._by_lower_name.get(name.lower(), [])
        try:
            return alike[0] if len(alike) == 1 else source.gene(name)
        except InputError as error:
            raise RefusedError(404, f"{error.problem} {error.remedy}".strip()) from None

    @functools.cached_property
    def _by_lower_name(self) -> dict[str, list[str]]:
        """Names of genes by their small letters, which several may share."""
        found: dict[str, list[str]] = {}
        for gene in self.genes().genes:
            found.setdefault(gene.lower(), []).append(gene)
        return found

    def classes_of(self, key: str) -> Classes:
        """A map of classes by its key."""
        if key not in self.classes:
            known = ", ".join(self.classes) or "none"
            raise RefusedError(404, f"There is no map of classes {key!r}; this run has: {known}.")
        return self.classes[key]

    @functools.cached_property
    def trust(self) -> dict[str, str]:
        """What the trust table says of genes, in a few words; empty where no gene has been held out."""
        try:
            table = self.run.trust
        except (InputError, OSError, ValueError):
            return {}
        said = zip(table.index, table["word"], table["score"], strict=True)
        return {
            str(gene): f"{word}, held-out correlation {score:.2f}" if np.isfinite(score) else str(word)
            for gene, word, score in said
        }

    def trust_in(self, gene: str) -> str:
        """How far a gene's map can be believed, in a few words."""
        why = "this gene was not held out" if self.trust else "no gene has been held out yet"
        return self.trust.get(gene, f"not tested ({why})")

    def captures(self) -> list[str]:
        """Names of the captures, in the order of the training."""
        if not (self.store.has("captures") and self.store.has("training")):
            return []
        return [str(name) for name in self.store.attributes("training")["captures"]]


def version(store: RunStore) -> str:
    """A text that changes when the run does: of its groups' fingerprints, and of the ledgers as they grow."""
    parts = [str(sorted(store.attributes(group).items())) for group in GROUPS if store.has(group)]
    if not store.url:
        files = sorted(store.ledgers.glob("*.jsonl"))
        parts += [f"{path.name} {found.st_size} {found.st_mtime_ns}" for path in files if (found := path.stat())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _clusters(store: RunStore) -> list[Classes]:
    found = []
    if not store.has("clusters/labels"):
        return []
    for row, k in enumerate(int(k) for k in np.asarray(store.array("clusters/n_clusters")[...])):
        for which, of in (("labels", ""), ("refined", " of superpixels with cells")):
            names = [str(cluster) for cluster in range(1, k + 1)]
            if store.has(f"clusters/{which}_sizes"):
                sizes = np.asarray(store.array(f"clusters/{which}_sizes")[row, :k], np.float64)
                shares = sizes / max(1.0, float(sizes.sum()))
                names = [f"{name} ({share:.1%})" for name, share in zip(names, shares, strict=True)]
            key = f"clusters-{k}" + ("" if which == "labels" else "-refined")
            colours = tuple(class_colours(k))
            found.append(Classes(key, f"{k} clusters{of}", f"clusters/{which}", row, tuple(names), colours))
    return found


def _annotation(store: RunStore) -> list[Classes]:
    if not store.has("annotation/labels"):
        return []
    labels = list(store.names("annotation/label"))
    names, colours = (*labels, UNCLASSIFIED), (*class_colours(len(labels)), NOTHING)
    thresholds = np.asarray(store.array("annotation/threshold")[...], np.float64)
    return [
        Classes(
            f"annotation-{row}", f"annotation, score at least {least:.2f}", "annotation/labels", row, names, colours
        )
        for row, least in enumerate(thresholds)
    ]

"""What of a run can be shown: its grid, its genes, its classes and their colours."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iscale.errors import InputError
from iscale.geometry import SUPERPIXEL_PX
from iscale.model.genes import Source, open_source
from iscale.plots.draw import COLOURS, SPREAD_COLOURS
from iscale.plots.labels import class_colours
from iscale.regions.annotation_maps import NOTHING
from iscale.regions.marker_table import UNCLASSIFIED
from iscale.store.lock import holder
from iscale.store.remedies import making
from iscale.store.run_store import RunStore
from iscale.view import paint
from iscale.view.refused import RefusedError
from iscale.view.zooms import SUPERPIXEL_LEVEL, Zooms

if TYPE_CHECKING:
    from iscale.results import Run

GROUPS = ("image", "tissue", "captures", "training", "expression", "clusters", "annotation")


@dataclass(frozen=True)
class Classes:
    """A map of classes.

    Attributes
    ----------
    key
        Its name in addresses.
    title
        For people.
    path, row
        The array, (row, y, x), and which row of it.
    names, colours
        Of the classes 1, 2 ...
    """

    key: str
    title: str
    path: str
    row: int
    names: tuple[str, ...]
    colours: tuple[str, ...]


class Slide:
    """A run as the viewer shows it, at the state in which it was when this was made.

    Parameters
    ----------
    run
        The run; what it lacks is not offered.

    Raises
    ------
    InputError
        Where there is not even an image.
    """

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
        """A gene's name, checked; refused with the nearest names."""
        try:
            return self.genes().gene(name)
        except InputError as error:
            raise RefusedError(404, f"{error.problem} {error.remedy}".strip()) from None

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

    def describe(self) -> dict[str, Any]:
        """What the page needs to know."""
        source = self.source
        missing = [] if source else [("genes", "expression")]
        missing += [] if self.has_cells else [("refined expression", "tissue/cells")]
        missing += [(group, group) for group in ("clusters", "annotation") if not self.store.has(f"{group}/labels")]
        return {
            "name": _name(self.store),
            "place": str(self.store.place),
            "version": self.version,
            "holder": "" if self.store.url else holder(self.store.folder),
            "missing": [f"no {what} yet ({making(self.store, path)} makes it)" for what, path in missing],
            "outdated": [part for part in GROUPS if self.store.has(part) and self.store.outdated(part)],
            "shape_px": list(self.zooms.shape_px),
            "content_px": list(self.content_px),
            "pixel_um": self.pixel_um,
            "superpixel_um": self.superpixel_um,
            "finest": self.zooms.finest,
            "finest_of_overlays": self.zooms.coarsest_of_superpixels,
            "levels_to_superpixel": min(SUPERPIXEL_LEVEL, self.zooms.finest),
            "genes": len(source.genes) if source else 0,
            "written": source.written if source else 0,
            "imputed": source.imputed if source else 0,
            "first_gene": source.genes[0] if source and source.genes else "",
            "refined": bool(source and self.has_cells),
            "classes": [
                {"key": c.key, "title": c.title, "names": c.names, "colours": c.colours} for c in self.classes.values()
            ],
            "captures": self.captures(),
            "colour_maps": {name: paint.hexadecimal(paint.palette(name)[1:]) for name in paint.COLOUR_MAPS},
            "default_map": {"gene": COLOURS, "refined": COLOURS, "uncertainty": SPREAD_COLOURS},
        }

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


def _name(store: RunStore) -> str:
    """A short name of the run: its project's folder."""
    if store.url:
        return store.url.rstrip("/").rsplit("/", 1)[-1]
    folder = store.folder.resolve()
    return folder.parent.name if folder.name == "iSCALE_output" else folder.name


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

"""A run while it is looked at: all that answers requests, made anew when the run has changed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from iscale.view.answers import Search, Spots, about, histogram, value_at
from iscale.view.planes import QUANTITIES, Planes
from iscale.view.query import Query, RefusedError
from iscale.view.region import Regions
from iscale.view.slide import Slide, version
from iscale.view.tiles import Tiles
from iscale.view.work import ByteCache

if TYPE_CHECKING:
    from iscale.results import Run

ANSWERS_BYTES = 16 * 2**20
"""Of tiles and of other answers, as they are sent; browsers keep their own."""

LOOK_AGAIN_S = 5.0
"""How often it is looked whether the run has changed."""


class Answer(NamedTuple):
    """What is sent: bytes, their media type, and whether a browser may keep them."""

    body: bytes
    kind: str
    keep: bool = False


class State:
    """What answers requests at one state of a run."""

    def __init__(self, run: Run) -> None:
        self.slide = slide = Slide(run)
        self.planes = Planes(slide)
        self.tiles = Tiles(slide, self.planes)
        self.spots = Spots(slide)
        self.regions = Regions(slide, self.planes)
        self.search = Search(slide.source.genes if slide.source else (), slide.source.written if slide.source else 0)
        self.answers: ByteCache[Answer] = ByteCache(ANSWERS_BYTES, lambda answer: len(answer.body))


class Viewed:
    """A run that is looked at."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._state = State(run)
        self._looked = time.monotonic()

    def known(self) -> State | None:
        """What answers requests now, where that is known without a look at the disk."""
        return self._state if time.monotonic() - self._looked <= LOOK_AGAIN_S else None

    def state(self) -> State:
        """What answers requests now, made anew where the run has changed."""
        with self._lock:
            if time.monotonic() - self._looked > LOOK_AGAIN_S:
                if version(self._run.store) != self._state.slide.version:
                    self._state = State(type(self._run)(self._run.store))  # nothing of it remembered
                self._looked = time.monotonic()
            return self._state

    def tile(self, state: State, layer: str, zoom: int, x: int, y: int, query: Query) -> Answer:
        """A tile."""
        return Answer(*state.tiles.make(layer, (zoom, x, y), query), keep=True)

    def about(self, state: State) -> Answer:
        """What the run has."""
        return as_json(about(state.slide))

    def genes(self, state: State, query: Query) -> Answer:
        """Genes by a part of their names."""
        state.slide.genes()
        return as_json(state.search.find(query.text("q"), query.whole("most", 1, 50, 20)), keep=True)

    def histogram(self, state: State, query: Query) -> Answer:
        """The distribution of a gene over the slide."""
        gene = state.slide.gene(query.text("gene"))
        found = histogram(state.planes, _quantity(query), gene)
        return as_json(found | {"trust": state.slide.trust_in(gene)}, keep=True)

    def value(self, state: State, query: Query) -> Answer:
        """What lies at a position."""
        at = query.number("x"), query.number("y")
        return as_json(value_at(state.slide, state.planes, *at, query.text("gene"), query.text("gene2")))

    def spots(self, state: State, query: Query) -> Answer:
        """Measured values of a capture."""
        return as_json(state.spots.of_gene(query.text("capture"), state.slide.gene(query.text("gene"))), keep=True)

    def region(self, state: State, query: Query, body: bytes, gone: Callable[[], bool]) -> Answer:
        """A region's table, as JSON or as CSV."""
        try:
            corners = json.loads(body)["corners"]
        except (ValueError, TypeError, KeyError):
            raise RefusedError(400, 'The body is not JSON with "corners".') from None
        gene = query.text("gene")
        table = state.regions.table(corners, _quantity(query), state.slide.gene(gene) if gene else "", gone)
        return as_json(table)


def as_json(value: Any, *, keep: bool = False) -> Answer:
    """An answer of JSON."""
    return Answer(json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), "application/json", keep)


def _quantity(query: Query) -> str:
    quantity = query.text("quantity", "gene")
    if quantity not in QUANTITIES:
        raise RefusedError(404, f"There is no quantity {quantity!r}; there are: {', '.join(QUANTITIES)}.")
    return quantity

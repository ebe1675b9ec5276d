"""What was read of captures' files, kept while several want it: a check and the run that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from iscale.captures.match import Matched, read_matched
from iscale.engine.memory import give_back
from iscale.vendors.base import Measured


class Readings:
    """Reads the files of every capture once, until it is told to forget them."""

    def __init__(self) -> None:
        self._measured: dict[str, Measured] = {}
        self._matched: dict[str, Matched] = {}

    def measured(self, source: Path, **reading: Any) -> Measured:
        """As :func:`iscale.vendors.read.read_measured`."""
        from iscale.vendors.read import read_measured

        key = repr((source.absolute(), sorted(reading.items())))
        if key not in self._measured:
            self._measured[key] = read_measured(source, **reading)
        return self._measured[key]

    def matched(self, name: str, counts: Path, locs: Path) -> Matched:
        """As :func:`iscale.captures.match.read_matched`."""
        key = repr((name, counts.absolute(), locs.absolute()))
        if key not in self._matched:
            self._matched[key] = read_matched(name, counts, locs)
        return self._matched[key]

    def forget(self) -> None:
        """Keep nothing of what was read so far."""
        self._measured, self._matched = {}, {}
        release()


def release() -> None:
    """Return to the system what reading left behind: allocators keep what was freed, up to hundreds of megabytes."""
    pa.default_memory_pool().release_unused()
    give_back()

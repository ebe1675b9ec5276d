"""What is done: one small file per step, appended to as regions finish.

The first line holds the fingerprint of the step (parameters and inputs) and the shard it writes; every further line one
finished region and the small value that it returned. Only the process that drives the run writes it, a line at a time
and flushed to disk, so after a crash a region is either there, and its shards are whole, or it is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from iscale.engine.plan import Plan
from iscale.engine.whole_file import whole_file
from iscale.geometry import Region


def fingerprint(stage: str, parameters: dict[str, Any], *inputs: str) -> str:
    """Hash of what a stage's result depends on: its own parameters and its inputs' fingerprints.

    >>> fingerprint("fit", {"seed": 1}) == fingerprint("fit", {"seed": 1})
    True
    >>> fingerprint("fit", {"seed": 1}) == fingerprint("fit", {"seed": 2})
    False
    """
    text = json.dumps([stage, parameters, inputs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """Finished regions of one step, in a file of the folder of all ledgers of a run."""

    def __init__(self, folder: Path, step: str) -> None:
        self.path = folder / f"{step.replace('/', '.')}.jsonl"

    def finished(self, fingerprint: str, plan: Plan) -> dict[Region, Any]:
        """Regions recorded under this fingerprint and shard, with what they returned.

        Empty if the step is stale: recorded under another fingerprint, or never begun.
        """
        records = [record for line in self._text().splitlines() if (record := _parse(line)) is not None]
        if not records or records[0] != _header(fingerprint, plan):
            return {}
        return {Region(*record["region"]): record["value"] for record in records[1:]}

    def is_of(self, fingerprint: str) -> bool:
        """Whether the last that was recorded, or begun, is of this fingerprint."""
        header = _parse(self._text().partition("\n")[0])
        return header is not None and header.get("fingerprint") == fingerprint

    def _text(self) -> str:
        try:
            return self.path.read_text()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def begin(self, fingerprint: str, plan: Plan) -> None:
        """Start anew, forgetting what was recorded."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path, ".new") as fresh:
            fresh.write_text(json.dumps(_header(fingerprint, plan)) + "\n")

    def forget(self) -> None:
        """Make the step stale."""
        self.path.unlink(missing_ok=True)

    def record(self, region: Region, value: Any) -> None:
        """Append a finished region; its shards must be on disk."""
        box = [region.y0, region.y1, region.x0, region.x1]
        with self.path.open("ab") as file:
            # A line torn by a crash ends where this one starts: give it a line of its own.
            file.write(b"\n" + json.dumps({"region": box, "value": value}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def remaining(plan: Plan, finished: dict[Region, Any]) -> tuple[Region, ...]:
    """Regions of a plan that own a shard which no finished region owned.

    The plan may cut the same shards into other regions than those that were finished.

    >>> from iscale.engine.plan import cut
    >>> plan = Plan((4, 4), (2, 2), cut((4, 4), (2, 2), (1, 2)), 0)
    >>> [str(r) for r in remaining(plan, {Region(0, 4, 0, 2): None, Region(0, 2, 2, 4): None})]
    ['y 2:4, x 0:4']
    """
    done = {shard for region in finished for shard in plan.shards_of(region)}
    return tuple(r for r in plan.regions if not done.issuperset(plan.shards_of(r)))


def _header(fingerprint: str, plan: Plan) -> dict[str, Any]:
    return {"fingerprint": fingerprint, "shape": list(plan.shape), "shard": list(plan.shard)}


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None

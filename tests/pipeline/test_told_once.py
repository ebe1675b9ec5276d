"""What is told of the input is told once; what a command is about to remove, every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from iscale.pipeline.run import describe_plan

REMOVAL = "clusterings of 10 are removed, as this run makes 3; for all of them: --n-clusters 3 10"


def test_notes_of_the_input_are_told_once_and_removals_every_time(tiny_run: Path) -> None:
    report = tiny_run / "iSCALE_output" / "report.json"
    before = json.loads(report.read_text())

    def plan(notices: Any, **options: Any) -> list[str]:
        report.write_text(json.dumps({**before, "notices": notices}))
        return describe_plan(tiny_run, n_clusters=3, **options).splitlines()

    anew = plan([])
    mother = next(line for line in anew if line.startswith("mother image: "))
    assert REMOVAL in anew
    again = plan([mother, REMOVAL])
    assert mother not in again
    assert REMOVAL in again
    assert plan(None) == anew  # a report that was edited
    assert mother in plan([mother, REMOVAL], restart=True)

"""Output that nobody reads to the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("reader", ["head -n 1", pytest.param("true", marks=pytest.mark.full)])
def test_a_reader_that_leaves_early_ends_a_command_quietly(tiny_project: Path, reader: str) -> None:
    run = f"{sys.executable} -m iscale tissue {tiny_project}"
    for command in (f"{run} 2>&1 | {reader}", f"{run} --dry-run | {reader}", f"{run} | {reader}"):
        ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        said = ended.stdout + ended.stderr
        assert "Traceback" not in said
        assert "rror" not in said
    # What was cut short goes on.
    whole = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=False)
    assert whole.returncode == 0
    assert whole.stdout.startswith("tissue: done, in ")

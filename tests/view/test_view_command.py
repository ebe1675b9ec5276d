"""``iscale view``: what it says, when it opens a browser, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from view_run import write_run

from iscale.view.answers import Search
from iscale.view.server import _has_screen, described

SERVE = """
import sys
from iscale import open_run
from iscale.view.server import view_run
view_run(open_run(sys.argv[1]), browser=False)
"""


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    write_run(tmp_path, whole=False)
    started = subprocess.Popen(
        [sys.executable, "-u", "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    url = started.stdout.readline().strip()
    with urllib.request.urlopen(url, timeout=300) as answer:
        assert b"iscale view" in answer.read()
    started.send_signal(signal.SIGINT)
    said, complaints = started.communicate(timeout=300)
    assert "Stopped." in said
    assert (started.returncode, complaints) == (0, "")


def test_others_are_warned_of_and_the_way_from_another_machine_is_told() -> None:
    here = " ".join(described("http://127.0.0.1:81/t/", "127.0.0.1", 81))
    assert "ssh -L 81:127.0.0.1:81" in here
    assert "Warning" not in here
    assert "Warning: 0.0.0.0 can be reached from other machines" in " ".join(described("u", "0.0.0.0", 81))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a screen")
def test_without_a_screen_no_browser_of_text_takes_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not _has_screen()
    monkeypatch.setitem(os.environ, "DISPLAY", ":0")
    assert _has_screen()


def test_twenty_thousand_genes_are_searched_at_once() -> None:
    names = tuple(f"GENE{i}" for i in range(20_000))
    found = Search(names, 1000).find("gene1999")
    assert found["found"] == 11
    assert [gene["name"] for gene in found["genes"]][:2] == ["GENE1999", "GENE19990"]
    assert [gene["written"] for gene in Search(names, 1000).find("GENE99", 3)["genes"]] == [True, True, True]
    assert len(Search(names, 0).find("", 500)["genes"]) == 50

"""Where a step is, as people read it."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger, fingerprint
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.engine.watchers import Bars, Log, for_terminal
from iscale.errors import InputError
from iscale.geometry import Region


class Clock:
    """Seconds, set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_long_step_is_spoken_of_every_half_minute_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    log = Log(clock)
    log.start("fit", 1, 0)
    for tenth in range(1, 10):
        clock.now += 12
        log.reach("fit", tenth / 10)
    clock.now += 12
    log.reach("fit", 1.0)
    log.advance("fit")
    log.stop("fit")
    assert capsys.readouterr().err.splitlines() == [
        "fit: 30 %, 0:00:36 elapsed, 0:01:24 left",
        "fit: 60 %, 0:01:12 elapsed, 0:00:48 left",
        "fit: 90 %, 0:01:48 elapsed, 0:00:12 left",
        "fit: 1 region in 120.0 s",
    ]


def test_what_was_there_already_does_not_count_as_fast(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    log = Log(clock)
    log.start("features", 100, 90)
    clock.now += 60
    log.reach("features", 92.5)
    assert capsys.readouterr().err == "features: 92 %, 2.5/min, 0:01:00 elapsed, 0:03:00 left\n"


def test_a_short_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    log = Log(clock)
    log.start("image/0", 2, 0)
    for done in (1, 2):
        clock.now += 10
        log.reach("image/0", done)
        log.advance("image/0")
    log.stop("image/0")
    assert capsys.readouterr().err == "image/0: 2 regions in 20.0 s\n"


def test_a_bar_shows_parts_of_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "120")
    bars = Bars()
    bars.start("features", 4, 1)
    bars.reach("features", 2.5)
    bars.stop("features")
    bars.reach("features", 3)
    assert "2/4  62%" in screen.getvalue()


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_the_terminal_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def stopped(folder: Path, region: Region) -> int:
        time.sleep(0.2)
        raise error("stopped")

    plan = plan_regions("t", (1, 1), (1, 1), lambda _: 1, Resources(2**31))
    step = Step("t", stopped, tmp_path, plan, fingerprint("t", {}))
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        watcher = for_terminal()
        with pytest.raises(error):
            execute(step, SerialDriver(), Ledger(tmp_path, "t"), watcher)
        terminal.write("END")
        terminal.flush()
        shown = b""
        while not shown.endswith(b"END"):
            shown += screen.read(10_000)
    assert 0 <= shown.rfind(b"\x1b[?25l") < shown.rfind(b"\x1b[?25h"), "the cursor was hidden, and is there again"
    assert [thread.name for thread in drawing() if not ended(thread)] == []


def drawing() -> list[threading.Thread]:
    """The threads that draw bars, four times a second."""
    return [thread for thread in threading.enumerate() if "rich" in type(thread).__module__]


def ended(thread: threading.Thread) -> bool:
    """Whether a thread told to stop does: rich tells it and does not wait for it."""
    thread.join(timeout=300)
    return not thread.is_alive()

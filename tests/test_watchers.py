"""Where a step is, as people read it."""

from __future__ import annotations

import io

import pytest

from iscale.progress import Bars, Log


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
        "fit: 1 regions in 120.0 s",
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

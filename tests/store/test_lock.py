"""One run at a time in a folder: who holds the lock is told, and a holder that is gone holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iscale.errors import StoreError
from iscale.store import lock
from iscale.store.lock import LOCK_FILE, hold, holder

HOLDER = """
import sys, time
from pathlib import Path
from iscale.store.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def held_elsewhere(folder: Path, seconds_ago: float) -> Path:
    """The lock file of a process on another machine that touched it some time ago."""
    path = folder / LOCK_FILE
    path.write_text(json.dumps({"process": 7, "host": "another-machine", "since": time.time() - 4000}))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_a_second_process_is_refused_and_told_who_holds_it_and_for_how_long(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        with (
            pytest.raises(StoreError, match=rf"process {process.pid} on \S+, since .*, that is for 0:00:0\d"),
            hold(tmp_path),
        ):
            pass
        assert f"process {process.pid}" in holder(tmp_path)


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        process.kill()
        process.wait()
        assert holder(tmp_path) == ""
        with hold(tmp_path):
            assert f"process {os.getpid()}" in holder(tmp_path)
    assert holder(tmp_path) == ""


def test_a_holder_on_another_machine_counts_as_long_as_it_touches_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_elsewhere(tmp_path, seconds_ago=5)
    told = r"process 7 on another-machine, since .*, that is for 1:06:40"
    with pytest.raises(StoreError, match=told) as refused, hold(tmp_path):
        pass
    assert "again after 60 s" in refused.value.remedy
    monkeypatch.setattr(lock, "DEAD_AFTER_S", 4.0)
    with hold(tmp_path):
        assert f"process {os.getpid()}" in holder(tmp_path)


def test_being_refused_does_not_keep_a_dead_holder_alive(tmp_path: Path) -> None:
    path = held_elsewhere(tmp_path, seconds_ago=30)
    before = path.stat().st_mtime_ns
    for _ in range(2):
        with pytest.raises(StoreError), hold(tmp_path):
            pass
    assert path.stat().st_mtime_ns == before


def test_the_holder_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    path = tmp_path / LOCK_FILE
    with hold(tmp_path):
        os.utime(path, (0, 0))
        end = time.monotonic() + 300
        while path.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_on_a_file_system_without_locks_the_touching_alone_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with another(tmp_path) as process:
        monkeypatch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(StoreError, match=f"process {process.pid}"), hold(tmp_path):
            pass
        process.kill()
        process.wait()
        with hold(tmp_path), pytest.raises(StoreError, match=f"process {os.getpid()}"), hold(tmp_path):
            pass
    held_elsewhere(tmp_path, seconds_ago=5)
    with pytest.raises(StoreError, match="another-machine"), hold(tmp_path):
        pass


def test_errors_of_the_work_itself_are_not_those_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path):
        pass

"""One run at a time in an output folder: a lock that says who holds it and for how long, on shared file systems too.

The lock is the system's own (``flock``), which ends with its holder however that ends. Not every cluster file system
takes it across nodes, so the holder also touches the file while it lives: one that another machine has touched within
the last minute is held, whatever ``flock`` says.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from iscale.errors import StoreError

LOCK_FILE = ".iscale.lock"

BEAT_S = 10.0
"""How often the holder touches the file."""

DEAD_AFTER_S = 60.0
"""A holder on another machine that has not touched it for so long is gone."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder that exists; a StoreError says who holds it, an OSError that none can write."""
    path = folder / LOCK_FILE
    with path.open("a+") as file:
        _take(file, path)
        over = threading.Event()
        beats = threading.Thread(target=_beat, args=(path, over), daemon=True, name="iscale-lock")
        beats.start()
        try:
            yield
        finally:
            over.set()
            beats.join()
            with contextlib.suppress(OSError):
                file.truncate(0)


def holder(folder: Path) -> str:
    """Who holds the lock of a folder, in words; empty if nobody does."""
    path = folder / LOCK_FILE
    try:
        known, age = _read(path), _seconds_since_beat(path, write=False)
    except OSError:
        return ""
    dead = known.get("host") == socket.gethostname() and not _alive(known)
    return _described(known) if known and not dead and age < DEAD_AFTER_S else ""


def _take(file: IO[str], path: Path) -> None:
    locked = _flock(file)
    known = _read(path)
    if locked is False:
        raise _held(path, known)
    elsewhere = bool(known) and known.get("host") != socket.gethostname()
    if known and (elsewhere or (locked is None and _alive(known))) and _seconds_since_beat(path) < DEAD_AFTER_S:
        raise _held(path, known)
    file.truncate(0)
    file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
    file.flush()


def _flock(file: IO[str]) -> bool | None:
    """Whether the system's lock was got; None where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            return None
        raise
    return True


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        known = json.loads(path.read_text(errors="replace"))
        return known if isinstance(known, dict) else {}
    return {}


def _seconds_since_beat(path: Path, *, write: bool = True) -> float:
    """Time since the file was touched, by the clock of its file system, which writing another file tells."""
    touched = path.stat().st_mtime
    if not write:
        return time.time() - touched
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    probe.touch()
    try:
        return probe.stat().st_mtime - touched
    finally:
        probe.unlink(missing_ok=True)


def _alive(known: dict[str, Any]) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(int(known["process"]), 0)
    except (ProcessLookupError, KeyError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _beat(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        # A file system that is gone for a while is the run's trouble, not the lock's.
        with contextlib.suppress(OSError):
            os.utime(path)


def _described(known: dict[str, Any]) -> str:
    try:
        since = float(known["since"])
        age = timedelta(seconds=max(0, round(time.time() - since)))
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(since))
        return f"process {known['process']} on {known['host']}, since {started}, that is for {age}"
    except (KeyError, TypeError, ValueError, OverflowError):
        return "one that has not said who it is"


def _held(path: Path, known: dict[str, Any]) -> StoreError:
    return StoreError(
        f"{path.parent}: another iscale run is at work here ({_described(known)}).",
        f"Wait for it, or stop it first. If it was killed on another machine, try again after {DEAD_AFTER_S:.0f} s.",
    )

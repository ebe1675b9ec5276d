"""What a Dask worker does before its first task: it leaves Ctrl-C to the process that drives it."""

from __future__ import annotations

import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore the terminal's interrupt, which reaches all processes of a shell's job; the driving process stops us."""
    del worker
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

"""What stops a run from outside: Ctrl-C, a closed shell, a batch system at its walltime. All of them end it cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from iscale.errors import InterruptedByUserError

SIGNALS = {
    signal.SIGINT: "Interrupted",
    signal.SIGTERM: "Told to stop (SIGTERM, as batch systems send at the walltime)",
    signal.SIGHUP: "The shell was closed (SIGHUP; `nohup`, tmux or a batch job would have kept the run)",
}


@contextlib.contextmanager
def interruptible(*, resumes: bool = True) -> Iterator[None]:
    """Turn interrupts and signals that end the program into one message, once workers and files are let go.

    Signals that are ignored stay so: under ``nohup`` a run outlives its shell. While workers are let go a second one
    does nothing; the third ends the program at once.

    Parameters
    ----------
    resumes
        Whether the same command goes on with what is done, rather than leaving nothing and starting over.

    Raises
    ------
    InterruptedByUserError
        Where the run was stopped.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt
        if len(received) > 2:
            os._exit(InterruptedByUserError.exit_code)

    former = {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in former.items():
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        why = SIGNALS[signal.Signals(received[0])] if received else "Interrupted"
        if resumes:
            raise InterruptedByUserError(f"{why}; what is done is kept.", "The same command continues.") from None
        raise InterruptedByUserError(f"{why}; nothing was written.", "The same command starts over.") from None
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

"""``iscale view RUN``: serve the page until it is interrupted."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from iscale.view.server import LOOPBACK, serve


def view_run(
    run: str | Path, *, host: str = LOOPBACK[0], port: int = 0, browser: bool = True, say: Callable[[str], None] = print
) -> None:
    """Serve a run's page, open it in a browser, and wait to be interrupted.

    Parameters
    ----------
    run
        The run, as for `iscale.open_run`.
    host, port
        Where to listen; port 0 takes a free one.
    browser
        Whether to open a browser here.
    say
        Who is told the address.

    Raises
    ------
    InputError
        Where there is nothing to show, or the port cannot be had.
    """
    with serve(run, host=host, port=port) as server:
        try:
            for line in described(server.url, host, server.port):
                say(line)
            if browser and _has_screen():
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            threading.Event().wait()
        except KeyboardInterrupt:
            say("Stopped.")


def _has_screen() -> bool:
    """Whether a browser would have a window: without one, `webbrowser` may start one of text in this terminal."""
    graphical = ("DISPLAY", "WAYLAND_DISPLAY")
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in graphical)


def described(url: str, host: str, port: int) -> list[str]:
    """What is said of a server: its address, how to reach it from elsewhere, and a warning where others can."""
    lines = [url]
    if host in LOOPBACK:
        lines.append(
            "Only this machine reaches it. From another one: "
            f"ssh -L {port}:127.0.0.1:{port} THIS_MACHINE, and the same address there."
        )
    else:
        lines.append(
            f"Warning: {host} can be reached from other machines, without encryption. Whoever has this address sees "
            "the slide and all results."
        )
    return [*lines, "Ctrl-C stops it. The address holds a secret token: pass it on only to whom may see the run."]

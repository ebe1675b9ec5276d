"""The server: a thread with an event loop, reachable from this machine alone unless told otherwise."""

from __future__ import annotations

import asyncio
import html
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from tornado.httpserver import HTTPServer
from tornado.web import Application

from iscale.errors import InputError
from iscale.view.handler import Desk, Files, Handler
from iscale.view.viewed import Viewed
from iscale.view.work import Workers

if TYPE_CHECKING:
    from iscale.results import Run

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
LARGEST_BODY = 1 << 20
LONGEST_IDLE_S = 300

IN_NOTEBOOKS = "http: https: vscode-webview:"
"""Whoever shows a notebook may show its view in a frame: it only reads, and nobody else knows its address."""


class Server:
    """A page that is served until `stop`; also a context.

    Parameters
    ----------
    run
        The run.
    host, port
        Where to listen: by default only this machine can reach it, at a free port.
    frames
        Who may show the page in a frame, as a content security policy says it: by default nobody.

    Raises
    ------
    InputError
        Where there is nothing to show, or the port cannot be had.
    """

    def __init__(self, run: Run, *, host: str = LOOPBACK[0], port: int = 0, frames: str = "'none'") -> None:
        self.token = secrets.token_urlsafe(24)
        self._workers = Workers()
        own = {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()} - {""}
        self.desk = Desk(Viewed(run), Files(), self._workers, self.token, frozenset(own))
        self._application = Application([(r".*", Handler, {"desk": self.desk})], frames=frames, log_function=_no_log)
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{host}, port {port}: cannot be listened on ({getattr(error, 'strerror', None) or error}).",
                "Leave out --port, and a free one is taken; --host is a name or an address of this machine.",
            ) from None
        self._socket.setblocking(False)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._loop, self._stopping = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="iscale-view")
        self._thread.start()

    @property
    def url(self) -> str:
        """The page's address, with its token."""
        host = socket.gethostname() if self.host in EVERYWHERE else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/{self.token}/"

    def stop(self) -> None:
        """Stop serving; waits until the port is free."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        self._workers.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._until_stopped())
        finally:
            self._loop.close()

    async def _until_stopped(self) -> None:
        server = HTTPServer(self._application, max_body_size=LARGEST_BODY, idle_connection_timeout=LONGEST_IDLE_S)
        server.add_socket(self._socket)
        await self._stopping.wait()
        server.stop()
        await server.close_all_connections()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def serve(run: Run, *, host: str = LOOPBACK[0], port: int = 0, frames: str = "'none'") -> Server:
    """Serve the page of a run, read-only, until the server is stopped or this process ends; as `Server` says."""
    return Server(run, host=host, port=port, frames=frames)


def _no_log(handler: object) -> None:
    """Say nothing: addresses hold the token."""


class View:
    """A run's page, shown in a notebook by being the last thing of a cell, in a frame so many px high."""

    def __init__(self, server: Server, height: int = 700) -> None:
        self._server, self._height = server, height

    @property
    def url(self) -> str:
        """The page's address, for a tab of its own."""
        return self._server.url

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop()

    def __repr__(self) -> str:
        return f"iscale view at {self.url}"

    def _repr_html_(self) -> str:
        url = html.escape(self.url, quote=True)
        return (
            f'<iframe src="{url}" title="iscale viewer" width="100%" height="{self._height}" '
            f'style="border: 1px solid #888; border-radius: 4px"></iframe>'
            f'<p>The kernel serves this view on its own machine: <a href="{url}" target="_blank" rel="noreferrer">'
            f"open it in a tab</a>. With the kernel elsewhere, forward port {self._server.port} first: "
            f"<code>ssh -L {self._server.port}:127.0.0.1:{self._server.port} MACHINE</code></p>"
        )


def view(run: Run, *, height: int = 700) -> View:
    """Serve a run's page from this process, to be shown in a notebook in a frame ``height`` px high."""
    return View(serve(run, frames=IN_NOTEBOOKS), height)


def view_run(
    run: Run, *, host: str = LOOPBACK[0], port: int = 0, browser: bool = True, say: Callable[[str], None] = print
) -> None:
    """Serve a run's page, say its address, open it in a browser if that is wanted, and wait to be interrupted."""
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

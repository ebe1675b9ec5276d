"""The server: a thread with an event loop, reachable from this machine alone unless told otherwise."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from pathlib import Path
from types import TracebackType

from tornado.httpserver import HTTPServer
from tornado.web import Application

from iscale.errors import InputError
from iscale.results import Run, open_run
from iscale.view.files import Files
from iscale.view.handler import Desk, Handler
from iscale.view.viewed import Viewed
from iscale.view.work import Workers

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
        Where to listen; port 0 takes a free one.
    frames
        Who may show the page in a frame, as a content security policy says it.

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


def serve(run: str | Path | Run, *, host: str = LOOPBACK[0], port: int = 0, frames: str = "'none'") -> Server:
    """Serve the page of a run, read-only, until the server is stopped or this process ends.

    Parameters
    ----------
    run
        The run, or where it lies, as for `iscale.open_run`.
    host, port
        Where to listen: by default only this machine can reach it, at a free port.
    frames
        Who may show the page in a frame: by default nobody.

    Returns
    -------
    Server
        Its ``url`` holds the token without which nothing is answered; ``stop()`` ends it.

    Raises
    ------
    InputError
        Where there is nothing to show, or the port cannot be had.
    """
    return Server(run if isinstance(run, Run) else open_run(run), host=host, port=port, frames=frames)


def _no_log(handler: object) -> None:
    """Say nothing: addresses hold the token."""

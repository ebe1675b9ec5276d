"""Requests: who may ask, what there is to ask for, the page's files, and answers with their headers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler

from iscale import __version__
from iscale.errors import InputError, IscaleError
from iscale.view.query import Query, RefusedError
from iscale.view.viewed import Answer, State, Viewed
from iscale.view.work import Workers

HERE = Path(__file__).parent / "static"

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
BOKEH = ("bokeh.min.js", "bokeh-api.min.js")


class Files:
    """Files by their path in the page's address; there are no others."""

    def __init__(self) -> None:
        self._files = {path.name: _file(path) for path in sorted(HERE.iterdir()) if path.suffix in KINDS}
        self._files |= {name: _file(_bokeh() / "js" / name) for name in BOKEH}
        page = self._files.pop("page.html")
        self._files[""] = page._replace(body=page.body.replace(b"{{ version }}", __version__.encode()))

    def get(self, path: str) -> Answer | None:
        """A file, if it is one of the page's."""
        return self._files.get(path)


def _file(path: Path) -> Answer:
    return Answer(path.read_bytes(), f"{KINDS[path.suffix]}; charset=utf-8", keep=True)


def _bokeh() -> Path:
    """Folder of what bokeh's package brings for browsers."""
    try:
        found = import_module("bokeh.util.paths").static_path()
    except (ImportError, AttributeError):
        raise InputError(
            "The viewer's page needs BokehJS, which comes with the package bokeh, and that is not installed.",
            "Install it: pip install bokeh.",
        ) from None
    return Path(found)


LOG = logging.getLogger("iscale.view")

Work = Callable[[State, Callable[[], bool]], Answer]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {frames}"
)
"""Nothing from elsewhere, no code but ours. BokehJS sets styles of its own in the page, which cannot send anything."""

TILE = re.compile(r"tile/([a-z]{1,20})/(\d{1,9})/(\d{1,9})/(\d{1,9})")
QUESTIONS = ("about", "genes", "histogram", "value", "spots")
GONE = 499
"""Status of what nobody waits for: it is not sent."""


@dataclass(frozen=True)
class Desk:
    """What the handler of requests needs; without the token nothing is answered, and to no other than the ``names``."""

    viewed: Viewed
    files: Files
    workers: Workers
    token: str
    names: frozenset[str]


class Handler(RequestHandler):
    """All requests."""

    def initialize(self, desk: Desk) -> None:
        """Take what is needed."""
        self._desk = desk
        self._task: asyncio.Task[Any] | None = None

    def set_default_headers(self) -> None:
        """Headers of every answer, refusals too."""
        frames = self.application.settings.get("frames", "'none'")
        for name, value in (
            ("Server", "iscale"),
            ("Content-Security-Policy", POLICY.format(frames=frames)),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.set_header(name, value)

    def compute_etag(self) -> None:
        """Tags are set where answers may be kept."""
        return

    async def get(self) -> None:
        """Answer a question: HEAD without the body, POST about a region, which does not fit an address."""
        await self._answer()

    head = post = get

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """One line: also for methods that there are not, and for what tornado refuses."""
        self._say(status_code, f"{self._reason}: this page only reads, with GET, and regions with POST.")

    def on_connection_close(self) -> None:
        """Drop the work when who asked is gone."""
        if self._task is not None:
            self._task.cancel()

    async def _answer(self) -> None:
        try:
            path = self._checked()
            self._task = asyncio.ensure_future(self._find(path))
            await self._task
        except RefusedError as refusal:
            self._say(refusal.status, refusal.sentence)
        except IscaleError as error:
            self._say(500, " ".join(str(error).split()))
        except asyncio.CancelledError:
            self._say(GONE, "")
        except Exception:
            LOG.exception("a request failed")
            self._say(500, "This request failed; what happened stands in the terminal in which iscale view runs.")

    def _checked(self) -> str:
        """What is asked for, of who may ask."""
        if not _is_ours(self.request.host_name, self._desk.names):
            raise RefusedError(403, "This server answers to its own name only.")
        token, _, path = self.request.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self._desk.token.encode()):
            raise RefusedError(403, "The address lacks the token: open the one that iscale view printed.")
        return path

    async def _find(self, path: str) -> None:
        desk = self._desk
        if self.request.method == "POST" and path != "api/region":
            raise RefusedError(405, "Only regions are asked for with POST.")
        if (file := desk.files.get(path)) is not None:
            self._send(file, hashlib.sha256(file.body).hexdigest()[:16], forever=False)
            return
        state = desk.viewed.known() or await desk.workers.do("state", lambda _: desk.viewed.state())
        work = self._work(path)
        address = f"{state.slide.version} {self.request.path} {self.request.query}"
        tag = hashlib.sha256(address.encode()).hexdigest()[:24]
        if path.startswith("tile/") and self._held(tag):
            self.set_status(304)
            self.set_header("ETag", f'"{tag}"')
            return
        answer = state.answers.get(tag)
        if answer is None:
            key = tag if self.request.method != "POST" else object()
            answer = await desk.workers.do(key, lambda gone: work(state, gone))
            if answer.keep:
                state.answers.put(tag, answer)
        self._send(answer, tag, forever=self.get_query_argument("v", "") == state.slide.version)

    def _work(self, path: str) -> Work:
        """What computes an answer, by its path; only these are there, and none is a path of a file."""
        desk, arguments = self._desk, self.request.query_arguments
        query = Query({name: values[-1].decode("utf-8", "replace") for name, values in arguments.items()})
        if match := TILE.fullmatch(path):
            layer, place = match[1], [int(n) for n in match.groups()[1:]]
            return lambda state, _: desk.viewed.tile(state, layer, place[0], place[1], place[2], query)
        kind, _, name = path.partition("/")
        if kind == "api" and name == "about":
            return lambda state, _: desk.viewed.about(state)
        if kind == "api" and name in QUESTIONS:
            answer = getattr(desk.viewed, name)
            return lambda state, _: answer(state, query)
        if path == "api/region" and self.request.method == "POST":
            body = self.request.body
            return lambda state, gone: desk.viewed.region(state, query, body, gone)
        raise RefusedError(404, "There is nothing at this address.")

    def _held(self, tag: str) -> bool:
        return f'"{tag}"' in self.request.headers.get("If-None-Match", "")

    def _send(self, answer: Answer, tag: str, *, forever: bool) -> None:
        """Send an answer; what may be kept is kept for good where its address names the run's version."""
        self.set_header("Content-Type", answer.kind)
        if answer.keep:
            self.set_header("Cache-Control", "private, max-age=604800, immutable" if forever else "private, no-cache")
            self.set_header("ETag", f'"{tag}"')
            if self._held(tag):
                self.set_status(304)
                return
        self.write(answer.body)

    def _say(self, status: int, sentence: str) -> None:
        if status == GONE or self._finished:
            return
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(sentence + "\n")


def _is_ours(host: str, names: frozenset[str]) -> bool:
    """Whether a request was meant for this server: by an address, or a name that is its own.

    A page elsewhere can have its own name lead to this address, but it cannot have it be another name.
    """
    if host.lower() in names:
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True

"""A page as Chromium shows it: its DevTools protocol over tornado's WebSocket client."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
LARGEST_MESSAGE = 200_000_000


def find_browser() -> str | None:
    """The browser's program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser(program: str) -> Iterator[str]:
    """Start the browser without a window; gives the address of its DevTools."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--hide-scrollbars"]
        started = subprocess.Popen(
            [program, *options, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
        )
        try:
            assert started.stderr is not None
            line = next(line for line in started.stderr if line.startswith("DevTools listening on "))
            yield "http://" + line.split("ws://")[1].split("/")[0]
        finally:
            started.terminate()
            started.communicate(timeout=300)


@dataclass
class Seen:
    """What a page was asked, and what went wrong in it."""

    answers: dict[str, Any]
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    screenshot: bytes = b""


def look(devtools: str, url: str, width: int, *, dark: bool, questions: dict[str, str], script: bool = True) -> Seen:
    """Open a page ``width`` px wide, in the light or the dark, and evaluate JavaScript in it."""
    return asyncio.run(_look(devtools, url, width, dark, questions, script))


async def _look(devtools: str, url: str, width: int, dark: bool, questions: dict[str, str], script: bool) -> Seen:
    request = urllib.request.Request(f"{devtools}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(request, timeout=300) as answer:
        target = json.load(answer)
    page = _Page(await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=LARGEST_MESSAGE))
    try:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await page.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await page.call("Emulation.setEmulatedMedia", features=[scheme])
        await page.call("Emulation.setScriptExecutionDisabled", value=not script)
        await page.call("Page.navigate", url=url)
        await page.until("Page.loadEventFired")
        answers = {}
        for name, expression in questions.items():
            found = await page.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
            answers[name] = found["result"].get("value")
        picture = await page.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        return Seen(answers, page.errors, page.requests, base64.b64decode(picture["data"]))
    finally:
        await page.call("Page.close")
        while await page.socket.read_message() is not None:
            pass
        page.socket.close()


class _Page:
    """One page: calls and their answers, and what the page tells of itself."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.socket = socket
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._seen: set[str] = set()
        self._number = 0

    async def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self.socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]

    async def until(self, event: str) -> None:
        while event not in self._seen:
            await self._next()

    async def _next(self) -> dict[str, Any]:
        text = await asyncio.wait_for(self.socket.read_message(), 600)
        assert text is not None, "the browser is gone"
        message: dict[str, Any] = json.loads(text)
        method, told = message.get("method", ""), message.get("params", {})
        self._seen.add(method)
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("text")))
        if method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str(told["args"]))
        if method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"][:80])
        return message


def main(page: Path, folder: Path) -> None:
    """Screenshots of a page at both widths, light and dark: for eyes."""
    program = find_browser()
    assert program is not None
    with browser(program) as devtools:
        for width in (1400, 400):
            for dark in (False, True):
                seen = look(devtools, page.resolve().as_uri(), width, dark=dark, questions={})
                (folder / f"{width}-{'dark' if dark else 'light'}.png").write_bytes(seen.screenshot)


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]), Path(sys.argv[2]))

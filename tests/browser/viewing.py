"""The viewer's page in Chromium, driven step by step: mouse, keys, questions; on top of the DevTools of `devtools`."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devtools import LARGEST_MESSAGE, _Page
from tornado.websocket import websocket_connect

SHOTS = os.environ.get("ISCALE_SCREENSHOTS")
"""Folder for screenshots, to be looked at."""

SETTLED = """new Promise(done => {
    const begin = Date.now(), look = () => {
        const ready = document.body.dataset.ready, v = window.viewer;
        const quiet = ready === "yes" && v.asked === 0 && !v.map.image.waiting
            && (!v.map.overlay.address || !v.map.overlay.waiting);
        if (quiet || ready === "failed" || Date.now() - begin > 300000) setTimeout(() => done(quiet), 250);
        else setTimeout(look, 50);
    };
    setTimeout(look, 250);
})"""
"""Waits until nothing is asked for any more; says whether that was reached."""


class Driver(_Page):
    """A page that keeps what it complains of in full, and the addresses of what it asked for."""

    async def _next(self) -> dict[str, Any]:
        message = await super()._next()
        told = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", {}).get("description")))
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        return message

    asked: list[str]


class Viewing:
    """A page that is open; every method waits until it is done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, page: Driver) -> None:
        self._loop, self._page = loop, page

    @property
    def errors(self) -> list[str]:
        """What went wrong in the page so far."""
        return self._page.errors

    @property
    def asked(self) -> list[str]:
        """Addresses of all that it asked for."""
        return self._page.asked

    def call(self, method: str, **parameters: Any) -> Any:
        """A call of the DevTools protocol."""
        return self._loop.run_until_complete(self._page.call(method, **parameters))

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def settle(self) -> None:
        """Wait until the page asks for nothing any more."""
        assert self.js(SETTLED), (self.errors, self.js("document.getElementById('trouble').textContent"))

    def mouse(self, kind: str, x: float, y: float, *, pressed: bool = False) -> None:
        """An event of the mouse: mouseMoved, mousePressed, mouseReleased."""
        button = {"button": "left", "buttons": 1, "clickCount": 1} if pressed or kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def drag(self, corners: list[tuple[float, float]]) -> None:
        """Press at the first place, move through the others, let go at the last."""
        self.mouse("mouseMoved", *corners[0])
        self.mouse("mousePressed", *corners[0])
        for (xa, ya), (xb, yb) in itertools.pairwise(corners):
            for step in range(1, 9):
                self.mouse("mouseMoved", xa + (xb - xa) * step / 8, ya + (yb - ya) * step / 8, pressed=True)
        self.mouse("mouseReleased", *corners[-1])

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def key(self, key: str, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            said = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **said)

    def screen(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Where a position of the slide is in the window."""
        at = self.js(
            f"(() => {{ const {{x, y, s}} = viewer.map.place, b = viewer.map.element.getBoundingClientRect();"
            f"return [b.left + b.width / 2 + ({x_um} - x) / s, b.top + b.height / 2 + ({y_um} - y) / s]; }})()"
        )
        return at[0], at[1]

    def picture(self, path: Path | None = None) -> bytes:
        """A screenshot of the window, also written to a file."""
        found = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path:
            path.write_bytes(found)
        return found

    def shot(self, name: str) -> None:
        """A screenshot for eyes, where a folder for them is named."""
        if SHOTS:
            self.picture(Path(SHOTS) / f"{name}.png")

    def wait(self, condition: str, seconds: float = 300) -> Any:
        """Ask until the answer is true; gives it."""
        end = time.monotonic() + seconds
        while not (found := self.js(condition)):
            assert time.monotonic() < end, f"{condition}: not so after {seconds} s; {self.errors}"
            time.sleep(0.05)
        return found


@contextmanager
def viewing(devtools: str, url: str, width: int = 1400, height: int = 900, *, dark: bool = False) -> Iterator[Viewing]:
    """Open a page, and close it."""
    loop = asyncio.new_event_loop()
    page = loop.run_until_complete(_open(devtools, url, width, height, dark))
    try:
        yield Viewing(loop, page)
    finally:
        loop.run_until_complete(_close(page))
        loop.close()


async def _open(devtools: str, url: str, width: int, height: int, dark: bool) -> Driver:
    request = urllib.request.Request(f"{devtools}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(request, timeout=300) as answer:
        target = json.load(answer)
    page = Driver(await websocket_connect(target["webSocketDebuggerUrl"], max_message_size=LARGEST_MESSAGE))
    page.asked = []
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page.call(f"{domain}.enable")
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    await page.call("Emulation.setDeviceMetricsOverride", **size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await page.call("Emulation.setEmulatedMedia", features=[scheme])
    await page.call("Page.navigate", url=url)
    await page.until("Page.loadEventFired")
    return page


async def _close(page: Driver) -> None:
    await page.call("Page.close")
    while await page.socket.read_message() is not None:
        pass
    page.socket.close()

"""Asks the viewer's server, and reads its answers."""

from __future__ import annotations

import http.client
import io
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iscale.view import Server
from iscale.view.tiles import palette


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        assert self.status == 200, self.text
        return json.loads(self.body)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        assert self.status == 200, self.text
        return np.asarray(Image.open(io.BytesIO(self.body)).convert("RGBA"))


class Client:
    """Asks a server, by default with its token."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def raw(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=300)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Reply:
        return self.raw(f"/{self.server.token}/{path}" + (f"?{urlencode(query)}" if query else ""), **(headers or {}))

    def region(self, corners: Any, **query: Any) -> Reply:
        body = json.dumps({"corners": corners}).encode()
        return self.raw(f"/{self.server.token}/api/region?{urlencode(query)}", "POST", body)


def painted(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """RGBA of values, by the definition: nearest of 255 colours, transparent where there is none."""
    share = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    colours = palette("viridis")[1:][np.rint(share * 254).astype(int)]
    alpha = np.where(np.isfinite(values), 255, 0)[..., None]
    return np.where(alpha > 0, np.concatenate([colours, alpha], axis=-1), 0).astype(np.uint8)

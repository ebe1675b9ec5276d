"""Who the viewer's server answers, and what it refuses."""

from __future__ import annotations

import contextlib
import http.client
from typing import Any

import pytest
from view_client import Client
from view_run import (
    GENES,
)


@pytest.mark.parametrize("path", ["/", "/api/about", "/wrong/", "/wrong/tile/image/0/0/0", "/../etc/passwd"])
def test_without_the_token_nothing_is_told(client: Client, path: str) -> None:
    reply = client.raw(path)
    assert (reply.status, reply.text.count("\n")) == (403, 1)
    assert "token" in reply.text
    assert client.server.token not in str(reply.headers) + reply.text


def test_the_token_alone_opens_the_page_and_a_prefix_of_it_does_not(client: Client) -> None:
    token = client.server.token
    assert len(token) >= 32
    assert client.raw(f"/{token}/").status == 200
    assert client.raw(f"/{token[:-1]}/").status == 403
    assert client.raw(f"/{token}x/").status == 403
    assert client.raw("/t%C3%B6ken/").status == 403


def test_a_page_elsewhere_cannot_reach_it_by_a_name_of_its_own(client: Client) -> None:
    path = f"/{client.server.token}/api/about"
    assert client.raw(path, Host="evil.example").status == 403
    for host in ("localhost:9000", f"127.0.0.1:{client.server.port}", "[::1]:80"):
        assert client.raw(path, Host=host).status == 200, host
    assert "Access-Control-Allow-Origin" not in client.raw(path, Origin="http://evil.example").headers


def test_answers_forbid_frames_guesses_referrers_and_everything_from_elsewhere(client: Client) -> None:
    for reply in (client.get(""), client.get("tile/image/0/0/0"), client.raw("/")):
        policy = reply.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_it_listens_on_this_machine_alone(client: Client) -> None:
    assert client.server.host == "127.0.0.1"
    assert client.server.url.startswith(f"http://127.0.0.1:{client.server.port}/")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("../../../etc/passwd", 404, "nothing at this address"),
        ("..%2f..%2fetc/passwd", 404, "nothing at this address"),
        ("static/../view.js", 404, "nothing at this address"),
        ("api/../view.js", 404, "nothing at this address"),
        ("page.html", 404, "nothing at this address"),
        ("tile/image/99/0/0", 404, "no zoom 99: this slide has 0 to 5"),
        ("tile/image/5/17/0", 404, "off the slide, which has 17 x 9 at zoom 5"),
        ("tile/image/5/0/9", 404, "off the slide"),
        ("tile/image/-1/0/0", 404, "nothing at this address"),
        ("tile/image/99999999999999999999/0/0", 404, "nothing at this address"),
        ("tile/other/0/0/0", 404, "no layer 'other'"),
        ("tile/gene/0/0/0?gene=KRT6&lo=0&hi=1", 404, "KRT5"),
        ("tile/gene/0/0/0?gene=KRT5&lo=0", 400, "hi is '', not a number"),
        ("tile/gene/0/0/0?gene=KRT5&lo=nan&hi=1", 400, "lo is 'nan', not a number"),
        ("tile/gene/0/0/0?gene=KRT5&lo=2&hi=1", 400, "lo 2 is not under hi 1"),
        ("tile/gene/0/0/0?gene=KRT5&lo=0&hi=1e-300", 400, "lo 0 is not under hi 1e-300"),
        ("tile/gene/0/0/0?gene=KRT5&lo=0&hi=1e300", 400, "hi is 1e+300, not from -1e+30 to 1e+30"),
        ("tile/gene/0/0/0?gene=KRT5&lo=0&hi=1&least=1e300", 400, "least is 1e+300, not from"),
        ("tile/gene/0/0/0?gene=KRT5&lo=0&hi=1&map=jet", 404, "no colour map 'jet'"),
        ("tile/classes/0/0/0?key=clusters-9", 404, "clusters-4"),
        ("api/histogram?gene=" + "x" * 300, 400, "300 letters"),
        ("api/histogram?gene=KRT5&quantity=secret", 404, "no quantity"),
        ("api/value?x=-5&y=5", 404, "off the slide"),
        ("api/value?x=1e300&y=5", 404, "off the slide"),
        ("api/spots?capture=D9&gene=KRT5", 404, "this run has: D1"),
        ("api/spots?capture=..&gene=KRT5", 404, "no capture '..'"),
        ("api/genes?q=k&most=1000", 400, "from 1 to 50"),
        ("api/region", 404, "nothing at this address"),
        ("api/state", 404, "nothing at this address"),
        ("api/__class__", 404, "nothing at this address"),
    ],
)
def test_what_there_is_not_is_one_status_and_one_sentence_and_the_server_lives_on(
    client: Client, path: str, status: int, said: str
) -> None:
    reply = client.raw(f"/{client.server.token}/{path}")
    assert reply.status == status
    assert said in reply.text
    assert reply.text.count("\n") == 1
    assert "Traceback" not in reply.text
    assert client.get("api/about").status == 200


@pytest.mark.parametrize(
    ("corners", "status", "said"),
    [
        ([], 400, "each [x, y]"),
        ([[0, 0], [1, 1]], 400, "this one has 2"),
        ([[0, 0]] * 3000, 400, "this one has 3,000"),
        ([[0, 0], [1, None], [2, 2]], 400, "each [x, y]"),
        ([[0, 0], [1, "x"], [2, 2]], 400, "each [x, y]"),
        ([[-9, -9], [-5, -9], [-5, -5]], 422, "off the slide"),
        ([[0, 0], [30, 0], [30, 30], [0, 30]], 422, "no tissue"),
    ],
)
def test_a_region_that_is_none_is_refused(client: Client, corners: Any, status: int, said: str) -> None:
    reply = client.region(corners)
    assert (reply.status, said in reply.text) == (status, True), reply.text


def test_bodies_that_are_no_regions_or_are_too_large_are_refused(client: Client) -> None:
    path = f"/{client.server.token}/api/region"
    assert client.raw(path, "POST", b"[1").status == 400
    assert client.raw(path, "POST", b"[]").status == 400
    assert client.raw(path.replace("region", "about"), "POST", b"{}").status == 405
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert client.raw(path, method).status == 405
    with contextlib.suppress(ConnectionError, http.client.HTTPException):  # it hangs up before all of it is sent
        assert client.raw(path, "POST", b" " * (2 << 20)).status in (400, 413)
    assert client.get("api/about").status == 200


def test_a_region_of_too_many_values_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iscale.view.region.MOST_VALUES", 128 * 128 * len(GENES) * 2)
    reply = client.region([[0, 0], [2170, 0], [2170, 1150], [0, 1150]])
    assert reply.status == 413
    assert "Draw a smaller one" in reply.text

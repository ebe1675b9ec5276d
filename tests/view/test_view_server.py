"""The viewer's server as it works on: caches, many who ask at once, a run that changes, start and stop."""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from view_client import Client
from view_run import (
    GENES,
    write_run,
)

import iscale
from iscale.errors import InputError
from iscale.store.run_store import RunStore
from iscale.view import serve, viewed
from iscale.view.planes import PAGES_BYTES
from iscale.view.server import view


def test_tiles_are_kept_for_good_under_the_runs_version_and_asked_again_elsewhere(client: Client) -> None:
    version = client.get("api/about").json["version"]
    query = {"gene": "KRT5", "lo": 0, "hi": 9}
    mine = client.get("tile/gene/1/0/0", v=version, **query)
    assert "immutable" in mine.headers["Cache-Control"]
    assert "private" in mine.headers["Cache-Control"]
    assert client.get("tile/gene/1/0/0", v="old", **query).headers["Cache-Control"] == "private, no-cache"
    again = client.get("tile/gene/1/0/0", {"If-None-Match": mine.headers["Etag"]}, v=version, **query)
    assert (again.status, again.body) == (304, b"")
    other = client.get("tile/gene/1/0/0", {"If-None-Match": mine.headers["Etag"]}, v=version, gene="KRT5", lo=0, hi=8)
    assert other.status == 200


def test_many_at_once_get_what_one_gets(client: Client) -> None:
    asked = [(gene, hi) for gene in GENES for hi in (30, 50)] * 4

    def tile(of: tuple[str, int]) -> bytes:
        return client.get("tile/gene/0/0/0", gene=of[0], lo=0, hi=of[1]).body

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(tile, asked))
    alone = {of: tile(of) for of in asked}
    assert together == [alone[of] for of in asked]


def test_caches_stay_within_their_bytes(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewed, "ANSWERS_BYTES", 100_000)
    with serve(iscale.open_run(store.folder)) as server:
        client, rng = Client(server), np.random.default_rng(0)
        for _ in range(150):
            zoom = int(rng.integers(0, 6))
            place = int(rng.integers(0, max(1, 17 * 2**zoom // 32))), int(rng.integers(0, max(1, 9 * 2**zoom // 32)))
            query = {"gene": GENES[rng.integers(len(GENES))], "lo": 0, "hi": int(rng.integers(5, 50))}
            assert client.get(f"tile/gene/{zoom}/{place[0]}/{place[1]}", **query).status == 200
        state = server.desk.viewed.state()
        assert 0 < state.answers.bytes <= 100_000
        assert 0 < state.planes.bytes <= PAGES_BYTES


def test_who_hangs_up_stops_the_work(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, left, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(self: object, shard: object, mask: object) -> Any:
        begun.set()
        left.wait(300)
        return 1, np.zeros(len(GENES))

    def stop(gone: Any) -> None:
        if gone():
            ended.set()
            raise RuntimeError("nobody waits")

    monkeypatch.setattr("iscale.view.region.Regions._sums", slow)
    monkeypatch.setattr("iscale.view.region._stop", stop)
    connection = http.client.HTTPConnection("127.0.0.1", client.server.port, timeout=300)
    corners = [[0, 0], [2170, 0], [2170, 1150], [0, 1150]]
    connection.request("POST", f"/{client.server.token}/api/region", json.dumps({"corners": corners}).encode())
    assert begun.wait(300)
    connection.close()
    left.set()
    assert ended.wait(300), "the work went on for nobody"
    assert client.get("api/about").status == 200


def test_a_flood_is_turned_away_and_leaves_nothing_behind(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iscale.view.work.MOST_WAITING", 1)
    go = threading.Event()
    monkeypatch.setattr("iscale.view.tiles.Tiles.make", lambda *_: (b"x" * go.wait(300), "image/png"))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(client.get, "tile/image/3/2/0")
        while not client.server.desk.workers.busy:
            time.sleep(0.01)
        assert client.get("tile/image/3/3/0").status == 503
        go.set()
        assert first.result().status == 200
    assert not client.server.desk.workers.busy


def test_what_fails_within_is_one_sentence_without_a_traceback(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("iscale.view.tiles.Tiles.make", fail)
    reply = client.get("tile/image/3/1/1")
    assert reply.status == 500
    assert "secret" not in reply.text
    assert reply.text.count("\n") == 1


def test_a_run_that_goes_on_is_shown_as_it_becomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewed, "LOOK_AGAIN_S", 0.0)
    store = write_run(tmp_path, whole=False)
    with serve(iscale.open_run(tmp_path)) as server, store.lock():
        client = Client(server)
        about = client.get("api/about").json
        assert (about["genes"], about["classes"], about["captures"], about["refined"]) == (0, [], [], False)
        assert "process" in about["holder"]
        assert any("iscale predict" in missing for missing in about["missing"])
        assert client.get("tile/image/0/0/0").status == 200
        refused = client.get("tile/gene/0/0/0", gene="KRT5", lo=0, hi=1)
        assert (refused.status, "iscale predict" in refused.text) == (404, True)
        write_run(tmp_path)
        grown = client.get("api/about").json
        assert grown["version"] != about["version"]
        assert (grown["genes"], grown["written"]) == (len(GENES) + 1, len(GENES))
        assert client.get("tile/gene/0/0/0", gene="KRT5", lo=0, hi=1).status == 200


def test_there_must_be_something_to_show_and_a_port_to_show_it_at(tmp_path: Path, client: Client) -> None:
    with pytest.raises(InputError, match=r"no run\.zarr"):
        serve(iscale.open_run(tmp_path))
    RunStore(tmp_path / "iSCALE_output").create()
    with pytest.raises(InputError, match="no image yet"):
        serve(iscale.open_run(tmp_path))
    with pytest.raises(InputError, match=f"port {client.server.port}: cannot be listened on"):
        serve(client.server.desk.viewed.state().slide.run, port=client.server.port)


def test_in_a_notebook_it_is_a_frame_that_notebooks_may_show(store: RunStore) -> None:
    shown = view(iscale.open_run(store.folder), height=500)
    try:
        html = shown._repr_html_()
        assert f'<iframe src="{shown.url}"' in html
        assert 'height="500"' in html
        policy = Client(shown._server).get("").headers["Content-Security-Policy"]
        assert "frame-ancestors http: https:" in policy
    finally:
        shown.stop()


def test_a_stopped_server_gives_its_port_back(store: RunStore) -> None:
    server = serve(iscale.open_run(store.folder))
    port = server.port
    assert Client(server).get("").status == 200
    server.stop()
    with serve(iscale.open_run(store.folder), port=port) as again:
        assert again.port == port
        assert again.token != server.token


def test_a_server_that_is_stopped_at_once_stops(store: RunStore) -> None:
    for _ in range(20):
        serve(iscale.open_run(store.folder)).stop()

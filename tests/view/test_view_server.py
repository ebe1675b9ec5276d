"""The viewer's server without a browser: who is answered, what is refused, and that what is sent is the run's."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from view_run import (
    EXTRA,
    GENES,
    GRID,
    RADIUS_UM,
    SCALE,
    SHAPE,
    cells,
    expression,
    factor,
    image,
    labels,
    spots,
    tissue,
    write_run,
)

import iscale
from iscale.errors import InputError
from iscale.store.run_store import RunStore
from iscale.view import Server, serve, viewed
from iscale.view.notebook import view
from iscale.view.paint import palette
from iscale.view.planes import PAGES_BYTES

SIDE_UM = GRID.superpixel_um


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
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return write_run(tmp_path_factory.mktemp("view") / "project")


@pytest.fixture(scope="module")
def client(store: RunStore) -> Iterator[Client]:
    with serve(store.folder) as server:
        yield Client(server)


# ---- who is answered ------------------------------------------------------------------------------------------------


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


# ---- what is refused ------------------------------------------------------------------------------------------------


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


# ---- what is sent is the run's --------------------------------------------------------------------------------------


def _expected(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """RGBA of values, by the definition: nearest of 255 colours, transparent where there is none."""
    share = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    colours = palette("viridis")[1:][np.rint(share * 254).astype(int)]
    alpha = np.where(np.isfinite(values), 255, 0)[..., None]
    return np.where(alpha > 0, np.concatenate([colours, alpha], axis=-1), 0).astype(np.uint8)


def _means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2, of what is not NaN."""
    blocks = np.stack([values[i::2, j::2] for i in (0, 1) for j in (0, 1)])
    n = np.isfinite(blocks).sum(axis=0)
    return np.where(n, np.nansum(blocks, axis=0) / np.maximum(n, 1), np.nan).astype(np.float32)


def _shown(reply: Reply) -> NDArray[np.uint8]:
    pixels = reply.pixels.copy()
    pixels[pixels[..., 3] == 0] = 0
    return pixels


@pytest.mark.parametrize("gene", [0, 6])
@pytest.mark.parametrize(
    ("zoom", "x", "y"), [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0), (3, 3, 1), (5, 8, 4), (5, 16, 8)]
)
def test_a_tile_of_a_gene_has_its_values(client: Client, gene: int, zoom: int, x: int, y: int) -> None:
    values = expression()[gene]
    lattice = _means(values) if zoom == 0 else values
    repeat = 1 if zoom < 2 else 2 ** (zoom - 1)
    whole = np.full((512, 512), np.nan, np.float32)
    whole[: lattice.shape[0], : lattice.shape[1]] = lattice
    n = 256 // repeat
    part = whole[y * n : (y + 1) * n, x * n : (x + 1) * n].repeat(repeat, 0).repeat(repeat, 1)
    reply = client.get(f"tile/gene/{zoom}/{x}/{y}", gene=GENES[gene], lo=2, hi=40)
    assert reply.headers["Content-Type"] == "image/png"
    np.testing.assert_array_equal(_shown(reply), _expected(part, 2, 40))


def test_uncertainty_refined_and_a_threshold_are_drawn_as_they_are_defined(client: Client) -> None:
    values = expression()[2]
    cut = np.full((256, 256), np.nan, np.float32)
    refined = np.where(cells() | ~tissue(), values, 0)
    for layer, given, query in (
        ("uncertainty", values / 8, {}),
        ("refined", refined, {}),
        ("gene", np.where(values >= 15, values, np.nan), {"least": 15}),
    ):
        cut[: SHAPE[0]] = given[:, :256]
        reply = client.get(f"tile/{layer}/1/0/0", gene="CD3E", lo=0, hi=30, **query)
        np.testing.assert_array_equal(_shown(reply), _expected(cut, 0, 30), layer)


def test_a_gene_that_is_not_written_is_computed_when_it_is_asked_for(client: Client) -> None:
    assert client.get("api/genes", q="xist").json["genes"] == [{"name": EXTRA, "written": False}]
    values = np.expm1(factor())
    found = client.get("api/value", x=140 * SIDE_UM + 1, y=60 * SIDE_UM + 1, gene=EXTRA).json["gene"]
    assert found["gene"] == pytest.approx(values[60, 140], rel=2e-3)
    assert found["uncertainty"] == pytest.approx(0, abs=1e-6)
    histogram = client.get("api/histogram", gene=EXTRA).json
    assert histogram["mean"] == pytest.approx(np.nanmean(values), rel=2e-3)
    pixels = client.get("tile/gene/1/0/0", gene=EXTRA, lo=0, hi=20).pixels
    cut = np.full((256, 256), np.nan, np.float32)
    cut[: SHAPE[0]] = values[:, :256]
    assert np.abs(pixels.astype(int) - _expected(cut, 0, 20)).max() <= 6
    assert client.region([[600, 300], [900, 300], [900, 600]], gene=EXTRA).json["histogram"]["n"] > 100


def test_two_genes_are_magenta_and_green(client: Client) -> None:
    pixels = client.get("tile/two/1/0/0", gene="KRT5", lo=0, hi=40, gene2="CD3E", lo2=0, hi2=44).pixels
    y, x = 70, 100
    first, second = expression()[0, y, x] / 40, expression()[2, y, x] / 44
    assert pixels[y, x].tolist() == [round(255 * first), round(255 * second), round(255 * first), 255]
    assert pixels[0, 0, 3] == 0


def test_classes_have_the_colours_of_the_legend(client: Client) -> None:
    about = client.get("api/about").json
    maps = {found["key"]: found for found in about["classes"]}
    assert set(maps) == {"clusters-4", "clusters-4-refined", "annotation-0", "annotation-1"}
    assert maps["annotation-0"]["names"] == ["Tumour", "Immune <b>", "Unclassified"]
    assert maps["clusters-4"]["names"][0].startswith("1 (")
    pixels = client.get("tile/classes/1/0/0", key="clusters-4").pixels
    for number, colour in enumerate(maps["clusters-4"]["colours"], start=1):
        y, x = np.argwhere(labels()[:, :256] == number)[7]
        assert "#" + bytes(pixels[y, x, :3]).hex() == colour
    assert pixels[0, 0, 3] == 0


@pytest.mark.parametrize(("zoom", "x", "y"), [(5, 3, 2), (4, 2, 1), (2, 1, 0), (0, 0, 0)])
def test_a_tile_of_the_image_is_the_slide_and_ends_with_it(client: Client, zoom: int, x: int, y: int) -> None:
    factor = 2 ** (5 - zoom)
    pixels = client.get(f"tile/image/{zoom}/{x}/{y}").pixels.astype(int)
    source = image()[:, y * 256 * factor :: factor, x * 256 * factor :: factor][:, :256, :256]
    rows = min(256, -(-GRID.content_shape_px[0] // factor) - y * 256)
    columns = min(256, -(-GRID.content_shape_px[1] // factor) - x * 256)
    there = pixels[:rows, :columns]
    assert (there[..., 3] == 255).all()
    assert np.abs(there[..., :3] - np.moveaxis(source, 0, -1)[:rows, :columns]).max() <= 5
    assert (pixels[rows:, :, 3] == 0).all()
    assert (pixels[:, columns:, 3] == 0).all()


def test_the_histogram_counts_all_tissue_and_offers_the_range_of_the_figures(client: Client) -> None:
    values = expression()[3][tissue()]
    found = client.get("api/histogram", gene="CD3D").json
    assert found["n"] == sum(found["counts"]) == len(values)
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert [found["from"], found["to"]] == pytest.approx(np.quantile(values, [0.01, 0.99]), rel=1e-5)
    refined = client.get("api/histogram", gene="CD3D", quantity="refined").json
    assert refined["mean"] == pytest.approx(np.where(cells(), expression()[3], 0)[tissue()].mean(), rel=1e-5)


def test_what_is_known_of_a_genes_trust_stands_beside_it(client: Client) -> None:
    assert client.get("api/histogram", gene="KRT5").json["trust"] == "reliable, held-out correlation 0.71"
    assert client.get("api/histogram", gene="CD3E").json["trust"] == ""


def test_the_value_under_the_cursor_is_the_superpixels(client: Client) -> None:
    row, column = 60, 140
    found = client.get("api/value", x=column * SIDE_UM + 7.9, y=row * SIDE_UM + 0.1, gene="ERBB2", gene2="A,B").json
    assert (found["row"], found["column"], found["tissue"]) == (row, column, True)
    assert found["gene"]["gene"] == pytest.approx(expression()[4, row, column], rel=1e-5)
    assert found["gene"]["uncertainty"] == pytest.approx(expression()[4, row, column] / 8, rel=1e-3)
    assert found["second"]["gene"] == pytest.approx(expression()[6, row, column], rel=1e-5)
    assert found["classes"]["clusters-4"].startswith(str(labels()[row, column]))
    off = client.get("api/value", x=1, y=1, gene="ERBB2").json
    assert (off["tissue"], off["gene"]["gene"], off["classes"]["clusters-4"]) == (False, None, None)


def test_spots_have_their_counts_and_the_maps_unit(client: Client) -> None:
    xy, counts = spots()
    found = client.get("api/spots", capture="D1", gene="COL1A1").json
    np.testing.assert_allclose(np.column_stack([found["x"], found["y"]]), xy, atol=0.01)
    assert found["count"] == counts[:, 5].tolist()
    assert found["radius_um"] == RADIUS_UM
    di, dj = np.mgrid[-9:10, -9:10]
    disc = np.count_nonzero(di**2 + dj**2 <= (RADIUS_UM / SIDE_UM) ** 2)
    np.testing.assert_allclose(found["value"], counts[:, 5] * SCALE / disc, rtol=1e-5)


def test_genes_are_found_by_parts_of_their_names(client: Client) -> None:
    names = [gene["name"] for gene in client.get("api/genes", q="krt").json["genes"]]
    assert names == ["KRT5", "KRT14"]
    assert [gene["name"] for gene in client.get("api/genes", q="1").json["genes"]] == ["KRT14", "COL1A1", "MUC1"]
    assert client.get("api/genes", q="nothing").json == {"found": 0, "genes": []}


def test_a_regions_means_are_those_of_its_superpixels(client: Client) -> None:
    corners = [[400.0, 200.0], [1500.0, 260.0], [1300.0, 900.0], [700.0, 1000.0]]
    y, x = (np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5) * SIDE_UM
    inside = np.zeros(SHAPE, bool)
    for (xa, ya), (xb, yb) in zip(corners, [*corners[1:], corners[0]], strict=True):
        inside ^= ((ya > y) != (yb > y)) & (x < (xb - xa) * (y - ya) / (yb - ya) + xa)
    kept, rest = inside & tissue(), ~inside & tissue()
    table = client.region(corners, gene="CD3E").json
    assert (table["superpixels"], table["rest_superpixels"]) == (kept.sum(), rest.sum())
    assert table["area_um2"] == pytest.approx(kept.sum() * SIDE_UM**2)
    assert table["genes"] == list(GENES)
    here, there = expression()[:, kept].mean(axis=1, dtype=float), expression()[:, rest].mean(axis=1, dtype=float)
    np.testing.assert_allclose(table["mean"], here, rtol=1e-5)
    np.testing.assert_allclose(table["rest"], there, rtol=1e-5)
    np.testing.assert_allclose(table["fold"], here / there, rtol=1e-5)
    assert not table["rest_is_sample"]
    assert table["histogram"]["n"] == kept.sum()
    assert table["histogram"]["mean"] == pytest.approx(here[2], rel=1e-5)


def test_where_the_slide_is_too_large_the_rest_is_a_sample_and_says_so(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iscale.view.region.MOST_VALUES", 128 * 128 * len(GENES) * 2)
    with serve(store.folder) as server:
        table = Client(server).region([[800, 400], [900, 400], [900, 500], [800, 500]]).json
    assert table["rest_is_sample"]
    assert 0 < table["rest_superpixels"] < tissue().sum() - table["superpixels"]


# ---- caches, many at once, changes ----------------------------------------------------------------------------------


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
    with serve(store.folder) as server:
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
    begun, ended = threading.Event(), threading.Event()

    def slow(self: object, shard: object, mask: object) -> Any:
        begun.set()
        time.sleep(0.2)
        return 1, np.zeros(len(GENES))

    def stop(gone: Any) -> None:
        if gone():
            ended.set()
            raise RuntimeError("nobody waits")

    monkeypatch.setattr("iscale.view.region.Regions._sums", slow)
    monkeypatch.setattr("iscale.view.region._stop", stop)
    connection = http.client.HTTPConnection("127.0.0.1", client.server.port, timeout=60)
    corners = [[0, 0], [2170, 0], [2170, 1150], [0, 1150]]
    connection.request("POST", f"/{client.server.token}/api/region", json.dumps({"corners": corners}).encode())
    assert begun.wait(10)
    connection.close()
    assert ended.wait(10), "the work went on for nobody"
    assert client.get("api/about").status == 200


def test_a_flood_is_turned_away_and_leaves_nothing_behind(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iscale.view.work.MOST_WAITING", 1)
    go = threading.Event()
    monkeypatch.setattr("iscale.view.tiles.Tiles.make", lambda *_: (b"x" * go.wait(20), "image/png"))
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
    with serve(tmp_path) as server, store.lock():
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
        serve(tmp_path)
    RunStore(tmp_path / "iSCALE_output").create()
    with pytest.raises(InputError, match="no image yet"):
        serve(tmp_path)
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
    server = serve(store.folder)
    port = server.port
    assert Client(server).get("").status == 200
    server.stop()
    with serve(store.folder, port=port) as again:
        assert again.port == port
        assert again.token != server.token


def test_a_server_that_is_stopped_at_once_stops(store: RunStore) -> None:
    for _ in range(20):
        serve(store.folder).stop()

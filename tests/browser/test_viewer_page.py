"""The viewer's page in a real browser on a run that is small: windows of any size, addresses of any content."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from view_run import EXTRA, GENES, SHAPE, extra, tissue, write_run
from viewing import Viewing, viewing

from iscale import open_run
from iscale.view import Server, serve

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        os.environ.get("ISCALE_BROWSER_TESTS") != "1", reason="needs Chromium: `make test-browser` gets it"
    ),
]

RECORD = """(() => {
    window.drawn = [];
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    CanvasRenderingContext2D.prototype.drawImage = function (picture, ...at) {
        const found = /tile\\/(\\w+)\\/(\\d+)\\/(\\d+)\\/(\\d+)/.exec(picture.src ?? "");
        const { width, height } = viewer.map.view.frame.bbox;
        if (found) drawn.push([found[1], ...found.slice(2).map(Number), ...at, width, height]);
        return draw.call(this, picture, ...at);
    };
})()"""
"""Notes every tile that is drawn from now on: layer, zoom, column, row; x, y, width, height in the window; its size."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(open_run(write_run(tmp_path_factory.mktemp("page") / "project").folder)) as server:
        yield server


def _off(page: Viewing, place: dict[str, float]) -> dict[str, float]:
    """By layer, by how many pixels any edge of a drawn tile was off from where the place and the scale have it."""
    finest, pixel_um = page.js("[viewer.map.about.finest, viewer.map.about.pixel_um]")
    off: dict[str, float] = {}
    for layer, zoom, column, row, x, y, width, height, *window in page.js("drawn"):
        side = 256 * 2 ** (finest - zoom) * pixel_um
        for at, n, of, begin, length in ((column, window[0], "x", x, width), (row, window[1], "y", y, height)):
            ends = [n / 2 + (edge * side - place[of]) / place["s"] for edge in (at, at + 1)]
            off[layer] = max(off.get(layer, 0), abs(begin - ends[0]), abs(begin + length - ends[1]))
    return off


def test_the_overlay_lies_on_the_slide_whatever_size_the_window_gets(devtools: str, server: Server) -> None:
    with viewing(devtools, server.url + "#x=1000&y=560&s=1.5", 1400, 813) as page:
        page.settle()
        page.js(RECORD)
        begin = page.js("viewer.map.place")
        for width, height in ((1400, 900), (1000, 900), (1000, 500), (600, 900), (1500, 1000)):
            page.js("window.drawn = []")
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            page.call("Emulation.setDeviceMetricsOverride", **size)
            page.wait("drawn.length")
            page.settle()
            place = page.js("viewer.map.place")
            assert [place[key] for key in "xys"] == pytest.approx([begin[key] for key in "xys"], rel=1e-6)
            assert page.js("viewer.map.view.frame.bbox.width === viewer.map.element.clientWidth")
            # Not only in the end: no paint of either layer was off by more than rounding to whole pixels.
            off = _off(page, place)
            assert set(off) == {"image", "gene"}
            assert max(off.values()) <= 0.51, (width, height, off)
        assert page.errors == []


ODD = [
    ("o=7", "viewer.state.o", 1),
    ("o=-3", "viewer.state.o", 0),
    ("o=much", "viewer.state.o", 0.75),
    ("lo=5&hi=2", "[viewer.state.lo ?? null, viewer.state.hi ?? null]", [None, None]),
    ("lo=NaN&hi=2", "[viewer.state.lo ?? null, viewer.state.hi ?? null]", [None, None]),
    ("lo=0&hi=1e300", "[viewer.state.lo ?? null, viewer.state.hi ?? null]", [None, None]),
    ("lo=0&hi=1e-300", "[viewer.state.lo ?? null, viewer.state.hi ?? null]", [None, None]),
    ("hi=-5", "[viewer.state.lo ?? null, viewer.state.hi ?? null]", [None, None]),
    ("layer=two&gene2=CD3E&lo2=9&hi2=9", "viewer.state.hi2 ?? null", None),
    ("least=-4", "viewer.state.least ?? null", None),
    ("least=1e300", "viewer.state.least ?? null", None),
    ("x=1e9&y=-1e9&s=1", "[viewer.map.place.x === viewer.map.size.width, viewer.map.place.y]", [True, 0]),
    ("x=900&y=500&s=-1", "viewer.map.place.s > 1", True),
    ("x=900&y=500&s=0", "viewer.map.place.s > 1", True),
    ("x=900&y=500&s=1e-30", "viewer.map.place.s", 0.5 / 16),
    ("x=900&y=500&s=1e30", "viewer.map.place.s < 50", True),
    ("map=jet", "document.getElementById('colours').value", "viridis"),
    ("map=constructor", "document.getElementById('colours').value", "viridis"),
    ("layer=depth", "viewer.state.layer", "gene"),
    ("layer=__proto__", "viewer.state.layer", "gene"),
    ("layer=clusters&key=clusters-99", "viewer.state.key", "clusters-4"),
    ("spots=D9,%25,D1", "viewer.state.spots", ["D1"]),
    ("region=1_2_3", "viewer.state.region ?? null", None),
    ("region=1_2_3_4_5_NaN", "viewer.state.region ?? null", None),
    ("%E0%A4%A", "viewer.state.layer", "gene"),
]


def test_an_address_with_values_out_of_their_limits_is_cut_to_them(devtools: str, server: Server) -> None:
    with viewing(devtools, server.url) as page:
        page.settle()
        for fragment, question, expected in ODD:
            page.call("Page.navigate", url="about:blank")
            page.call("Page.navigate", url=f"{server.url}#{fragment}")
            page.wait("Boolean(document.body?.dataset.ready && window.viewer)")
            page.settle()
            found = page.js(question)
            assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), (fragment, found)
            assert page.js("document.getElementById('trouble').hidden"), fragment
            assert page.js("viewer.map.overlay.address !== null"), fragment
            assert page.js("viewer.map.overlay.source.tiles.size > 0") or "s=1e-30" in fragment, fragment
            assert page.errors == [], fragment
        # The same without a load: who edits the address of a page that is open.
        page.js("location.hash = '#o=9&lo=8&hi=1&layer=nothing&spots=%25'")
        page.settle()
        assert page.js("[viewer.state.o, viewer.state.layer]") == [1, "gene"]


@pytest.mark.parametrize(
    ("fragment", "said"),
    [
        ("gene=KRT6", "KRT5"),
        ("layer=two&gene=KRT5&gene2=NOSUCH", "NOSUCH"),
        ("gene=" + "x" * 300, "300 letters"),
    ],
)
def test_an_unknown_gene_is_told_and_nothing_is_shown_for_it(
    devtools: str, server: Server, fragment: str, said: str
) -> None:
    with viewing(devtools, f"{server.url}#{fragment}&spots=D1&region=500_200_1400_200_1400_900") as page:
        page.wait(f"document.getElementById('trouble').textContent.includes('{said}')")
        page.settle()
        assert page.js("viewer.map.overlay.address") is None
        assert page.js("viewer.map.spots.data.x.length") == 0
        page.wait("Boolean(viewer.panel.table)")  # the imputed genes' means are given all the same
        page.js("document.querySelector('#region-rows button').click()")
        page.settle()
        chosen = page.js("viewer.state.gene")
        assert chosen in GENES
        if "two" not in fragment:
            assert page.js("document.getElementById('trouble').hidden")
            assert page.js("viewer.map.overlay.source.tiles.size") > 0
            assert page.js("viewer.map.spots.data.x.length") > 0


def _typed(page: Viewing, text: str) -> None:
    """Type into the search and press Enter before anything is offered."""
    page.js("document.getElementById('search').focus()")
    page.type(text)
    page.key("Enter")


def test_a_mistyped_gene_leaves_the_map_that_is_shown(devtools: str, server: Server) -> None:
    with viewing(devtools, f"{server.url}#gene=KRT5&spots=D1") as page:
        page.settle()
        _typed(page, "KRT6")
        page.wait("document.getElementById('trouble').textContent.includes('KRT5')")
        page.settle()
        assert page.js("viewer.state.gene") == "KRT5"
        assert page.js("document.getElementById('search').value") == "KRT5"
        assert page.js("viewer.map.overlay.source.tiles.size") > 0
        assert page.js("viewer.map.spots.data.x.length") > 0
        _typed(page, "cd3e")
        page.wait("viewer.state.gene === 'CD3E'")
        page.settle()
        assert page.js("document.getElementById('trouble').hidden")
        assert "gene=CD3E" in page.js("[...viewer.map.overlay.source.tiles.values()].map(t => t.img.src).join()")


def test_a_region_off_the_slide_is_told_in_its_panel(devtools: str, server: Server) -> None:
    for region in ("9e5_9e5_9.1e5_9e5_9e5_9.1e5", "-1e300_0_1e300_0_0_-1e300"):
        with viewing(devtools, f"{server.url}#region={region}") as page:
            page.wait("document.getElementById('region-note').textContent.includes('off the slide')")
            page.settle()
            assert page.js("document.getElementById('trouble').hidden")
            assert page.js("viewer.map.overlay.source.tiles.size") > 0


def test_a_gene_that_is_not_written_is_shown_as_written_ones_are(devtools: str, server: Server) -> None:
    region = "602_302_902_302_902_602_602_602"
    with viewing(devtools, f"{server.url}#gene={EXTRA}&layer=refined&region={region}") as page:
        page.settle()
        page.wait("viewer.panel.table")
        assert page.js("document.getElementById('trust').textContent") == (
            "How far to believe it: not tested (this gene was not held out)."
        )
        assert "tile/refined/" in page.js("[...viewer.map.overlay.source.tiles.values()].map(t => t.img.src).join()")
        y, x = (np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5) * 8
        mean = extra()[0][(x > 602) & (x < 902) & (y > 302) & (y < 602) & tissue()].mean()
        row = page.js("[...document.querySelectorAll('#region-rows tr.shown > *')].map(e => e.textContent)")
        assert row[0] == EXTRA
        assert float(row[1]) == pytest.approx(mean, rel=0.01)
        assert f"\n{EXTRA}," in page.js("viewer.panel.text()")
        assert page.js("document.getElementById('region-histogram').textContent").startswith(f"{EXTRA} in the region")
        page.shot("on-demand")
        page.js("document.querySelector('#layers input[value=two]').click()")
        page.settle()
        page.js("location.hash = '#layer=two&gene=KRT5&gene2=XIST'")
        page.settle()
        assert page.js("document.getElementById('trust').textContent") == (
            "How far to believe them: KRT5 reliable, held-out correlation 0.71; "
            f"{EXTRA} not tested (this gene was not held out)."
        )
        assert page.errors == []

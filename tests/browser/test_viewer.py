"""The viewer in a real browser: found, drawn, read, measured, kept in the address, at both widths, light and dark."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from viewing import Viewing, viewing

import iscale
from iscale.demo.synthetic import write_demo
from iscale.results import Run
from iscale.view import Server, serve
from iscale.view.server import view

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        os.environ.get("ISCALE_BROWSER_TESTS") != "1", reason="needs Chromium: `make test-browser` gets it"
    ),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo on a small slide."""
    project = tmp_path_factory.mktemp("viewer") / "project"
    write_demo(project, side_px=3072)
    iscale.run(project, n_plots=2)
    return iscale.open_run(project)


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Server]:
    with serve(run) as server:
        yield server


@pytest.fixture
def page(devtools: str, server: Server) -> Iterator[Viewing]:
    """The page as it opens; at the end nothing may have gone wrong, or been asked of elsewhere."""
    with viewing(devtools, server.url) as page:
        page.settle()
        yield page
        assert page.errors == []
        assert [url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))] == []


def _choose(page: Viewing, gene: str) -> None:
    page.js("document.getElementById('map').focus()")
    page.key("/", "/")
    assert page.js("document.activeElement.id") == "search"
    page.type(gene)
    page.wait("document.getElementById('search').getAttribute('aria-expanded') === 'true'")
    page.wait(f"document.querySelector('#search-list [role=option]')?.dataset.name === '{gene}'")
    page.key("Enter")
    page.settle()


def _overlay(page: Viewing) -> str:
    """What the overlay is made of now, as one text of its pixels."""
    return str(
        page.js(
            "[...viewer.map.overlay.source.tiles.values()].map(t => t.img?.currentSrc).filter(Boolean).sort().join(' ')"
        )
    )


def test_a_gene_is_found_by_typing_and_its_tiles_are_drawn(page: Viewing, run: Run) -> None:
    genes = run.expression["gene"].to_numpy().tolist()
    assert page.js("document.getElementById('name').textContent") == "project"
    before, seen = _overlay(page), page.picture()
    assert f"gene={genes[0]}" in before
    _choose(page, "CD3E")
    after = _overlay(page)
    assert "gene=CD3E" in after
    assert f"gene={genes[0]}&" not in after
    assert page.picture() != seen
    assert page.js("viewer.state.gene") == "CD3E"


def test_the_list_of_genes_is_a_combobox_that_keys_move_through(page: Viewing) -> None:
    page.js("document.getElementById('search').focus()")
    page.type("krt")
    page.wait("document.querySelectorAll('#search-list [role=option]').length === 6")
    marked = "document.querySelector('#search-list [aria-selected=true]')"
    active = "document.getElementById(document.getElementById('search').getAttribute('aria-activedescendant'))"
    assert page.js(f"{marked} === {active}")
    first = page.js(f"{marked}.dataset.name")
    page.key("ArrowDown")
    assert page.js(f"{marked}.dataset.name") != first
    assert page.js(f"{marked} === {active}")
    page.key("Escape")
    assert page.js("document.getElementById('search').getAttribute('aria-expanded')") == "false"
    page.type("nosuchgene")
    page.wait("document.getElementById('search-list').textContent.includes('no gene has this')")
    page.key("Enter")
    page.wait("document.getElementById('trouble').textContent.includes('There is no gene')")
    _choose(page, "KRT5")
    assert page.js("document.getElementById('trouble').hidden")
    page.errors[:] = [error for error in page.errors if "404" not in error]


def test_zooming_brings_finer_tiles_and_the_whole_slide_back(page: Viewing, run: Run) -> None:
    def finest() -> int:
        return int(page.js("Math.max(...[...viewer.map.image.source.tiles.values()].map(t => t.tile_coords[2]))"))

    whole, scale = finest(), page.js("viewer.map.place.s")
    for _ in range(4):
        page.key("+", "+")
    page.settle()
    assert page.js("viewer.map.place.s") == pytest.approx(scale / 16, rel=1e-6)
    assert finest() > whole
    assert page.js("document.getElementById('scale-text').textContent") != ""
    bar = page.js("document.getElementById('scale-bar').getBoundingClientRect().width * viewer.map.place.s")
    length, unit = page.js("document.getElementById('scale-text').textContent").split(" ")
    assert bar == pytest.approx(float(length) * (1000 if unit == "mm" else 1), rel=0.02)
    before = page.js("viewer.map.place.x")
    page.js("document.getElementById('map').focus()")
    page.key("ArrowRight")
    assert page.js("viewer.map.place.x") > before
    page.key("0", "0")
    page.settle()
    assert page.js("viewer.map.place.s") == pytest.approx(scale, rel=1e-6)


def test_the_mouse_drags_the_slide_and_its_wheel_zooms_about_the_cursor(page: Viewing) -> None:
    begin = page.js("viewer.map.place")
    page.drag([(500, 450), (400, 400)])
    moved = page.js("viewer.map.place")
    assert moved["x"] - begin["x"] == pytest.approx(100 * begin["s"], abs=3 * begin["s"])
    assert moved["y"] - begin["y"] == pytest.approx(50 * begin["s"], abs=3 * begin["s"])
    at = page.js(f"[{moved['x']} + 150 * {moved['s']}, {moved['y']}]")
    cursor = page.screen(*at)
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=cursor[0], y=cursor[1], deltaX=0, deltaY=-200)
    page.wait(f"viewer.map.place.s < {moved['s']} * 0.95")
    page.settle()
    assert page.screen(*at) == pytest.approx(cursor, abs=1.5)


def _known(run: Run, gene: str) -> tuple[int, int, float]:
    """A superpixel in the middle of tissue, and its value of a gene."""
    values = run.expression.sel(gene=gene).to_numpy()
    rows, columns = np.nonzero(np.isfinite(values))
    middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean() - 20) ** 2)
    row, column = int(rows[middle]), int(columns[middle])
    return row, column, float(values[row, column])


def test_the_value_under_the_cursor_is_the_runs(page: Viewing, run: Run) -> None:
    _choose(page, "COL1A1")
    row, column, value = _known(run, "COL1A1")
    side = 16 * run.pixel_size_um
    x, y = (column + 0.5) * side, (row + 0.5) * side
    page.js(f"viewer.map.go({{x: {x + 60}, y: {y - 40}, s: 0.5}})")
    page.settle()
    page.mouse("mouseMoved", *page.screen(x, y))
    spread = float(run.uncertainty.sel(gene="COL1A1")[row, column])
    said = page.wait("document.getElementById('readout').textContent")
    assert f"COL1A1 {float(f'{value:.4g}'):g} ± {float(f'{spread:.4g}'):g}" in said
    assert f"x {round(x):,} µm, y {round(y):,} µm" in said
    page.js(f"viewer.map.go({{x: {x}, y: {y}, s: 0.5}})")
    page.js("document.getElementById('map').focus()")
    page.key("v", "v")
    page.wait(f"document.getElementById('said').textContent.includes('COL1A1 {float(f'{value:.4g}'):g}')")
    assert page.js("document.getElementById('said').getAttribute('aria-live')") == "polite"


def test_a_drawn_region_gives_its_table_and_the_table_as_csv(page: Viewing, run: Run, tmp_path: Path) -> None:
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    row, column, _ = _known(run, "COL1A1")
    side = 16 * run.pixel_size_um
    x0, y0, x1, y1 = (column - 20) * side, (row - 15) * side, (column + 20) * side, (row + 15) * side
    page.js("document.getElementById('draw-box').click()")
    page.drag([page.screen(x0, y0), page.screen(x1, y1)])
    page.wait("viewer.panel.table && !document.getElementById('region-found').hidden")
    page.settle()
    corners = np.array(page.js("viewer.state.region"))
    near = page.js("viewer.map.place.s") * 2
    np.testing.assert_allclose(corners.min(axis=0), [x0, y0], atol=near)
    np.testing.assert_allclose(corners.max(axis=0), [x1, y1], atol=near)
    assert page.js("document.querySelectorAll('#region-rows tr').length") > 20
    page.shot("region")

    page.js("document.getElementById('csv').click()")
    file, end = tmp_path / "region.csv", time.monotonic() + 300
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    with file.open() as opened:
        table = {line["gene"]: line for line in csv.DictReader(opened)}
    values = run.expression
    x, y = values["x"].to_numpy(), values["y"].to_numpy()
    (xa, ya), (xb, yb) = corners.min(axis=0), corners.max(axis=0)
    inside = np.outer((y > ya) & (y < yb), (x > xa) & (x < xb))
    every = values.to_numpy()
    tissue = np.isfinite(every[0])
    here = every[:, inside & tissue].mean(axis=1, dtype=float)
    rest = every[:, ~inside & tissue].mean(axis=1, dtype=float)
    assert list(table) == [str(gene) for gene in values["gene"].to_numpy()[np.argsort(-here / rest, kind="stable")]]
    for gene, mean, elsewhere in zip(values["gene"].to_numpy(), here, rest, strict=True):
        found = table[str(gene)]
        assert float(found["mean_in_region"]) == pytest.approx(mean, rel=1e-4), gene
        assert float(found["mean_elsewhere"]) == pytest.approx(elsewhere, rel=1e-4), gene
        assert float(found["fold"]) == pytest.approx(mean / elsewhere, rel=1e-4), gene


def test_a_region_is_drawn_freehand_and_cleared(page: Viewing) -> None:
    page.js("document.getElementById('draw-free').click()")
    assert page.js("document.getElementById('draw-free').getAttribute('aria-pressed')") == "true"
    centre = page.js("[viewer.map.size.width / 2, viewer.map.size.height / 2]")
    around = [(centre[0] + dx, centre[1] + dy) for dx, dy in ((-300, -300), (300, -250), (250, 300), (-250, 250))]
    page.drag([page.screen(*place) for place in around])
    page.wait("viewer.panel.table")
    page.settle()
    assert page.js("viewer.state.region.length") > 10
    assert page.js("document.getElementById('draw-free').getAttribute('aria-pressed')") == "false"
    page.js("document.getElementById('draw-clear').click()")
    assert page.js("viewer.state.region") is None
    assert page.js("document.getElementById('region-found').hidden")


def test_a_view_is_sent_by_its_address(page: Viewing, devtools: str, server: Server) -> None:
    _choose(page, "GAPDH")
    page.js("document.querySelector('#layers input[value=refined]').click()")
    page.js("document.querySelector('#captures input[value=D1]').click()")
    page.js("viewer.map.go({x: 700, y: 650, s: 0.8})")
    for name, value in (("opacity", "0.5"), ("least", "0.2")):
        page.js(
            f"(() => {{ const e = document.getElementById('{name}'); e.value = '{value}';"
            "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()"
        )
    page.settle()
    time.sleep(0.4)
    address = page.js("location.href")
    assert address.startswith(server.url + "#")
    with viewing(devtools, address) as other:
        other.settle()
        assert other.js("viewer.state.gene") == "GAPDH"
        assert other.js("[viewer.state.layer, viewer.state.o, viewer.state.least]") == ["refined", 0.5, 0.2]
        assert other.js("viewer.state.spots") == ["D1"]
        place = other.js("viewer.map.place")
        assert [place["x"], place["y"], place["s"]] == pytest.approx([700, 650, 0.8], rel=1e-4)
        assert "tile/refined/" in _overlay(other)
        assert other.js("viewer.map.spots.data.x.length") > 10
        assert other.errors == []


def test_classes_have_a_legend_and_two_genes_two_searches(page: Viewing, run: Run) -> None:
    page.js("document.querySelector('#layers input[value=annotation]').click()")
    page.settle()
    legend = page.js("[...document.querySelectorAll('#legend li')].map(e => e.textContent)")
    assert legend == run.annotation.attrs["labels"]
    page.js("document.querySelector('#layers input[value=two]').click()")
    page.js("document.getElementById('search2').focus()")
    page.type("CD3E")
    page.wait("document.querySelector('#search2-list [role=option]')?.dataset.name === 'CD3E'")
    page.key("Enter")
    page.settle()
    assert "gene2=CD3E" in _overlay(page)
    assert "tile/two/" in _overlay(page)


OUTSIDE = """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .skip, #map, .hidden")
    && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
UNNAMED = """[...document.querySelectorAll("input, select, button")].filter(e => e.offsetParent
    && !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map(e => e.outerHTML)"""


def _brightness(colour: str) -> float:
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / (3 * 255)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_is_right_at_both_widths_light_and_dark(devtools: str, server: Server, width: int, dark: bool) -> None:
    region = "#layer=gene&gene=ERBB2&spots=D1,D2&region=400_400_900_400_900_900_400_900"
    with viewing(devtools, server.url + region, width, dark=dark) as page:
        page.settle()
        page.wait("viewer.panel.table")
        assert page.js("document.documentElement.scrollWidth") <= width
        assert page.js(OUTSIDE) == []
        assert page.js(UNNAMED) == []
        paper, ink = (
            _brightness(page.js(f"getComputedStyle(document.body).{of}")) for of in ("backgroundColor", "color")
        )
        assert (paper < 0.2 and ink > 0.7) if dark else (paper > 0.9 and ink < 0.3)
        assert page.js("document.getElementById('map').getBoundingClientRect().height") > 300
        assert page.errors == []
        page.shot(f"{width}-{'dark' if dark else 'light'}")


def test_what_the_server_refuses_is_told_in_the_page(devtools: str, server: Server) -> None:
    with viewing(devtools, server.url + "#gene=NOSUCH") as page:
        page.wait("document.getElementById('trouble').textContent.includes('There is no gene')")
        _choose(page, "ERBB2")
        assert page.js("document.getElementById('trouble').hidden")
        assert "gene=ERBB2" in _overlay(page)


def test_a_notebook_shows_it_in_a_frame(devtools: str, run: Run, tmp_path: Path) -> None:
    shown = view(run)
    (tmp_path / "notebook.html").write_text(
        f"<!DOCTYPE html><title>n</title><link rel='icon' href='data:,'>{shown._repr_html_()}"
    )
    pages = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path)))
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    try:
        with viewing(devtools, f"http://127.0.0.1:{pages.server_port}/notebook.html") as page:
            end = time.monotonic() + 300
            while not any(url.startswith(f"{shown.url}tile/gene/") for url in page.asked):
                assert time.monotonic() < end, (page.asked, page.errors)
                page.js("new Promise(done => setTimeout(done, 100))")
            page.js("new Promise(done => setTimeout(done, 1500))")
            page.shot("notebook")
            assert page.errors == []
    finally:
        pages.shutdown()
        pages.server_close()
        shown.stop()


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        pass

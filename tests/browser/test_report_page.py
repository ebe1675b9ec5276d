"""The report in a real browser: it fits the window, its pictures load, it is dark in the dark; nothing complains."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from devtools import look

from iscale.demo.synthetic import write_demo
from iscale.pipeline.run import run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        os.environ.get("ISCALE_BROWSER_TESTS") != "1", reason="needs Chromium: `make test-browser` gets it"
    ),
]

LARGEST_BYTES = 10_000_000

QUESTIONS = {
    "window": "window.innerWidth",
    "page": "document.documentElement.scrollWidth",
    "beyond": """[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .skip")
        && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.outerHTML.slice(0, 80))""",
    "blank": "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)",
    "pictures": "document.images.length",
    "unsaid": "[...document.images].filter(i => !i.alt).length",
    "paper": "getComputedStyle(document.body).backgroundColor",
    "ink": "getComputedStyle(document.body).color",
    "headings": """[...document.querySelectorAll("h1, h2, h3")].map(h => +h.tagName[1])""",
    "captions": """[...document.querySelectorAll("table")].every(t => t.caption && t.caption.textContent)""",
    "text": "document.body.innerText",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the demo on a small slide."""
    project = tmp_path_factory.mktemp("report") / "project"
    write_demo(project, side_px=3072)
    return run(project, n_plots=2) / "report.html"


def _brightness(colour: str) -> float:
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]) / (3 * 255)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_is_right_at_both_widths_light_and_dark(devtools: str, page: Path, width: int, dark: bool) -> None:
    assert page.stat().st_size < LARGEST_BYTES
    seen = look(devtools, page.as_uri(), width, dark=dark, questions=QUESTIONS)
    found = seen.answers
    assert found["window"] == width
    assert found["page"] <= width, "the page scrolls sideways"
    assert found["beyond"] == []
    assert found["pictures"] > 5
    assert found["blank"] == []
    assert found["unsaid"] == 0
    assert found["captions"]
    assert seen.errors == []
    assert all(url.startswith(("file:", "data:")) for url in seen.requests), "the page loads something"
    paper, ink = _brightness(found["paper"]), _brightness(found["ink"])
    assert (paper < 0.2 and ink > 0.7) if dark else (paper > 0.9 and ink < 0.3)


def test_headings_are_in_order_and_the_page_says_what_was_found(devtools: str, page: Path) -> None:
    found = look(devtools, page.as_uri(), 1400, dark=False, questions=QUESTIONS).answers
    levels = found["headings"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    for said in ("In short", "D1", "µm", "Pearson", "seed", "iscale"):
        assert said in found["text"], said


def test_a_press_on_a_column_sorts_the_table_and_without_scripts_the_page_is_whole(devtools: str, page: Path) -> None:
    sort = """(() => {
        const table = document.querySelector("table[data-sortable]");
        const cells = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
        table.tHead.rows[0].cells[0].querySelector("button").click();
        const first = cells();
        table.tHead.rows[0].cells[0].querySelector("button").click();
        return [first, cells()];
    })()"""
    down, up = look(devtools, page.as_uri(), 1400, dark=False, questions={"sorted": sort}).answers["sorted"]
    assert up == down[::-1]
    assert len(set(up)) > 3
    without = look(devtools, page.as_uri(), 400, dark=False, questions={"text": QUESTIONS["text"]}, script=False)
    assert "In short" in without.answers["text"]

"""The report reads well, and its codes are those that are documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from iscale.check.finding import SEVERITY, CheckReport, Finding, errors_first

ROOT = Path(__file__).parent.parent.parent


def test_the_documents_table_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "check.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+?) \| (.+?) \|$", page, re.M)
    assert [(code, severity) for code, severity, _, _ in rows] == list(SEVERITY.items())


def test_every_code_is_used_somewhere() -> None:
    source = "".join(path.read_text() for path in (ROOT / "iscale" / "check").glob("*.py"))
    source = source.replace(
        'f"coordinates-{found.kind}"', '"coordinates-swapped coordinates-mirrored coordinates-rotated"'
    )
    for code in SEVERITY:
        assert source.count(code) >= 2, code


def test_a_report_says_all() -> None:
    found = [
        Finding("depth-low", "Few counts.", "Look.", "D1"),
        Finding("coordinates-swapped", "x and y are swapped. " * 12, "Exchange them.", "D2"),
    ]
    report = CheckReport("P", errors_first(found), {"genes": "12 shared", "memory": "1 GB"}, 1.23)
    text = report.text()
    assert report.fails
    assert text.index("coordinates-swapped") < text.index("depth-low")
    assert "WARNING [depth-low] D1: Few counts." in text
    assert "Remedy: Exchange them." in text
    assert "1 error, 1 warning (1.2 s)." in text
    assert max(len(line) for line in text.splitlines()) <= 120
    document = json.loads(report.to_json())
    assert [finding["severity"] for finding in document["findings"]] == ["error", "warning"]
    assert document["facts"]["genes"] == "12 shared"


def test_a_report_of_nothing() -> None:
    report = CheckReport("P", ())
    assert not report.fails
    assert "Nothing is wrong" in report.text()


def test_a_code_must_exist() -> None:
    with pytest.raises(KeyError):
        _ = Finding("no-such-code", "", "").severity

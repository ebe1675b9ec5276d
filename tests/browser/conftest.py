"""Chromium, started once per file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from devtools import browser, find_browser


@pytest.fixture(scope="module")
def devtools() -> Iterator[str]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with browser(program) as address:
        yield address

"""Fixtures shared by all tests: where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: the real data this test reads are not at hand")
    folder = Path(value)
    if not folder.is_dir():
        pytest.skip(f"{variable}={value} is not a folder: the real data this test reads are not at hand")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real inputs (slides, captures) that ``ISCALE_DATA`` names."""
    return _folder("ISCALE_DATA")

from __future__ import annotations

import pytest

from iscale.engine.progress import listening, part, tell
from iscale.geometry import Region


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.setattr("iscale.engine.progress.SECONDS_BETWEEN", 0.0)
    fractions: list[tuple[Region, float]] = []
    region = Region(2, 3, 4, 5)
    with listening(region, lambda *told: fractions.append(told)):
        yield fractions
    assert all(told[0] == region for told in fractions)


def test_what_is_told_in_a_part_goes_to_its_share(heard) -> None:
    with part(0.2, 0.6):
        tell(1, 2)
        tell(2, 2)
    tell(9, 10)
    assert [fraction for _, fraction in heard] == pytest.approx([0.4, 0.6, 0.9])


def test_parts_lie_within_parts(heard) -> None:
    with part(0.5, 1.0):
        with part(0.0, 0.5):
            tell(1, 2)
        with part(0.5, 1.0):
            tell(1, 2)
    assert [fraction for _, fraction in heard] == pytest.approx([0.625, 0.875])


def test_nobody_need_listen() -> None:
    with part(0.0, 1.0):
        tell(1, 2)

"""What was evaluated of a former model is not taken for that of another."""

from __future__ import annotations

from pathlib import Path

import pytest

import iscale
from iscale.errors import InputError


def tables(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in (out / "evaluation").rglob("*.tsv"))


def test_trust_is_of_the_model_that_is_there(tiny_project: Path) -> None:
    out = iscale.run(tiny_project, stage="evaluate", n_genes=5, hold_out="region")
    assert tables(out) == ["evaluation/trust-region.tsv"]
    iscale.run(tiny_project, stage="predict")
    assert tables(out) == ["evaluation/trust-region.tsv"], "the model of the same spots is what was held out"
    assert len(iscale.open_run(out).trust) == 5
    said = Told()
    iscale.run(tiny_project, stage="predict", n_genes=4, watcher=said)
    assert tables(out) == ["evaluation/earlier/trust-region.tsv"]
    assert any("Evaluations of the former model" in text for text in said.texts)
    with pytest.raises(InputError, match="no gene has been held out yet"):
        _ = iscale.open_run(out).trust
    iscale.run(tiny_project, stage="evaluate")
    assert len(iscale.open_run(out).trust) == 4
    iscale.run(tiny_project, stage="predict", seed=3)
    assert tables(out) == ["evaluation/earlier/trust-region.tsv"]
    iscale.run(tiny_project, stage="evaluate")
    iscale.run(tiny_project, stage="fit", restart=True, n_genes=4, hold_out="none")
    assert tables(out) == ["evaluation/earlier/trust-region.tsv"]


class Told:
    """Keeps what is said; knows nothing of steps."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)

    def __getattr__(self, name: str) -> object:
        return lambda *_: None


def test_a_stage_that_is_none_is_told(tiny_project: Path) -> None:
    with pytest.raises(InputError, match="stage='nope': there is no such stage"):
        iscale.run(tiny_project, stage="nope")

"""What was evaluated of a former model is not taken for that of another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import iscale
from iscale.errors import InputError

HELD_OUT, PUT_ASIDE = "evaluation/trust-region.tsv", "evaluation/earlier/trust-region.tsv"


def tables(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in (out / "evaluation").rglob("*.tsv"))


@pytest.fixture(scope="module")
def evaluated_once(tiny_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Path(shutil.copytree(tiny_original, tmp_path_factory.mktemp("evaluated") / "project"))
    assert tables(iscale.run(project, stage="evaluate", n_genes=5, hold_out="region")) == [HELD_OUT]
    assert tables(iscale.run(project, stage="predict")) == [HELD_OUT], "the same spots' model is what was held out"
    return project


@pytest.fixture
def evaluated(evaluated_once: Path, tmp_path: Path) -> Path:
    """A project of which a region has been held out, of the test's own."""
    return Path(shutil.copytree(evaluated_once, tmp_path / "project"))


def test_trust_is_of_the_model_that_is_there(evaluated: Path) -> None:
    out = evaluated / "iSCALE_output"
    assert len(iscale.open_run(out).trust) == 5
    said = Told()
    iscale.run(evaluated, stage="predict", n_genes=4, watcher=said)
    assert tables(out) == [PUT_ASIDE]
    assert any("Evaluations of the former model" in text for text in said.texts)
    with pytest.raises(InputError, match="no gene has been held out yet"):
        _ = iscale.open_run(out).trust
    iscale.run(evaluated, stage="evaluate")
    assert len(iscale.open_run(out).trust) == 4


def test_a_model_of_another_seed_puts_aside_what_was_held_out(evaluated: Path) -> None:
    assert tables(iscale.run(evaluated, stage="predict", seed=3)) == [PUT_ASIDE]


@pytest.mark.full
def test_a_model_made_anew_puts_aside_what_was_held_out(evaluated: Path) -> None:
    out = iscale.run(evaluated, stage="fit", restart=True, n_genes=4, hold_out="none")
    assert tables(out) == [PUT_ASIDE]


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

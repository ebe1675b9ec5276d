"""The documents name what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iscale.cli import app
from iscale.config import CaptureOptions, Options
from iscale.stages import STAGES

ROOT = Path(__file__).parent.parent


def test_every_option_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "options.md").read_text()
    for name, field in (*Options.model_fields.items(), *CaptureOptions.model_fields.items()):
        assert f"| `{name}` | `{field.default}` | {field.description} |" in page


def test_every_option_is_a_flag_of_every_stage() -> None:
    commands = {command.name: command.callback for command in app.registered_commands}
    in_the_file_only = {"capture"}
    for name in ("run", *STAGES):
        callback = commands[name]
        assert callback is not None
        assert set(Options.model_fields) - in_the_file_only <= set(inspect.signature(callback).parameters), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_reads_a_run_as_it_says(tiny_project: Path) -> None:
    import iscale

    iscale.run(tiny_project, n_plots=1)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert code is not None
    names: dict[str, object] = {}
    exec(code.group(1).replace("PROJECT", str(tiny_project)).replace("ERBB2", "G3"), names)
    assert names["window"].shape == (8, 64, 64)  # type: ignore[attr-defined]
    assert 0 < float(names["composition"].sel(gene="G3").mean()) < 1  # type: ignore[attr-defined]


def test_the_encoder_of_the_docs_is_one() -> None:
    from iscale.encoders import EncoderSpec
    from iscale.encoders.base import RegionEncoder

    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "encoders.md").read_text(), re.S)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    encoder = names["Mean"](EncoderSpec("mean"))
    assert isinstance(encoder, RegionEncoder)
    image = np.random.default_rng(0).integers(0, 255, (3, 32, 48), np.uint8)
    found = encoder.encode(image, np.ones((2, 3), bool))["mean"]
    np.testing.assert_allclose(found[:, 1, 2], image[:, 16:, 32:].mean(axis=(1, 2)), rtol=1e-5)

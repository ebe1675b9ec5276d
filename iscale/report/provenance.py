"""Sections of a report: the parameters, where everything comes from, and what it took."""

from __future__ import annotations

from typing import Any

from iscale import __version__
from iscale.engine.plan import format_bytes
from iscale.report.page import Facts, Item, Section, Text, not_made, table_of
from iscale.report.scene import Scene
from iscale.report.values import NOT_KNOWN, count, duration, read_json, shown
from iscale.words import in_words

LONGEST_VALUE = 200


def parameters_section(scene: Scene) -> Section:
    """The options of the run."""
    if not scene.options:
        return not_made("parameters", "Parameters", "The options of the run are not known.", scene.command("run"))
    rows = [[name, _value(value)] for name, value in scene.options.items()]
    return Section("parameters", "Parameters", (table_of("Options of the run", ("option", "value"), rows),))


def _value(value: Any) -> str:
    if value is None or value in ((), [], {}):
        return NOT_KNOWN
    text = in_words(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def provenance_section(scene: Scene) -> Section:
    """What made the run, of what: versions, fingerprints, hashes of weights, seeds."""
    image, features = scene.attributes("image"), scene.attributes("features")
    model = read_json(scene.store.folder / "model" / "ensemble.json")
    rows = [
        ("iscale", f"{__version__}; store made by {scene.attributes('').get('iscale', {}).get('created_by', '–')}"),
        ("project", str(scene.project)),
        ("store", str(scene.store.place)),
        ("slide file", str(image.get("source", NOT_KNOWN))),
        ("fingerprint of the slide", str(image.get("slide_fingerprint", NOT_KNOWN))),
    ]
    rows += [(f"encoder: {key}", _value(value)) for key, value in features.get("encoder", {}).items()]
    rows += [(f"features: made of {name}", str(value)) for name, value in (features.get("inputs") or {}).items()]
    expression = scene.attributes("expression")
    rows += [
        ("recipe", str(expression.get("recipe", scene.options.get("recipe", NOT_KNOWN)))),
        ("seed", str(expression.get("seed", scene.options.get("seed", NOT_KNOWN)))),
        ("states of the ensemble", str(model.get("n_states", NOT_KNOWN))),
        ("sha256 of the model", str(model.get("sha256", NOT_KNOWN))),
    ]
    rows += [(f"expression: made of {name}", str(value)) for name, value in (expression.get("inputs") or {}).items()]
    return Section("provenance", "Provenance", (Facts(tuple(rows)),))


def timings_section(scene: Scene) -> Section:
    """What every step took."""
    report = scene.report()
    steps = [step for step in report.get("steps", []) if isinstance(step, dict)]
    if not steps:
        return not_made("timings", "Time and memory", "What the steps took is not known.", scene.command("run"))
    rows = [_row(step) for step in steps]
    peak = max(int(step.get("peak_bytes", 0)) for step in steps)
    total = sum(float(step.get("seconds", 0)) for step in steps)
    items: list[Item] = [
        Facts((("all steps", duration(total)), ("highest memory of a worker", format_bytes(peak)))),
        table_of(
            "What every step took when it last ran; the peak is the process's until then, with all it did before",
            ("step", "regions", "time (s)", "processor (s)", "memory, peak (MB)", "projected (MB)", "written (MB)"),
            rows,
        ),
    ]
    if report.get("stage") is not None and any(step.get("failed") for step in steps):
        items.append(Text("Regions failed; report.json says which, and why."))
    return Section("timings", "Time and memory", tuple(items))


def _row(step: dict[str, Any]) -> list[str]:
    return [
        str(step.get("step", NOT_KNOWN)),
        count(int(step.get("regions", 0)) + int(step.get("reused", 0))),
        shown(float(step.get("seconds", 0)), 1),
        shown(float(step.get("cpu_seconds", 0)), 1),
        *(f"{int(step.get(name, 0)) / 1e6:,.1f}" for name in ("peak_bytes", "projected_bytes", "written_bytes")),
    ]

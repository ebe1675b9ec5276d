"""What a check finds: findings with stable codes, facts, and both as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from iscale.words import plural

Severity = Literal["error", "warning"]

SEVERITY: dict[str, Severity] = {
    "input": "error",
    "no-tissue": "error",
    "no-stain": "error",
    "not-aligned": "warning",
    "cannot-align": "error",
    "spots-outside-image": "error",
    "spots-mostly-off-tissue": "error",
    "spots-off-tissue": "warning",
    "spots-at-one-place": "warning",
    "coordinates-scaled": "error",
    "coordinates-swapped": "error",
    "coordinates-mirrored": "error",
    "coordinates-rotated": "error",
    "pixel-size-mother": "error",
    "pixel-size-stated": "warning",
    "pixel-size-capture": "warning",
    "radius-too-large": "warning",
    "radius-too-small": "warning",
    "radius-differs": "warning",
    "genes-none-shared": "error",
    "genes-few-shared": "warning",
    "genes-ids-and-symbols": "error",
    "genes-species-mixed": "error",
    "genes-not-measured": "error",
    "markers-not-measured": "warning",
    "capture-twice": "warning",
    "captures-disagree": "warning",
    "counts-not-whole": "warning",
    "counts-too-large": "error",
    "depth-low": "warning",
    "depth-uneven": "warning",
    "too-few-spots": "error",
    "memory-short": "error",
    "disk-short": "error",
    "out-not-writable": "error",
    "gpu-missing": "error",
}
"""Every code that a finding can have: ``error`` where a run would fail or be worthless, ``warning`` where it would run
and be doubtful."""

WIDTH = 110


@dataclass(frozen=True)
class Finding:
    """One thing that will go wrong.

    Attributes
    ----------
    code
        A key of :data:`SEVERITY`; stable, for programs.
    message
        What is wrong, with the numbers.
    remedy
        What to do.
    capture
        The capture, None where it is about the mother image, all captures or the machine.
    """

    code: str
    message: str
    remedy: str
    capture: str | None = None

    @property
    def severity(self) -> Severity:
        """``error`` or ``warning``."""
        return SEVERITY[self.code]

    @property
    def text(self) -> str:
        """The message, with the capture's name before it where it is about one and does not name it."""
        if self.capture is None or self.capture in self.message:
            return self.message
        return f"{self.capture}: {self.message}"


@dataclass(frozen=True)
class CheckReport:
    """All that a check found.

    Attributes
    ----------
    project
        The project folder.
    findings
        What will go wrong, errors first.
    facts
        What is so: a sentence by a short name, for people.
    seconds
        How long the check took.
    """

    project: str
    findings: tuple[Finding, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def fails(self) -> bool:
        """Whether a run would fail, or be worthless."""
        return any(finding.severity == "error" for finding in self.findings)

    def text(self) -> str:
        """The report for people."""
        width = max((len(name) for name in self.facts), default=0)
        lines = [f"{name.ljust(width)}  {_indented(text, width + 2)}" for name, text in self.facts.items()]
        for finding in self.findings:
            about = f" {finding.capture}:" if finding.capture else ""
            lines += ["", _indented(f"{finding.severity.upper()} [{finding.code}]{about} {finding.message}", 4)]
            lines.append(f"    {_indented('Remedy: ' + finding.remedy, 4)}")
        errors = sum(finding.severity == "error" for finding in self.findings)
        warnings = len(self.findings) - errors
        said = f"{plural(errors, 'error')}, {plural(warnings, 'warning')}" if self.findings else "Nothing is wrong"
        return "\n".join([*lines, "", f"{said} ({self.seconds:.1f} s)."])

    def to_json(self) -> str:
        """The report for programs."""
        shown = ("code", "severity", "capture", "message", "remedy")
        document: dict[str, Any] = {
            "project": self.project,
            "fails": self.fails,
            "findings": [{name: getattr(finding, name) for name in shown} for finding in self.findings],
            "facts": dict(self.facts),
            "seconds": round(self.seconds, 1),
        }
        return json.dumps(document, indent=1)


def errors_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Findings with errors before warnings, otherwise in their order."""
    return tuple(sorted(findings, key=lambda finding: finding.severity != "error"))


def _indented(text: str, by: int) -> str:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line.strip(), WIDTH - by) or [""]]
    return ("\n" + " " * by).join(lines)

"""The page: sections as one HTML file that needs nothing else. Texts of users are escaped by the template engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from iscale import __version__
from iscale.report.images import embed
from iscale.report.items import Figure, Finding, Section

HERE = Path(__file__).parent


def render(
    title: str, lead: str, findings: Sequence[Finding], notices: Sequence[str], sections: Sequence[Section]
) -> str:
    """The page as HTML.

    Parameters
    ----------
    title, lead
        Its heading, and what it is about.
    findings
        The verdict.
    notices
        What the run had to say of its input.
    sections
        What is shown, in order.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = [item.path for section in sections for item in section.items if isinstance(item, Figure)]
    return environment.get_template("page.html").render(
        title=title,
        lead=lead,
        findings=findings,
        notices=notices,
        sections=sections,
        pictures=embed(figures),
        version=__version__,
        # Ours, not a user's: these two files go into the page as they are.
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
    )


def write_page(path: Path, html: str) -> None:
    """Write the page, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(html, encoding="utf-8")
    part.replace(path)

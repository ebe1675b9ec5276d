"""Genes that a user asks a run for: names, text with commas between them, or a file of one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iscale.basis.source import Source
from iscale.errors import InputError
from iscale.project import read_gene_names

HOW = "Write --genes A,B, or name a file of one gene a line."


def choose_genes(asked: str | Sequence[str] | None, source: Source, default: int | None = None) -> tuple[str, ...]:
    """Genes that are asked for, each once.

    Parameters
    ----------
    asked
        Names, or text: names with commas between, or a file of one name a line. None: the imputed ones, as in
        ``run.expression``.
    source
        What can be asked for.
    default
        How many of the imputed ones, where none are named; None is all.

    Raises
    ------
    InputError
        Names are unknown, there is none, or there is no such file.
    """
    if asked is None:
        return source.genes[: source.imputed][:default]
    names = _named(asked, source) if isinstance(asked, str) else asked
    if not names:
        raise InputError("No gene is named.", HOW)
    return source.named(names)


def _named(text: str, source: Source) -> Sequence[str]:
    if Path(text).is_file():
        return read_gene_names(Path(text))
    if "/" in text or (Path(text).suffix and "," not in text and not source.has(text)):
        raise InputError(f"--genes {text}: there is neither such a file nor such a gene.", HOW)
    return [name for part in text.split(",") if (name := part.strip())]

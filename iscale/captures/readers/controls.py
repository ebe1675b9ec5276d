"""Which features are genes, by one rule for all platforms: their type where a source states it, and their name."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from iscale.captures.counts import select_genes
from iscale.captures.measured import Measured
from iscale.errors import InputError
from iscale.words import plural

GENE_TYPE = "Gene Expression"

CONTROL_NAME = re.compile(
    r"(neg(ative)?[_ .-]?(prb|probe|control|ctrl)|negative|blank|antisense|(un)?assigned[_ -]?codeword"
    r"|deprecated[_ -]?codeword|intergenic[_ -]?region|genomic[_ -]?control|system[_ -]?control|false[_ -]?code"
    r"|ercc-\d)",
    re.IGNORECASE,
)
"""How names of controls begin: of Xenium, CosMx, MERSCOPE, and spike-ins."""


def is_control(name: str) -> bool:
    """Whether a name is that of a control: it is no gene, whatever its type.

    >>> [is_control(n) for n in ("NegPrb12", "BLANK_0044", "Intergenic_Region_7", "UnassignedCodeword_0001")]
    [True, True, True, True]
    >>> [is_control(n) for n in ("NEGR1", "BLNK", "ERCC1", "ASAP1", "FALZ", "DEPDC1")]
    [False, False, False, False, False, False]
    """
    return CONTROL_NAME.match(name) is not None


def is_gene_type(kind: str) -> bool:
    """Whether a type of features, as platforms write them, is that of genes.

    >>> [is_gene_type(k) for k in ("Gene Expression", "gene_expression", "predesigned_gene", "Genomic Control", "")]
    [True, True, True, False, False]
    """
    words = kind.casefold().replace("_", " ").split()
    return words == ["gene", "expression"] or words[-1:] == ["gene"]


def without_controls(measured: Measured) -> Measured:
    """A capture without the features that have a control's name, with a notice of what is left out."""
    bad = [name for name in measured.gene_symbols if is_control(name)]
    if not bad:
        return measured
    kept = np.flatnonzero([not is_control(name) for name in measured.gene_symbols])
    shown = ", ".join(bad[:3])
    if not len(kept):
        raise InputError(f"All {len(bad)} features are controls by their names: {shown}.", "Give counts of genes.")
    notice = f"{plural(len(bad), 'feature')} of {len(measured.gene_symbols):,} left out as controls by name: {shown}."
    return replace(
        measured,
        gene_symbols=[measured.gene_symbols[i] for i in kept],
        gene_ids=[measured.gene_ids[i] for i in kept],
        counts=select_genes(measured.counts, kept),
        notices=(*measured.notices, notice),
    )

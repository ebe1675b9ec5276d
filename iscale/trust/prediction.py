"""What a run predicts, as it is held against a truth: the genes that both have, and their maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.geometry import Region, SlideGrid
from iscale.model.genes import GeneArray, imputed_genes
from iscale.results import Run
from iscale.store.remedies import check_readable
from iscale.trust.truth import read_genes

SHOWN = 8


@dataclass(frozen=True)
class Common:
    """Genes (gene,) that both have, in the run's order: names, numbers in the run and in the truth, and what is
    missing, one sentence each.
    """

    names: tuple[str, ...]
    run: tuple[int, ...]
    truth: tuple[int, ...]
    notices: tuple[str, ...]


def genes_in_common(
    run: Sequence[str], truth: Sequence[str], source: str, all_genes: Sequence[str] | None = None
) -> Common:
    """Match genes by name; refused where none is in common, or the truth names one twice, or none at all.

    ``source`` is the truth, for messages; ``all_genes`` are all names that it has, for hints, where ``truth`` are but
    some.

    >>> found = genes_in_common(["A", "B", "C"], ["C", "A", "b"], "truth.npz")
    >>> found.names, found.truth
    (('A', 'C'), (1, 0))
    >>> found.notices
    ("1 of the run's 3 genes are not in truth.npz: B. 1 are there in another case: B as b.",)
    """
    if not truth and not all_genes:
        raise InputError(f"{source}: it names no gene.", "Is it what you meant? A truth has a map or counts per gene.")
    place = {gene: i for i, gene in enumerate(truth)}
    if len(place) < len(truth):
        raise InputError(f"{source} names {len(truth) - len(place)} of {len(truth)} genes twice.", "Keep one of each.")
    both = [(gene, i, place[gene]) for i, gene in enumerate(run) if gene in place]
    missing = [gene for gene in run if gene not in place]
    hint = _case_hint(missing, all_genes or truth)
    if not both:
        raise InputError(
            f"{source} and the run have no gene in common: it has {_some(all_genes or truth)}, the run {_some(run)}."
            f"{hint}",
            "Names must be the same: symbols and ids do not match each other, nor do mouse and human genes.",
        )
    notices = (
        (f"{len(missing)} of the run's {len(run)} genes are not in {source}: {_some(missing)}.{hint}",)
        if missing
        else ()
    )
    names, rows, theirs = zip(*both, strict=True)
    return Common(names, rows, theirs, notices)


def _case_hint(missing: Sequence[str], names: Sequence[str]) -> str:
    """Which of the missing names are there but for their case."""
    folded = {name.casefold(): name for name in names}
    found = [(gene, folded[gene.casefold()]) for gene in missing if gene.casefold() in folded]
    if not found:
        return ""
    return f" {len(found)} are there in another case: {_some([f'{ours} as {theirs}' for ours, theirs in found])}."


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" ... ({len(names)})" if len(names) > SHOWN else "")


@dataclass(frozen=True)
class Prediction:
    """What a run predicts: (gene, y, x) expected counts per superpixel, NaN off tissue, and the slide's grids."""

    array: GeneArray
    genes: tuple[str, ...]
    grid: SlideGrid

    def read(self, genes: Sequence[int], region: Region) -> NDArray[np.float16]:
        """(gene, y, x) of a region; genes that are stored together are read together."""
        values = np.empty((len(genes), *region.shape), np.float16)
        read_genes(self.array, genes, region.slices, values)
        return values


def open_prediction(run: Run, parts: Sequence[str] = ()) -> Prediction:
    """Open a run's expression, where it and the ``parts`` can be read (`iscale.store.remedies.check_readable`)."""
    check_readable(run.store, parts)
    genes = tuple(str(gene) for gene in run.expression["gene"].values)
    image = run.store.attributes("image")
    height, width = image["raw_shape_px"]
    bounds = Region(*image["bounds"]) if "bounds" in image else None
    grid = SlideGrid((height, width), image["raw_pixel_size_um"], image["pixel_size_um"], bounds)
    return Prediction(imputed_genes(run.store), genes, grid)

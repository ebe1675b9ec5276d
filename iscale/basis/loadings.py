"""What turns factors into genes: made by the fit, kept beside the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from iscale.errors import StoreError

NUMBERS_FILE, GENES_FILE = "every_gene.safetensors", "every_gene.json"
NAMES = ("loading", "level", "share")


@dataclass(frozen=True)
class Loadings:
    """What turns the factors of a state into the expected counts of genes.

    Attributes
    ----------
    genes
        (gene,) names: those that the ensemble was trained on, then the others.
    loading, level
        (factor, gene) and (gene,) float32: ``log1p`` of a spot's counts is ``factors @ loading + level``.
    share
        (gene,) float32: what turns a spot's counts into the expected counts of one superpixel.
    """

    genes: tuple[str, ...]
    loading: NDArray[np.float32]
    level: NDArray[np.float32]
    share: NDArray[np.float32]

    def save(self, folder: Path) -> None:
        """Write the numbers and the names into a model's folder."""
        numbers = {name: np.ascontiguousarray(getattr(self, name)) for name in NAMES}
        save_file(numbers, folder / NUMBERS_FILE)
        (folder / GENES_FILE).write_text(json.dumps(list(self.genes)))


def read_loadings(folder: Path) -> Loadings:
    """The loadings in a model's folder.

    Raises
    ------
    StoreError
        If they are missing, damaged, or numbers and names do not belong together.
    """
    try:
        genes = tuple(str(gene) for gene in json.loads((folder / GENES_FILE).read_text()))
        loading, level, share = (load_file(folder / NUMBERS_FILE)[name] for name in NAMES)
        if not loading.shape[1] == len(level) == len(share) == len(genes):
            raise ValueError(f"{len(genes)} genes, loadings of {loading.shape[1]}")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise StoreError(
            f"{folder} does not hold what turns factors into genes: {error}",
            f"Delete {folder} and run the project again: the fit is made anew.",
        ) from error
    return Loadings(genes, loading, level, share)

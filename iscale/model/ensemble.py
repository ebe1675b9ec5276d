"""What every trained model offers, whatever its recipe, and how it lies on disk.

A folder holds ``ensemble.safetensors`` (the numbers) and ``ensemble.json`` (recipe, genes, settings, and the sha256 of
the numbers, so that files of two fits cannot be mixed). Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from safetensors import SafetensorError

from iscale.engine.whole_file import whole_file
from iscale.errors import InputError, StoreError
from iscale.words import by

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from iscale.model.data import Epoch, OnEpoch, SharedGenes, TrainingData
    from iscale.model.loadings import Loadings

FORMAT = 1
TENSORS_FILE, SETTINGS_FILE = "ensemble.safetensors", "ensemble.json"
RECIPES: Mapping[str, str] = {"default": "iscale.model.default", "published": "iscale.model.published"}
"""Recipe's name to the module that trains it and builds its ensemble."""

GENE_BLOCK, ROW_BLOCK = 64, 1024
"""Genes and superpixels that are computed at a time, so that the states' values stay in cache."""


class Ensemble(ABC):
    """States of a model, trained together, that predict expected counts per superpixel.

    Attributes
    ----------
    recipe
        Name of the recipe, a key of ``RECIPES``.
    genes
        (gene,) names.
    n_states
        Number of states.
    """

    recipe: ClassVar[str]
    genes: tuple[str, ...]
    n_states: int

    @abstractmethod
    def hidden(self, features: Tensor, xy_um: Tensor) -> Tensor:
        """What the other predictions of a tile start from.

        Parameters
        ----------
        features
            (n, feature) float32, on the ensemble's device.
        xy_um
            (n, 2) float32: x, y of the superpixels' centres.
        """

    @abstractmethod
    def expression(self, hidden: Tensor, genes: slice) -> tuple[Tensor, Tensor]:
        """Expected counts per superpixel of some genes.

        Returns
        -------
        estimate, spread
            (gene, n) float32 each: the estimate over states, whose sum over a spot's disc is the spot's expected
            count, and the standard deviation over states.
        """

    @abstractmethod
    def depth(self, hidden: Tensor) -> Tensor:
        """(n,) float32: expected counts of all genes together per superpixel."""

    @abstractmethod
    def embedding(self, hidden: Tensor) -> Tensor:
        """(n, component) float32: the gene embedding, by whose distances superpixels are clustered.

        There are as many components as :data:`iscale.model.sizes.SIZES` says.
        """

    @abstractmethod
    def task_bytes(self, n_superpixels: int, n_genes: int) -> int:
        """Peak bytes of predicting a tile, features and results included, ``n_genes`` at a time."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All numbers that predictions depend on, by name."""

    def settings(self) -> dict[str, Any]:
        """Anything else that predictions depend on, JSON-able."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the ensemble into a folder, which is made; the same ensemble gives the same bytes."""
        from safetensors.torch import save

        tensors = {name: t.detach().cpu().contiguous() for name, t in self.tensors().items()}
        data = save(tensors)
        description = {
            "format": FORMAT,
            "recipe": self.recipe,
            "n_states": self.n_states,
            "genes": list(self.genes),
            "settings": self.settings(),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in ((TENSORS_FILE, data), (SETTINGS_FILE, json.dumps(description, indent=1).encode())):
                with whole_file(folder / name) as beside:
                    beside.write_bytes(content)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written: {error}", "Free space or choose another folder.") from error


def load_ensemble(folder: Path, device: torch.device | str = "cpu") -> Ensemble:
    """Read an ensemble of any recipe; a `StoreError` where files are missing, damaged, or do not belong together."""
    from safetensors.torch import load

    description, data = _read(folder)
    try:
        tensors = {name: tensor.to(device) for name, tensor in load(data).items()}
        recipe = recipe_module(description["recipe"])
        genes, n_states = tuple(description["genes"]), description["n_states"]
        return recipe.from_tensors(genes, n_states, tensors, description["settings"])
    except (SafetensorError, KeyError, TypeError, ValueError, InputError) as error:
        raise StoreError(f"{folder} does not hold a whole ensemble: {error}", fit_anew(folder)) from error


class Recipe(Protocol):
    """What a recipe's module has; what it takes is in :mod:`iscale.model.sizes`."""

    REFIT: bool
    """Whether, once it is scored, the recipe is trained again on all spots, the held-out ones included."""

    def train(
        self,
        data: TrainingData,
        *,
        seed: int,
        n_states: int,
        max_epochs: int | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> tuple[Ensemble, list[Epoch]]:
        """Train on the spots that are not held out, on the data's device.

        Parameters
        ----------
        data
            Spots and discs.
        seed
            Fixes all that is drawn.
        n_states
            Number of states.
        max_epochs
            Fewer epochs than the recipe's own: for benchmarks and tests.
        on_epoch
            Called after each epoch with its line of the history.

        Returns
        -------
        ensemble, history
            The states, and per epoch the losses of trained and of held-out spots.
        """
        ...

    def every_gene(self, ensemble: Ensemble, data: TrainingData, shared: SharedGenes) -> Loadings | None:
        """What turns hidden layers into every gene that captures measured; None where only a training does."""
        ...

    def from_tensors(
        self, genes: tuple[str, ...], n_states: int, tensors: dict[str, Tensor], settings: dict[str, Any]
    ) -> Ensemble:
        """Build an ensemble from what ``tensors`` and ``settings`` gave; ValueError where they do not fit."""
        ...


def recipe_module(name: str) -> Recipe:
    """Module of a recipe; an unknown one is refused."""
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}", f"Recipes are: {', '.join(RECIPES)}.")
    return cast(Recipe, importlib.import_module(RECIPES[name]))


def expect_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """See that loaded tensors have these names and shapes, are float32 and finite; else a `ValueError` names one."""
    import torch

    if set(tensors) != set(shapes):
        raise ValueError(f"tensors are {', '.join(sorted(tensors))}, expected {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tensor.dtype} of shape {by(tensor.shape)}, expected float32 of {by(shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")


def expression_blocks(start: int, stop: int, n: int) -> Iterator[tuple[slice, slice]]:
    """`GENE_BLOCK` of the genes from ``start`` to ``stop``, and `ROW_BLOCK` of ``n`` superpixels, at a time."""
    for a in range(start, stop, GENE_BLOCK):
        for b in range(0, n, ROW_BLOCK):
            yield slice(a, min(a + GENE_BLOCK, stop)), slice(b, b + ROW_BLOCK)


def deviation_over_states(values: Tensor, centre: Tensor) -> Tensor:
    """Standard deviation along the first axis, computed about a value near the mean."""
    offset = values - centre
    shift = offset.mean(dim=0)
    return offset.square_().mean(dim=0).sub_(shift.square_()).clamp_(min=0).sqrt_()


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    try:
        description = json.loads((folder / SETTINGS_FILE).read_bytes())
        data = (folder / TENSORS_FILE).read_bytes()
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise StoreError(f"{folder} holds no ensemble: {missing} is missing", fit_anew(folder)) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"the ensemble in {folder} cannot be read: {error}", fit_anew(folder)) from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise StoreError(
            f"{folder / SETTINGS_FILE} is of format {found}; this version reads {FORMAT}", fit_anew(folder)
        )
    if hashlib.sha256(data).hexdigest() != description.get("sha256"):
        raise StoreError(
            f"{folder / TENSORS_FILE} is not the file that {SETTINGS_FILE} was written with: sha256 differs",
            fit_anew(folder),
        )
    return description, data


def fit_anew(folder: Path) -> str:
    """What to do about a model's folder that cannot be read."""
    return f"Delete {folder} and run the project again: the fit is made anew."

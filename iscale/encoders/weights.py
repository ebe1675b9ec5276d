"""HIPT's two weight files: where they lie, what they must hold, and whether they are the published ones.

A file lies in a folder as ``.pth``, a full training checkpoint as published, or as ``.safetensors``, what
`iscale.cli.weights.convert_weights` makes of it: the teacher's weights alone, a tenth of the size.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from iscale.encoders.checkpoint import file_sha256, is_plain_tensor, own, read_teacher, read_tensors
from iscale.errors import InputError
from iscale.words import by

if TYPE_CHECKING:
    from torch import Tensor

Which = Literal["vit256_small_dino", "vit4k_xs_dino"]
PATCH_FILE: Final = "vit256_small_dino"
CONTEXT_FILE: Final = "vit4k_xs_dino"
WEIGHT_FILES: tuple[Which, ...] = (PATCH_FILE, CONTEXT_FILE)

PUBLISHED_SUFFIX = ".pth"
CONVERTED_SUFFIX = ".safetensors"
VARIABLE = "ISCALE_WEIGHTS"
FOLDER = "checkpoints"
SOURCE_KEY = "source_sha256"
"""Metadata entry of a converted file: the sha256 of the file that it was made from."""
PUT_THERE = "Put HIPT's two weight files there, or name the folder that holds them."

_NAMED = 3
"""Differences of a kind that a message spells out."""


@dataclass(frozen=True)
class Network:
    """A network whose weights are read, and the file in which they were published (method, section 2)."""

    title: str
    width: int
    depth: int
    stem: Mapping[str, tuple[int, ...]]
    published_bytes: int
    published_sha256: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name to its shape: a vision transformer in DINO's words, 14 x 14 positions and CLS."""
        d, hidden = self.width, 4 * self.width
        block = {
            **{f"{norm}.{which}": (d,) for norm in ("norm1", "norm2") for which in ("weight", "bias")},
            **{"attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,)},
            **{"attn.proj.weight": (d, d), "attn.proj.bias": (d,)},
            **{"mlp.fc1.weight": (hidden, d), "mlp.fc1.bias": (hidden,)},
            **{"mlp.fc2.weight": (d, hidden), "mlp.fc2.bias": (d,)},
        }
        return {
            **{"cls_token": (1, 1, d), "pos_embed": (1, 14 * 14 + 1, d)},
            **self.stem,
            **{f"blocks.{i}.{name}": shape for i in range(self.depth) for name, shape in block.items()},
            **{"norm.weight": (d,), "norm.bias": (d,)},
        }


NETWORKS: dict[Which, Network] = {
    PATCH_FILE: Network(
        title="ViT-256",
        width=384,
        depth=12,
        stem={"patch_embed.proj.weight": (384, 3, 16, 16), "patch_embed.proj.bias": (384,)},
        published_bytes=704_238_867,
        published_sha256="6960cd5a8657dc8bb214671aa0c6dbd3f5b698e84386884955836487ddc89e24",
    ),
    CONTEXT_FILE: Network(
        title="ViT-4K",
        width=192,
        depth=6,
        stem={"phi.0.weight": (192, 384), "phi.0.bias": (192,)},
        published_bytes=395_710_078,
        published_sha256="2b0bd9e9a602a35f2bb3f76da39d2b53a91f23fc3f115dc59a63267d95ad2b7b",
    ),
}


@dataclass(frozen=True, eq=False)
class WeightFile:
    """A weight file that was read and fits its network.

    Attributes
    ----------
    published
        Whether these are the published weights: a ``.pth`` file is known by its sha256. For a converted file its
        own word is taken for what it was made from; that cannot be proved from the file.
    tensors
        DINO's names without prefixes to float32 tensors, in memory of their own: exactly those of the network.
    source_sha256
        Of the ``.pth`` file: this one's, or that which a converted file names; empty if it names none.
    """

    path: Path
    sha256: str
    published: bool
    tensors: dict[str, Tensor] = field(repr=False)
    which: Which
    source_sha256: str


def has_weights(folder: Path) -> bool:
    """Whether a folder holds both files, in either form; they are not read."""
    return not _missing(folder)


def find_weights(given: Path | None, project: Path) -> Path | None:
    """The folder that holds both files, which are not read; ``None`` if nobody named one and none of the usual does.

    The folder that the user ``given``, or else the one that the environment variable ``ISCALE_WEIGHTS`` names, is
    taken, and refused if it does not hold both. Otherwise the project's ``checkpoints`` and the one beside it are
    looked into.
    """
    if given is not None:
        return _named_folder(given, "the folder named for the weights")
    variable = os.environ.get(VARIABLE)
    if variable:
        return _named_folder(Path(variable), f"the folder that {VARIABLE} names")
    return next((folder for folder in _usual_folders(project) if has_weights(folder)), None)


def searched(project: Path) -> tuple[str, ...]:
    """The places where `find_weights` looks if no folder is given, in order, for messages."""
    variable = os.environ.get(VARIABLE)
    return (f"{VARIABLE} ({variable or 'not set'})", *map(str, _usual_folders(project)))


def load_weights(folder: Path, which: Which) -> WeightFile:
    """Read one of the two files, a converted one if it is there.

    Refused is one that is missing, damaged, of another architecture, or holds values that are not finite numbers.
    """
    path = _path(folder, which)
    if path is None:
        raise InputError(
            f"{folder} holds no {which}{PUBLISHED_SUFFIX} or {CONVERTED_SUFFIX}; it holds {_listed(folder)}", PUT_THERE
        )
    return read_weights(path, which)


def read_weights(path: Path, which: Which) -> WeightFile:
    """Read a file as one of the two; refuses what `load_weights` does."""
    network = NETWORKS[which]
    remedy = (
        f"Copy or download {which}{PUBLISHED_SUFFIX} anew: the published file has {network.published_bytes:,} bytes "
        f"and the sha256 {network.published_sha256}."
    )
    named, metadata = _named_values(path, remedy)
    tensors, sha256 = _fitting(path, which, named, remedy), file_sha256(path)
    source = metadata.get(SOURCE_KEY, "") if path.suffix == CONVERTED_SUFFIX else sha256
    return WeightFile(path, sha256, source == network.published_sha256, tensors, which, source)


def _named_values(path: Path, remedy: str) -> tuple[Mapping[str, object], dict[str, str]]:
    """What a file holds by name, and its metadata, which only a converted one has."""
    return read_tensors(path, remedy) if path.suffix == CONVERTED_SUFFIX else (read_teacher(path, remedy), {})


def notice(file: WeightFile) -> str | None:
    """A line for the user where the weights are not the published ones."""
    if file.published:
        return None
    published = NETWORKS[file.which].published_sha256[:12]
    if file.path.suffix == CONVERTED_SUFFIX:
        source = f"made from one of sha256 {file.source_sha256[:12]}" if file.source_sha256 else "it names no source"
        return f"{file.path.name}: not of the published file ({source}, published {published}); used all the same"
    return (
        f"{file.path.name}: not the published file (sha256 {file.sha256[:12]}, published {published}); "
        "used all the same"
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A sha256 over names, shapes and values of contiguous float32 tensors on the CPU, whatever file they are of."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].numpy().astype("<f4", copy=False)
        total.update(f"{name} {tuple(values.shape)}\n".encode())
        total.update(values.reshape(-1).data)
    return total.hexdigest()


def _path(folder: Path, which: Which) -> Path | None:
    for suffix in (CONVERTED_SUFFIX, PUBLISHED_SUFFIX):
        path = folder / f"{which}{suffix}"
        try:
            if path.is_file():
                return path
        except OSError:  # a folder that may not be looked into holds nothing for us
            continue
    return None


def _missing(folder: Path) -> list[str]:
    return [f"{which}{PUBLISHED_SUFFIX}" for which in WEIGHT_FILES if _path(folder, which) is None]


def _usual_folders(project: Path) -> tuple[Path, Path]:
    # Resolved, as the parent of "." or of a link is not the text before its last slash.
    return project / FOLDER, project.resolve().parent / FOLDER


def _named_folder(folder: Path, what: str) -> Path:
    folder = folder.expanduser()
    missing = _missing(folder)
    if missing:
        raise InputError(
            f"{what}, {folder}, does not hold {' and '.join(missing)} (nor {CONVERTED_SUFFIX}); "
            f"it holds {_listed(folder)}",
            PUT_THERE,
        )
    return folder


def _listed(folder: Path) -> str:
    """What a folder holds, for a message."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"nothing that can be read ({error.strerror or error})"
    return _some(names, 8) or "nothing"


def _some(names: Iterable[str], most: int = _NAMED) -> str:
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _fitting(path: Path, which: Which, named: Mapping[str, object], remedy: str) -> dict[str, Tensor]:
    """The tensors of a network, copied; refuses a state-dict that is not exactly that network's."""
    network = NETWORKS[which]
    shapes = network.shapes
    if not shapes.keys() & named.keys():
        raise InputError(
            f"{path} is no checkpoint of {network.title}: instead of its weights, under 'teacher' or alone, it holds "
            f"{_some(map(repr, named)) or 'nothing'}",
            remedy,
        )
    plain = {name: value for name, value in named.items() if is_plain_tensor(value)}
    if other := [f"{name} ({type(named[name]).__name__})" for name in named if name not in plain]:
        raise InputError(f"{path} holds what is no dense tensor among the weights: {_some(other)}", remedy)
    differences = _differences(shapes, plain)
    if differences:
        fits = [n.title for n in NETWORKS.values() if not _differences(n.shapes, plain)]
        swapped = f" It fits {fits[0]}: are the two files swapped?" if fits else ""
        raise InputError(f"{path} is not {network.title}: {'; '.join(differences)}.{swapped}", remedy)
    return {name: own(path, name, plain[name], remedy) for name in shapes}


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> list[str]:
    """What sets a state-dict apart from a network, a phrase per kind, the first few of each with their shapes."""
    missing = [f"{name} of {by(shape)}" for name, shape in expected.items() if name not in found]
    unexpected = [f"{name} of {by(tensor.shape)}" for name, tensor in found.items() if name not in expected]
    other = [
        f"{name} of {by(found[name].shape)} instead of {by(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names]

"""Encoders by name: those of this package, timm's, and those that other packages offer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from iscale.encoders.base import Encoder, EncoderSpec, PatchEncoder, RegionEncoder, StoredFeatures
from iscale.engine.machine import here
from iscale.errors import InputError

GROUP = "iscale.encoders"
"""Group of entry points under which other packages offer encoders."""
OWN = ("texture", "hipt", "timm:NAME", "precomputed:PATH")
KINDS: tuple[type[Any], ...] = (RegionEncoder, PatchEncoder, StoredFeatures)


def check_precision(spec: EncoderSpec) -> None:
    """Refuse bfloat16 where the device would only emulate it."""
    if spec.precision == "float32" or has_bfloat16(spec.device):
        return
    raise InputError(
        f"--precision bfloat16: the {'processor' if spec.device == 'cpu' else spec.device} has no bfloat16 arithmetic "
        "(AVX512-BF16, AMX or SVE on a CPU, compute capability 8.0 on a GPU); emulated, it would be slower.",
        "Use --precision float32.",
    )


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(present for name, present in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


@lru_cache(maxsize=1)
def get_encoder(spec: EncoderSpec) -> Encoder:
    """The encoder of a specification, made once per process.

    Where the device is ``auto``, it is the one of this process; the precision is checked where it will be used.
    Texture looks for its device when it encodes, and stored features need none: plans are made of both without torch.

    Raises
    ------
    InputError
        If no encoder has that name, it cannot be made from what it is given, or the device lacks the precision.
    """
    family, _, argument = spec.name.partition(":")
    if spec.name == "texture":
        from iscale.encoders.texture import TextureEncoder

        return TextureEncoder(spec.device)
    if family == "precomputed" and argument:
        from iscale.encoders.precomputed import PrecomputedFeatures

        return PrecomputedFeatures(spec)
    elsewhere = spec.device == "auto"
    spec = replace(spec, device=here(spec.device))
    if not (elsewhere and spec.device == "cpu"):
        check_precision(spec)
    if spec.name == "hipt":
        from iscale.encoders.hipt import HiptEncoder

        return HiptEncoder(spec)
    if family == "timm" and argument:
        from iscale.encoders.timm_vit import TimmEncoder

        return TimmEncoder(spec)
    return _offered(spec)


def encoder_names() -> tuple[str, ...]:
    """What ``--encoder`` may be: this package's encoders, then those that installed packages offer."""
    return (*OWN, *sorted(entry_points(group=GROUP).names))


def _offered(spec: EncoderSpec) -> Encoder:
    """An encoder of another package."""
    found = tuple(entry_points(group=GROUP, name=spec.name))
    if not found:
        raise InputError(
            f"--encoder {spec.name}: no encoder has this name", f"There are: {', '.join(encoder_names())}."
        )
    packages = ", ".join(sorted({_package(point) for point in found}))
    if len({point.value for point in found}) > 1:
        raise InputError(f"--encoder {spec.name}: offered by several packages: {packages}", "Uninstall all but one.")
    remedy = f"Ask the maker of {packages}, or choose another encoder: {', '.join(OWN)}."
    try:
        encoder: object = found[0].load()(spec)
    except InputError:
        raise
    except Exception as error:  # whatever another package's code raises
        raise InputError(
            f"--encoder {spec.name}: {found[0].value} of {packages} failed ({type(error).__name__}: {error})", remedy
        ) from error
    if isinstance(encoder, RegionEncoder | PatchEncoder | StoredFeatures):
        return encoder
    raise InputError(
        f"--encoder {spec.name}: what {found[0].value} of {packages} makes, {type(encoder).__name__}, is no encoder: "
        f"{_what_lacks(encoder)}",
        remedy,
    )


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


def _what_lacks(encoder: object) -> str:
    """For each kind of encoder the members that an object lacks, the nearest kind first."""
    lacks = {
        kind.__name__: [member for member in sorted(_members(kind)) if not hasattr(encoder, member)] for kind in KINDS
    }
    nearest = sorted(lacks.items(), key=lambda item: len(item[1]))
    return "; ".join(f"for a {kind} it lacks {', '.join(members)}" for kind, members in nearest)


def _members(kind: type[Any]) -> set[str]:
    """Names of attributes and methods of a protocol."""
    return {
        name
        for base in kind.__mro__
        for name in (*vars(base), *vars(base).get("__annotations__", {}))
        if not name.startswith("_")
    }

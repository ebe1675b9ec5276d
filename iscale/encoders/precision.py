"""Which devices compute in bfloat16."""

from __future__ import annotations

from iscale.encoders.spec import EncoderSpec
from iscale.errors import InputError


def check_precision(spec: EncoderSpec) -> None:
    """Refuse bfloat16 where the device would only emulate it.

    Raises
    ------
    InputError
        If the device has no bfloat16 arithmetic.
    """
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

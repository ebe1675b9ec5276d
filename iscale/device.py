"""Where tensors are computed: a device that the user names, or the one that the process at work has."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version

from iscale.errors import InputError

CARD_EXPECTED = "ISCALE_CARD_EXPECTED"
"""Set in the environment of workers that were started to use a card: computing without it is an error there."""


def here(device: str) -> str:
    """The torch device of this process: ``auto`` is its card, where it has one.

    Raises
    ------
    InputError
        If a card was asked for, by name or by starting this worker to use one, and torch sees none.
    """
    wanted = "cuda" if device == "auto" and os.environ.get(CARD_EXPECTED) else device
    if wanted == "auto":
        return "cuda" if has_card() else "cpu"
    if wanted.startswith("cuda") and not has_card():
        raise InputError(
            f"--device {wanted}: torch sees no CUDA device on {socket.gethostname()}.",
            "Use --device cpu, or auto; or start workers where there are cards, with a torch that is built for CUDA.",
        )
    return wanted


def has_card() -> bool:
    """Whether torch sees a card here; a torch that was built for processors alone is not imported for that."""
    if version("torch").endswith("+cpu"):
        return False
    import torch

    return torch.cuda.is_available()

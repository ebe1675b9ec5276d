"""Where tensors are computed: a device that the user names, or the one that the process at work has."""

from __future__ import annotations

import os
import socket

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
    import torch

    wanted = "cuda" if device == "auto" and os.environ.get(CARD_EXPECTED) else device
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"--device {wanted}: torch sees no CUDA device on {socket.gethostname()}.",
            "Use --device cpu, or auto; or start workers where there are cards, with a torch that is built for CUDA.",
        )
    return wanted

from __future__ import annotations

import pytest
import torch

from iscale.engine import machine
from iscale.engine.machine import all_cores


def test_threads_are_restored_even_after_a_failure() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with all_cores() as cores:
            assert torch.get_num_threads() == cores == machine.available_cores()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.get_num_threads() == before

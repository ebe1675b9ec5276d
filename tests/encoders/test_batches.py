"""Batches come back in order, whatever computes them; too little memory on a card halves them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from iscale.encoders.batches import BatchPlan, _within_memory, ahead, encode_batches, plan_batches
from iscale.errors import MemoryBudgetError


class Mean:
    """An encoder whose vector is the patch's mean, and which takes longer for earlier patches."""

    device = "cpu"
    largest = 10**9

    def patch_bytes(self) -> int:
        return 100

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if len(images) > self.largest:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        assert torch.get_num_threads() == 1
        means = images.float().mean(dim=(1, 2, 3))
        time.sleep(float(0.02 / (1 + means[0])))
        return means.view(-1, 1, 1, 1), means.view(-1, 1)


def batches(n: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for i in range(n):
        yield i, np.full((2, 3, 4, 4), i, np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_kept_and_torch_gets_its_threads_back(threads: int) -> None:
    before = torch.get_num_threads()
    found = list(encode_batches(Mean(), batches(20), BatchPlan(2, threads)))
    assert [name for name, _ in found] == list(range(20))
    assert all((vectors == name).all() for name, (_, vectors) in found if vectors is not None)
    assert torch.get_num_threads() == before


def test_few_batches_are_in_memory_at_a_time() -> None:
    made = 0

    def counted() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        nonlocal made
        for item in batches(50):
            made += 1
            yield item

    for taken, _ in enumerate(encode_batches(Mean(), counted(), BatchPlan(2, 2)), start=1):
        assert made <= taken + 3


@pytest.mark.parametrize(
    ("budget", "expected"), [(10**9, (4, 2)), (400, (2, 2)), (200, (1, 2)), (100, (1, 1)), (-5, (1, 1))]
)
def test_batches_fit_the_budget(budget: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    plan = plan_batches(Mean(), budget)
    assert (plan.size, plan.at_once) == expected


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_card_without_memory_gets_smaller_batches_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    encoder = Mean()
    encoder.largest = 3
    limit = [16]
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    with caplog.at_level(logging.WARNING, "iscale"):
        _, vectors = _within_memory(encoder, images, limit)
    assert vectors is not None
    assert vectors[:, 0].tolist() == list(range(10))
    assert limit == [2]
    assert "out of memory with batches of 10 patches, going on with 5" in caplog.text


@pytest.mark.usefixtures("one_thread")
def test_a_card_without_memory_for_one_patch_is_an_error() -> None:
    encoder = Mean()
    encoder.largest = 0
    with pytest.raises(MemoryBudgetError, match=r"single patch.*20 GiB"):
        _within_memory(encoder, torch.zeros(4, 3, 4, 4, dtype=torch.uint8), [4])


def test_ahead_gives_the_same_items_and_passes_errors_on() -> None:
    assert list(ahead(range(5))) == [0, 1, 2, 3, 4]

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("read")

    with pytest.raises(ValueError, match="read"):
        list(ahead(failing()))

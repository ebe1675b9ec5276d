"""Batches of patches through a `PatchEncoder`, in order, at the speed of the device.

On a CPU every core takes batches of its own: a few patches at a time stay in its caches, and cores need not wait for
each other inside every product, as they do when one batch is split between them. On a GPU batches are large, and the
next one is on its way while one computes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.encoders.base import ContextModel, PatchEncoder
from iscale.errors import MemoryBudgetError

T = TypeVar("T")

CPU_BATCH = 4
"""Patches per core at a time; more fall out of the caches (``make bench-features`` measures)."""

GPU_BATCH = 256

Encoded = tuple[Tensor, Tensor | None]
log = logging.getLogger("iscale")


@dataclass(frozen=True)
class BatchPlan:
    """Patches of a batch, and batches that compute at the same time."""

    size: int
    at_once: int


def plan_batches(encoder: PatchEncoder, budget_bytes: int) -> BatchPlan:
    """Batches that fit a budget: on a CPU one of up to `CPU_BATCH` per thread of torch, on a GPU one large one.

    The budget counts a worker's memory; a GPU's own bounds its batch.
    """
    if encoder.device != "cpu":
        free, _ = torch.cuda.mem_get_info(encoder.device)
        return BatchPlan(max(1, min(GPU_BATCH, free // 2 // encoder.patch_bytes())), 1)
    affordable = max(1, budget_bytes // encoder.patch_bytes())
    threads = min(torch.get_num_threads(), affordable)
    return BatchPlan(min(CPU_BATCH, affordable // threads), threads)


def encode_batches(
    encoder: PatchEncoder, batches: Iterable[tuple[T, NDArray[np.uint8]]], plan: BatchPlan
) -> Iterator[tuple[T, Encoded]]:
    """Tokens and vectors of batches, in their order.

    A batch is (patch, c=3, y, x) uint8, and comes with whatever the caller wants to know it by.
    """
    if encoder.device == "cpu":
        yield from _on_cores(encoder, batches, plan.at_once)
    else:
        yield from _on_gpu(encoder, batches)


def _on_cores(
    encoder: PatchEncoder, batches: Iterable[tuple[T, NDArray[np.uint8]]], threads: int
) -> Iterator[tuple[T, Encoded]]:
    waiting: deque[tuple[T, Future[Encoded]]] = deque()
    with _one_thread_each(threads) as pool:
        for name, images in batches:
            waiting.append((name, pool.submit(encoder.encode, torch.from_numpy(images))))
            if len(waiting) > threads:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


@contextmanager
def _one_thread_each(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose members compute on one core each; afterwards torch has its threads back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _on_gpu(encoder: PatchEncoder, batches: Iterable[tuple[T, NDArray[np.uint8]]]) -> Iterator[tuple[T, Encoded]]:
    limit = [GPU_BATCH]

    def pinned() -> Iterator[tuple[T, Tensor]]:
        for name, images in batches:
            yield name, torch.from_numpy(images).pin_memory()

    for name, images in ahead(pinned()):
        yield name, _within_memory(encoder, images.to(encoder.device, non_blocking=True), limit)


def _within_memory(encoder: PatchEncoder, images: Tensor, limit: list[int]) -> Encoded:
    """Encode a batch, ``limit[0]`` patches at a time: halved, down to one, whenever device memory does not do."""
    while True:
        try:
            encoded = [encoder.encode(images[i : i + limit[0]]) for i in range(0, len(images), limit[0])]
        except torch.OutOfMemoryError as error:
            size = min(limit[0], len(images))
            if size == 1:
                raise MemoryBudgetError(
                    f"{encoder.device} has no memory left for a single patch ({error}).",
                    "Free the card of other programs, or use --device cpu.",
                ) from None
            limit[0] = size // 2
            log.warning(
                "%s: out of memory with batches of %d patches, going on with %d", encoder.device, size, limit[0]
            )
            torch.cuda.empty_cache()
            continue
        tokens = torch.cat([tokens for tokens, _ in encoded])
        vectors = [vector for _, vector in encoded if vector is not None]
        return tokens, torch.cat(vectors) if vectors else None


def run_context(model: ContextModel, grids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Context (grid, y, x, feature) of grids of vectors (grid, y, x, vector), by way of the model's device."""
    vectors = torch.from_numpy(np.ascontiguousarray(grids)).to(model.device)
    return np.asarray(model(vectors).cpu().numpy())


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items, the next one being made while the caller works on one."""
    iterator = iter(items)

    def following() -> list[T]:
        return list(islice(iterator, 1))

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(following)
        while found := future.result():
            future = pool.submit(following)
            yield found[0]

"""Rows of features that are too many to hold: in a file, grouped by spot, read by their number as tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.store.scratch import FileRows

ROWS_AT_ONCE = 4096
"""Rows that are copied at a time."""


@dataclass(frozen=True)
class RowFile:
    """What the model indexes as if it were the (row, feature) tensor, row by row in the order of the spots.

    Attributes
    ----------
    file
        Where the rows of each spot lie together.
    starts
        (spot + 1,): rows of spot ``s`` are ``starts[s]:starts[s + 1]``.
    first
        (spot,): the place in the file of a spot's first row.
    device
        Where rows are given.
    """

    file: FileRows
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self), self.file.width

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return 4 * len(self) * self.file.width

    def __getitem__(self, rows: NDArray[np.int64] | Tensor) -> Tensor:
        """(row, feature) float32 of these rows, on the device."""
        at = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        spot = np.searchsorted(self.starts, at, side="right") - 1
        place = at + (self.first - self.starts[:-1])[spot]
        return torch.from_numpy(self.file.take(place)).to(self.device)

    def to(self, device: torch.device) -> Tensor | RowFile:
        """The rows on a device: whole where that has room for them twice, else read as they are asked for."""
        moved = replace(self, device=device)
        if device.type != "cuda" or 2 * self.nbytes > torch.cuda.mem_get_info(device)[0]:
            return moved
        whole = torch.empty(self.shape, device=device)
        for a in range(0, len(self), ROWS_AT_ONCE):
            rows = np.arange(a, min(a + ROWS_AT_ONCE, len(self)))
            whole[a : a + len(rows)] = moved[rows]
        return whole

"""Rows of features that are too many to hold: in a file, grouped by spot, read by their number.

Nothing of the file is mapped, since mapped pages count as memory of the process: what is asked for is copied, and gone
when it is let go. The file has no name, so it is gone with the process, however that ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscale.store.scratch import nameless, read_at, runs, write_at

ROWS_AT_ONCE = 4096
"""Rows that are copied at a time."""


class ScratchFile:
    """A nameless file of (row, feature) float32 rows.

    Parameters
    ----------
    folder
        Where it lies; made if need be.
    n_features
        Length of a row.
    """

    def __init__(self, folder: Path, n_features: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.n_features = n_features
        self._row = 4 * n_features
        self._file = nameless(folder, self)

    def write(self, first: int, rows: NDArray[np.float32]) -> None:
        """Write rows from a place on; what is skipped takes no room on file systems that know holes."""
        write_at(self._file, first * self._row, rows.astype(np.float32, copy=False))

    def read(self, first: int, rows: NDArray[np.float32]) -> None:
        """Fill rows from a place on.

        Raises
        ------
        OSError
            If the file ends before.
        """
        read_at(self._file, first * self._row, rows)


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

    file: ScratchFile
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return len(self), self.file.n_features

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return 4 * len(self) * self.file.n_features

    def __getitem__(self, rows: NDArray[np.int64] | Tensor) -> Tensor:
        """(row, feature) float32 of these rows, on the device."""
        at = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        spot = np.searchsorted(self.starts, at, side="right") - 1
        place = at + (self.first - self.starts[:-1])[spot]
        values = np.empty((len(at), self.file.n_features), np.float32)
        for a, b in runs(place):
            self.file.read(int(place[a]), values[a:b])
        return torch.from_numpy(values).to(self.device)

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

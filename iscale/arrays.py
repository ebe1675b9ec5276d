"""Arrays of NumPy or of CuPy through the same code, chosen by device.

Functions written against the array API (``array_namespace`` of what they are given) run on either. `apply_on` takes
NumPy arrays to the device, calls such a function there, and brings the result back. Not tried on a GPU.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array of NumPy, of CuPy, or of another library that follows the array API."""


def apply_on(device: str, function: Callable[..., Array], values: NDArray[Any], *rest: Any, **named: Any) -> Any:
    """Call a function of an array, where its values are to be computed.

    Parameters
    ----------
    device
        ``cpu``: NumPy. ``cuda`` or ``cuda:1``: CuPy on that GPU; without CuPy, NumPy, which is said once.
    function
        Takes an array of either kind first, and gives one of the same kind.
    values
        That array, on the host.
    *rest, **named
        What else the function takes.

    Returns
    -------
    ndarray
        The result, on the host.

    Examples
    --------
    >>> apply_on("cpu", np.add, np.array([1, 2]), 1).tolist()
    [2, 3]
    """
    kind, _, number = device.partition(":")
    cupy = _cupy() if kind == "cuda" else None
    if cupy is None:
        return np.asarray(function(values, *rest, **named))
    with cupy.cuda.Device(int(number or 0)):
        return cupy.asnumpy(function(cupy.asarray(values), *rest, **named))


@lru_cache(maxsize=1)
def _cupy() -> Any:
    """CuPy, or None where it cannot be imported."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        logging.getLogger("iscale").warning(
            "Image pyramids and box smoothing are computed on the CPU: CuPy cannot be imported (%s). "
            "Networks run on the GPU all the same.",
            error,
        )
        return None

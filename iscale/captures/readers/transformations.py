"""Transformations of SpatialData's elements, as they are stored: to one matrix, into the coordinate system global."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError

SYSTEM = "global"


def to_global(transformations: Sequence[Mapping[str, Any]], source: str) -> NDArray[np.float64]:
    """The matrix (3, 3) that takes an element's x, y, 1 to the coordinate system ``global``; else an InputError."""
    for transformation in transformations:
        if transformation.get("output", {}).get("name") == SYSTEM:
            matrix = _matrix(transformation, source)
            if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
                raise InputError(f"{source}: the transformation to {SYSTEM!r} is singular.", "Write it again.")
            return matrix
    names = ", ".join(str(t.get("output", {}).get("name")) for t in transformations) or "none"
    raise InputError(
        f"{source} has no transformation to the coordinate system {SYSTEM!r} (there is: {names}).",
        f"Set one (spatialdata.transformations.set_transformation(..., to_coordinate_system={SYSTEM!r})).",
    )


def _matrix(transformation: Mapping[str, Any], source: str) -> NDArray[np.float64]:
    kind = transformation.get("type")
    if kind == "sequence":
        matrix = np.eye(3)
        for part in transformation["transformations"]:
            matrix = _matrix(part, source) @ matrix
        return matrix
    axes = [[axis["name"] for axis in transformation[end]["axes"]] for end in ("input", "output")]
    matrix = np.eye(3)
    if kind == "identity":
        return matrix
    if kind in ("scale", "translation"):
        for name, value in zip(axes[0], transformation[kind], strict=True):
            if name in "xy":
                at = "xy".index(name)
                matrix[at, at if kind == "scale" else 2] = value
        return matrix
    if kind == "affine":
        stored = np.asarray(transformation["affine"], dtype=np.float64)
        columns = [*axes[0], "1"]
        for i, out in enumerate("xy"):
            for j, into in enumerate(("x", "y", "1")):
                matrix[i, j] = stored[axes[1].index(out), columns.index(into)]
        return matrix
    raise InputError(
        f"{source}: a transformation of the type {kind!r} is not read.",
        "Identity, scale, translation, affine and sequences of them are.",
    )

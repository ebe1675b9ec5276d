"""The transform of a capture: from its own full-resolution pixels to the mother image's, as a value and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iscale.errors import InputError
from iscale.words import by

Kind = Literal["similarity", "affine"]

TRANSFORM_FILE = "transform.json"
FORMAT = "iscale transform 1"
REMEDY = (
    'Write it as {"matrix": [[a, b, c], [d, e, f], [0, 0, 1]]}: x, y, 1 in full-resolution pixels of the '
    "capture's own image to full-resolution pixels of the mother image."
)

LARGEST_SHEAR = 4.0
"""An affine that stretches one direction by more than this against another is no alignment of two sections."""


@dataclass(frozen=True)
class Transform:
    """Where the pixels of a capture's own image lie on the mother image.

    Attributes
    ----------
    matrix
        (3, 3) float64: takes (x, y, 1) in full-resolution pixels of the capture's image to full-resolution pixels of
        the mother image.
    how
        Where it comes from: ``given``, ``tables``, ``landmarks``, ``automatic``.
    measures
        What is known of how good it is, JSON-able: ``residual_um``, ``confidence`` ...
    """

    matrix: NDArray[np.float64]
    how: str = "given"
    measures: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions (point, 2) of the capture's pixels, in pixels of the mother image."""
        return np.asarray(xy @ self.matrix[:2, :2].T + self.matrix[:2, 2], dtype=np.float64)

    @property
    def scale(self) -> float:
        """Mother pixels per capture pixel: the square root of the area's factor.

        >>> Transform(np.diag([2.0, -2.0, 1.0])).scale
        2.0
        """
        return math.sqrt(abs(float(np.linalg.det(self.matrix[:2, :2]))))

    @property
    def mirrored(self) -> bool:
        """Whether the capture is seen from its back.

        >>> Transform(np.diag([2.0, -2.0, 1.0])).mirrored
        True
        """
        return bool(np.linalg.det(self.matrix[:2, :2]) < 0)

    @property
    def rotation_deg(self) -> float:
        """Angle by which the capture's x axis is turned on the mother image, clockwise on the screen, -180 to 180."""
        return math.degrees(math.atan2(self.matrix[1, 0], self.matrix[0, 0]))

    @property
    def stretch(self) -> float:
        """The largest over the smallest scale of any direction; 1 for a similarity."""
        values = np.linalg.svd(self.matrix[:2, :2], compute_uv=False)
        return float(values[0] / values[1])

    def __str__(self) -> str:
        seen = "mirrored, " if self.mirrored else ""
        return f"{seen}turned by {self.rotation_deg:.1f} degrees, scaled by {self.scale:.4g} ({self.how})"


def checked_matrix(values: Any, source: str, remedy: str = REMEDY) -> NDArray[np.float64]:
    """A matrix as an array, refused where it cannot place a capture.

    Parameters
    ----------
    values
        3 x 3, or 2 x 3, nested sequences of numbers.
    source
        Where it comes from, for the message.
    remedy
        How it must be written, where it is not in ``transform.json``.

    Raises
    ------
    InputError
        Not such numbers, projective, singular, or stretched beyond what sections are.
    """
    try:
        matrix = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{source}: the matrix is not made of numbers.", remedy) from None
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0.0, 0.0, 1.0]])
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        what = f"has the shape {by(matrix.shape)}" if matrix.shape != (3, 3) else "holds numbers that are not finite"
        raise InputError(f"{source}: the matrix {what}; 3 x 3 finite numbers are needed.", remedy)
    if not np.allclose(matrix[2], [0, 0, 1], atol=1e-9):
        raise InputError(
            f"{source}: the last row of the matrix is {matrix[2].tolist()}; it must be 0, 0, 1.",
            "Only similarity and affine transforms place a capture; a matrix stored by columns must be transposed.",
        )
    large, small = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if small < 1e-9 * max(large, 1e-300):
        raise InputError(f"{source}: the matrix is singular: it maps all spots onto one line.", remedy)
    if large / small > LARGEST_SHEAR:
        raise InputError(
            f"{source}: the matrix stretches one direction {large / small:.2g} times as much as another.",
            f"No two sections differ by more than {LARGEST_SHEAR:g}: check its numbers.",
        )
    return matrix


def read_transform(path: Path) -> Transform:
    """Read ``transform.json``.

    Raises
    ------
    InputError
        The file is no JSON, or holds no matrix that can place a capture.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON, or a number with thousands of digits
        raise InputError(f"{path} cannot be read as JSON: {error}.", REMEDY) from None
    if not isinstance(document, dict):
        document = {"matrix": document}
    if "matrix" not in document:
        raise InputError(f"{path} has no key 'matrix' (it has: {', '.join(list(document)[:6])}).", REMEDY)
    measures = document.get("measures", {})
    return Transform(
        checked_matrix(document["matrix"], str(path)),
        str(document.get("how", "given")),
        measures if isinstance(measures, dict) else {},
    )


def write_transform(path: Path, transform: Transform) -> None:
    """Write ``transform.json``, for people to read and edit; it appears under its name when it is whole."""
    rows = ",\n    ".join(json.dumps([round(float(v), 10) for v in row]) for row in transform.matrix)
    document = {
        "format": FORMAT,
        "from": "x, y, 1 in full-resolution pixels of the capture's own image",
        "to": "full-resolution pixels of the mother image",
        "how": transform.how,
        "measures": dict(transform.measures),
    }
    text = json.dumps(document, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(f'{text[:-2]},\n "matrix": [\n    {rows}\n ]\n}}\n')
    part.replace(path)

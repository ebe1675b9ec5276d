"""Small components of a map of labels: they take the label of their neighbours.

A component is a set of superpixels of one label that hang together by their sides. One of fewer than 20 superpixels is
small, and takes the label with which it shares most of its border with large components; of several, the smallest. A
small component that borders on no large one looks at the small ones; one that borders on none keeps its label. All
look at the map as it was before, so there is one pass, and small components may remain where they met each other.

A small component that touches a tile lies within 18 superpixels of it. Its neighbours are one farther, and of a
component that goes on beyond, 20 superpixels are found within 19 more: 38 superpixels around a tile decide it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

SMALL = 20
"""Superpixels of the smallest component that stays (method, section 5)."""
HALO = 2 * (SMALL - 1)
"""Superpixels around a tile that decide all that happens in it."""

_components: Any = measure.label
"""Numbers the components of one value in an array."""


def join_small(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give small components of labels (y, x) the label of their neighbours; 0 is none, and stays so.

    >>> labels = np.ones((5, 6), np.uint8)
    >>> labels[2, 3:5] = 2
    >>> bool((join_small(labels) == 1).all())
    True
    """
    component = np.asarray(_components(labels, background=0, connectivity=1))
    size = np.bincount(component.ravel())
    small = size < SMALL
    small[0] = False
    if not small[component].any():
        return labels.copy()
    own, neighbour, is_large = _borders(component, labels, small)
    replacement = np.zeros(len(size), dtype=np.uint8)
    for considered in (~is_large, is_large):  # the second wins
        _most_common(own[considered], neighbour[considered], replacement)
    return np.where(small[component] & (replacement[component] > 0), replacement[component], labels)


def _borders(
    component: NDArray[np.integer], labels: NDArray[np.uint8], small: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
    """One row per side that a superpixel of a small component shares with one of another component.

    The small component, the label on the other side, and whether the component there is large.
    """
    parts = []
    for here, there in _sides():
        a, b = component[here], component[there]
        for mine, other, label in ((a, b, labels[there]), (b, a, labels[here])):
            at = small[mine] & (other != mine) & (other > 0)
            parts.append((mine[at].astype(np.int64), label[at], ~small[other[at]]))
    own, neighbour, is_large = (np.concatenate(column) for column in zip(*parts, strict=True))
    return own, neighbour, is_large


def _sides() -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Indices of superpixels that have one below, or to the right, and of those."""
    every, first, last = slice(None), slice(None, -1), slice(1, None)
    return [((first, every), (last, every)), ((every, first), (every, last))]


def _most_common(own: NDArray[np.int64], label: NDArray[np.uint8], replacement: NDArray[np.uint8]) -> None:
    """Set the most common label of every component that has any; of several, the smallest."""
    pairs, counts = np.unique(own << 8 | label, return_counts=True)
    components, labels = pairs >> 8, pairs & 255
    # The last that is written stays: the largest count, of these the smallest label.
    order = np.lexsort((-labels, counts))
    replacement[components[order]] = labels[order]

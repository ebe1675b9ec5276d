"""Polygons of GeoJSON, as QuPath exports them, feature by feature: a million cells are a gigabyte of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iscale.export.areas.areas import AREAS_AT_ONCE, Block, Rings, nothing_there
from iscale.slide.geojson import features
from iscale.slide.user_mask import POLYGONS, geometries_of, rings_of
from iscale.words import plural

IDS = ("id", "properties.id", "properties.cell_id", "properties.cell", "properties.label", "properties.name")
"""Where programs write what a feature is called: of several the one that tells most features apart, else the first."""


def read_geojson(path: Path, notices: list[str]) -> Iterator[Block]:
    """Areas of a FeatureCollection, a list of features, a feature or a geometry; one row per feature.

    Points and lines are left out, which a notice tells once all is read, as where the ids were found. Names and
    classifications are those of QuPath.
    """
    ids = _Ids()
    held, empty, left_out = _Held(ids), True, 0
    for feature in features(path):
        geometries = geometries_of(feature)
        if not geometries:
            left_out += 1
            continue
        held.add(feature, [rings for geometry in geometries for rings in rings_of(path, geometry, least=1)])
        if len(held) == AREAS_AT_ONCE:
            yield held.block()
            held, empty = _Held(ids), False
    if len(held):
        yield held.block()
    elif empty:
        there = f" ({plural(left_out, 'object')} of other kinds: points, lines)" if left_out else ""
        raise nothing_there(f"{path}{there}", POLYGONS)
    if ids.member:
        notices.append(f"Ids are the features' {ids.member}.")
    if left_out:
        notices.append(f"{plural(left_out, 'object')} of other kinds left out: points, lines.")


class _Ids:
    """Which ``member`` of the features their ids are: told by the first block, and the same for all; empty for none."""

    def __init__(self) -> None:
        self.member: str | None = None

    def of(self, found: list[dict[str, str]]) -> list[str]:
        """Ids of features, of which is given what each of `IDS` has; empty where one has none."""
        if self.member is None:
            distinct = {member: len({names[member] for names in found if member in names}) for member in IDS}
            best = max(IDS, key=lambda member: distinct[member])
            self.member = best if distinct[best] else ""
        return [names.get(self.member, "") for names in found]


def _ids_in(feature: dict[str, Any]) -> dict[str, str]:
    """What a feature could be called, by the members of `IDS`, whatever their case."""
    properties = feature.get("properties")
    there = {"id": feature.get("id")}
    if isinstance(properties, dict):
        there |= {f"properties.{str(key).lower()}": value for key, value in reversed(properties.items())}
    return {member: text for member in IDS if (text := _id(there.get(member))) and not _class_of(text)}


def _id(value: Any) -> str:
    """Text of an id, which may be a number: 7 and 7.0 are one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _class_of(text: str) -> str:
    """Kind of object that old versions of QuPath write in the place of an id, such as ``PathCellObject``."""
    within = text.removeprefix("Path").removesuffix("Object")
    return within.lower() if len(within) == len(text) - len("PathObject") else ""


def span_of(path: Path) -> tuple[tuple[float, float], tuple[float, float]]:
    """The lowest and the highest x, y of the areas' points, the file read once through; infinite where it has none."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for feature in features(path):
        for geometry in geometries_of(feature):
            for rings in rings_of(path, geometry, least=1):
                low, high = np.minimum(low, rings[0].min(0)), np.maximum(high, rings[0].max(0))
    return (float(low[0]), float(low[1])), (float(high[0]), float(high[1]))


class _Held:
    """Areas until a block is full.

    Points are arrays from the start: lists of numbers would be looked at again and again by the garbage collector.
    """

    def __init__(self, ids: _Ids) -> None:
        self._ids = ids
        self._named: list[dict[str, str]] = []
        self._about: list[tuple[str, str, str]] = []
        self._rings: list[NDArray[np.float64]] = []
        self._polygons, self._areas = [0], [0]

    def __len__(self) -> int:
        """Number of areas."""
        return len(self._named)

    def add(self, feature: dict[str, Any], polygons: list[list[NDArray[np.float64]]]) -> None:
        """Add a feature's polygons, each a list of rings (point, 2)."""
        self._named.append(_ids_in(feature))
        self._about.append(_about(feature))
        for rings in polygons:
            self._rings += rings
            self._polygons.append(len(self._rings))
        self._areas.append(len(self._polygons) - 1)

    def block(self) -> Block:
        """What is held."""
        names, kinds, objects = zip(*self._about, strict=True)
        columns: dict[str, Any] = {
            "name": np.array(names, dtype=object),
            "classification": pd.Categorical(kinds),
            "object_type": pd.Categorical(objects),
        }
        rings = Rings(
            np.concatenate(self._rings) if self._rings else np.zeros((0, 2)),
            np.cumsum([0, *map(len, self._rings)]),
            np.array(self._polygons),
            np.array(self._areas),
        )
        return Block(self._ids.of(self._named), rings, columns)


def _about(feature: dict[str, Any]) -> tuple[str, str, str]:
    """Name, classification and kind of object, empty where there is none."""
    properties = feature.get("properties")
    old_type = _class_of(str(feature.get("id")))
    if not isinstance(properties, dict):
        return "", "", old_type
    kind = properties.get("classification")
    if isinstance(kind, dict):
        kind = kind.get("name") or ": ".join(map(str, kind.get("names") or ()))
    return str(properties.get("name") or ""), str(kind or ""), str(properties.get("objectType") or old_type)

"""Elements of an AnnData as versions before 0.8 wrote them, which do not say what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata.io import read_elem

OLD_CATEGORIES = "__categories"
INDEX_NAMES = ("_index", "index")


class DamagedError(ValueError):
    """A part of an AnnData that is not as any version writes it; its text says what, in words for users."""


def read_frame(root: Any, place: str) -> pd.DataFrame:
    """A table of an AnnData's root, such as ``obs``: as anndata reads it, or as an old version left it.

    Versions before 0.7 wrote one array of records, with the categories in ``uns``; 0.7 wrote a group whose categories
    are in ``__categories``. A DamagedError where it is neither.
    """
    node = root[place]
    if "encoding-type" in node.attrs:
        found = read_elem(node)
    elif hasattr(node, "keys"):
        found = _of_group(node)
    else:
        found = _of_records(root, node)
    if not isinstance(found, pd.DataFrame):
        raise DamagedError(f"{place} is no table")
    return found


def _of_group(node: Any) -> pd.DataFrame:
    stored = node.attrs.get("_index")
    names = [name for name in node if name != OLD_CATEGORIES]
    index = next((name for name in (stored, *INDEX_NAMES) if name in names), None)
    if index is None:
        raise DamagedError("a table has no index")
    order = [str(name) for name in node.attrs.get("column-order", ())]
    order += [name for name in names if name not in order and name != index]
    old = OLD_CATEGORIES in node
    columns = {}
    for name in order:
        if hasattr(node[name], "keys"):
            columns[name] = read_elem(node[name])
            continue
        values = _text(node[name][...])
        if old and name in node[OLD_CATEGORIES]:
            values = pd.Categorical.from_codes(values, _text(node[OLD_CATEGORIES][name][...]))
        columns[name] = values
    return pd.DataFrame(columns, index=pd.Index(_text(node[index][...]), dtype=object))


def _of_records(root: Any, node: Any) -> pd.DataFrame:
    records = node[...]
    fields = records.dtype.names
    if not fields:
        raise DamagedError("a table is an array without columns")
    index = next((name for name in INDEX_NAMES if name in fields), fields[0])
    columns = {}
    for name in fields:
        values = _text(records[name])
        key = f"uns/{name}_categories"
        if name != index and key in root and values.dtype.kind in "iu":
            values = pd.Categorical.from_codes(values, _text(root[key][...]))
        columns[name] = values
    return pd.DataFrame(columns, index=pd.Index(columns.pop(index), dtype=object))


def obsm_keys(root: Any) -> list[str]:
    """What ``obsm`` holds: members of a group, or columns of the array of records of old versions."""
    if "obsm" not in root:
        return []
    node = root["obsm"]
    return list(node) if hasattr(node, "keys") else list(node.dtype.names or ())


def read_obsm(root: Any, key: str) -> Any:
    """One of ``obsm``: an array, or a table."""
    node = root["obsm"]
    if not hasattr(node, "keys"):
        return node[key]
    if "encoding-type" in node[key].attrs:
        return read_elem(node[key])
    return _of_group(node[key]) if hasattr(node[key], "keys") else node[key][...]


def _text(values: Any) -> Any:
    """Bytes, which h5py gives for text, as text."""
    values = np.atleast_1d(np.asarray(values))
    if values.dtype.kind == "S" or (values.dtype.kind == "O" and any(isinstance(v, bytes) for v in values)):
        return np.array([v.decode(errors="replace") if isinstance(v, bytes) else v for v in values], dtype=object)
    return values


def written_by(root: Any) -> str:
    """What wrote an AnnData, as far as it tells, for messages."""
    version = root.attrs.get("encoding-version")
    if version is not None:
        return f"it states that it is {root.attrs.get('encoding-type', 'of')} format {version}"
    return "it states no format, as those that anndata wrote before version 0.8"

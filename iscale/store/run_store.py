"""The Zarr store of a run: opened with its version checked, arrays made as their layout says."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from iscale import __version__
from iscale.engine.step import There
from iscale.errors import StoreError, StoreUnreachableError
from iscale.geometry import Region
from iscale.store.layout import ArrayLayout
from iscale.store.lock import hold
from iscale.store.place import Folder, Objects, Place, is_url, store_url

OUTPUT_FOLDER = "iSCALE_output"
REPORT_FILE = "report.json"
EVALUATION = "evaluation"
"""Folder of tables of trust and truth, beside the store."""

STORE = "run.zarr"

STORE_VERSION = 1
"""Raised when a change makes older runs unreadable."""


@dataclass(frozen=True)
class RunStore:
    """Where a run lies: small and picklable, opened anew by every task.

    ``folder`` is the output folder, ``iSCALE_output``: the ledgers lie in it, and the store, ``run.zarr``, unless that
    lies in an object store, at ``url``.
    """

    folder: Path
    url: str = ""

    @property
    def place(self) -> Place:
        """Where the Zarr store lies; as text its path or URL."""
        return Objects(self.url) if self.url else Folder(self.folder / STORE)

    @property
    def root(self) -> Any:
        """The Zarr store, as zarr, xarray and anndata open it."""
        return self.place.zarr()

    @property
    def notes(self) -> Path:
        """Folder of what is kept about runs."""
        return self.folder / ".iscale"

    @property
    def ledgers(self) -> Path:
        """Folder of the ledgers: of this store, and of no other that had the same output folder."""
        own = sha256(self.url.encode()).hexdigest()[:12] if self.url else ""
        return self.notes / own

    @property
    def scratch(self) -> Path:
        """Folder of files that are gone when the run is over."""
        return self.notes / "scratch"

    def metadata(self, *paths: str) -> tuple[There, ...]:
        """Files that describe groups or arrays: where one is missing, what it describes is lost."""
        return tuple(self.place.file(f"{path}/zarr.json") for path in paths)

    def has(self, path: str = "") -> bool:
        """Whether a group or array is there; without a path, the store."""
        return self.place.file(f"{path}/zarr.json".lstrip("/")).exists()

    def create(self) -> None:
        """Make the folder and the root group, or check those that are there, which may be of another version."""
        self.check()
        if not self.has():
            shutil.rmtree(self.ledgers, ignore_errors=True)
        try:
            self.ledgers.mkdir(parents=True, exist_ok=True)
            probe = self.ledgers / f"probe-{os.getpid()}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from error
        if not self.has():
            self._create_root({"iscale": {"store_version": STORE_VERSION, "created_by": __version__}})

    def check(self) -> None:
        """Refuse a store that is not ours or not of this version; one that does not exist yet is fine."""
        if not self._begun():
            return
        remedy = "Run with --restart to replace it, or choose another folder with --out."
        try:
            found = dict(zarr.open_group(self.root, mode="r").attrs).get("iscale")
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{self.place}: not a readable Zarr group ({error}).", remedy) from error
        version = found.get("store_version") if isinstance(found, dict) else None
        if version != STORE_VERSION:
            raise StoreError(
                f"{self.place}: holds a run of store version {version}, this is iscale {__version__} with store "
                f"version {STORE_VERSION}.",
                remedy,
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process, unless another does; the lock goes with it, however it ends."""
        with contextlib.ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(hold(self.folder))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def clear(self) -> None:
        """Remove the store and its ledgers (``--restart``); other files of the folder stay."""
        shutil.rmtree(self.ledgers, ignore_errors=True)
        self.place.clear()

    def _begun(self) -> bool:
        """Whether there is anything at the place, a store or not."""
        return self.has() if self.url else (self.folder / STORE).exists()

    def _create_root(self, attributes: dict[str, Any]) -> None:
        try:
            zarr.create_group(self.root, zarr_format=3, attributes=attributes)
        except Exception as error:
            if isinstance(self.place, Objects):
                raise self.place.refusal("written", error) from error
            raise

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"{self.folder}: cannot be written ({error.strerror}).", "Choose another folder with --out.")

    def make(self, layout: ArrayLayout, attributes: dict[str, Any] | None = None) -> None:
        """Make an empty array, in place of one that is there."""
        root = zarr.open_group(self.root, mode="r+")
        root.create_array(
            layout.path,
            shape=layout.shape,
            dtype=layout.dtype,
            chunks=layout.chunks,
            shards=layout.shards,
            compressors=ZstdCodec(level=1),
            fill_value=np.dtype(layout.dtype).type(layout.fill),
            dimension_names=layout.dims,
            attributes=attributes or {},
            overwrite=True,
        )

    def make_group(self, path: str, attributes: dict[str, Any]) -> None:
        """Make an empty group that says who made it, in place of one that is there with all it holds."""
        attributes = {"iscale_version": __version__, **attributes}
        zarr.open_group(self.root, mode="r+").create_group(path, overwrite=True, attributes=attributes)

    def put(self, path: str, values: NDArray[Any] | Sequence[str], dims: tuple[str, ...], **attributes: Any) -> None:
        """Write a small array whole: a coordinate, a table's column."""
        if not isinstance(values, np.ndarray):
            values = np.array(values, dtype=np.dtypes.StringDType())
        root = zarr.open_group(self.root, mode="r+")
        array = root.create_array(
            path,
            shape=values.shape,
            dtype=values.dtype,
            chunks=tuple(max(1, n) for n in values.shape),
            dimension_names=dims,
            attributes=attributes,
            overwrite=True,
        )
        array[...] = values

    def put_coordinates(self, group: str, shape: tuple[int, int], step_um: float) -> None:
        """Write ``y`` and ``x``: centres of a grid's cells, in um from the slide's corner."""
        for dim, n in zip("yx", shape, strict=True):
            centres = (np.arange(n) + 0.5) * step_um
            self.put(f"{group}/{dim}", centres, (dim,), units="um", long_name=f"{dim} of the cell's centre")

    def array(self, path: str, mode: str = "r") -> zarr.Array[Any]:
        """Open an array."""
        try:
            return zarr.open_array(self.root, path=path, mode=mode)
        except (ValueError, KeyError, FileNotFoundError) as error:
            if self.has() and not self.has(path):
                raise StoreUnreachableError(
                    f"{self.place}/{path} is not there: the run that makes it has not come so far, or it was removed.",
                    "Run the same command again: it makes what is missing.",
                ) from error
            raise self._unreadable(path, error) from error

    def names(self, path: str) -> tuple[str, ...]:
        """An array of names, such as ``expression/gene``."""
        return tuple(map(str, np.asarray(self.array(path)[...]).tolist()))

    def write(self, path: str, region: Region, values: NDArray[Any], rows: slice | None = None) -> None:
        """Write a region of the last two axes, and of some rows of the first, which must be whole shards.

        Zarr itself takes half a shard in silence, and two tasks that do so lose each other's data.
        """
        array = self.array(path, "r+")
        place: tuple[slice, ...] = region.slices
        if array.ndim == 3:
            place = (slice(0, array.shape[0]) if rows is None else rows, *place)
        for part, side, n in zip(place, array.shards or array.chunks, array.shape, strict=True):
            if part.start % side or (part.stop % side and part.stop != n):
                raise ValueError(f"{path}: {part.start}:{part.stop} of {region} is not whole shards of {side}")
        array[place] = values

    def attributes(self, path: str) -> dict[str, Any]:
        """Attributes of a group or array."""
        try:
            return dict(zarr.open(self.root, path=path, mode="r").attrs)
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: Exception) -> StoreError:
        """The error of what cannot be opened: the store is damaged there, or all of it is out of reach."""
        if self.has():
            return self.damaged(path, error)
        return StoreUnreachableError(
            f"{self.place} is not there.",
            "It was removed, or this machine does not reach the file system. Is the folder on one that all workers "
            "share?",
        )

    def damaged(self, path: str, error: Exception) -> StoreError:
        """The error of a group or array that is there and cannot be read."""
        return StoreError(
            f"{self.place}/{path}: cannot be read ({type(error).__name__}: {error}).",
            "The run is damaged: --restart makes it anew.",
        )

    def set_attributes(self, path: str, **attributes: Any) -> None:
        """Add attributes to a group or array."""
        zarr.open(self.root, path=path, mode="r+").attrs.update(attributes)

    def mark(self, group: str, outdated: str) -> None:
        """Say why a group is not of the run as it is now; an empty reason takes that back."""
        if self.has(group) and self.outdated(group) != outdated:
            self.set_attributes(group, outdated=outdated)

    def outdated(self, group: str) -> str:
        """Why a group is not of the run as it is now; empty if it is."""
        return str(self.attributes(group).get("outdated", ""))

    def sweep(self) -> None:
        """Remove what killed writers left half-written."""
        self.place.sweep()


def store_for(project: Path, out: str | None) -> RunStore:
    """Where the output of a project goes: a folder, an object store's URL, or else the project's ``iSCALE_output``."""
    default = project.absolute() / OUTPUT_FOLDER
    if out and is_url(out):
        return RunStore(default, store_url(out))
    return RunStore(Path(out).expanduser().absolute() if out else default)


def report_of(store: RunStore) -> dict[str, Any]:
    """What the ``report.json`` of a run says; nothing where no command has left one, or a URL is all that is known."""
    if store.folder == Path():
        return {}
    try:
        return dict(json.loads((store.folder / REPORT_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return {}

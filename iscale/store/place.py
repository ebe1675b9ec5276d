"""Where a Zarr store lies: in a folder, or in an object store (S3, Google Cloud Storage) by its URL."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from iscale.engine.step import There
from iscale.errors import InputError, StoreError

SCHEMES = ("s3://", "gs://")
"""Starts of URLs that are taken as object stores."""


class Place(Protocol):
    """Where a store lies; small and picklable."""

    def zarr(self) -> Any:
        """What zarr, xarray and anndata open."""
        ...

    def file(self, key: str) -> There:
        """One of its files."""
        ...

    def clear(self) -> None:
        """Remove all of it."""
        ...

    def sweep(self) -> None:
        """Remove what killed writers left half-written."""
        ...


@dataclass(frozen=True)
class Folder:
    """A store in a folder."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def zarr(self) -> Path:
        """The folder."""
        return self.path

    def file(self, key: str) -> Path:
        """A file in it."""
        return self.path / key

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        """Remove files that were never put in place."""
        for partial in self.path.rglob("*.partial"):
            partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Objects:
    """A store in an object store, where an object is there whole or not at all.

    Credentials, region and endpoint are those of the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``,
    ``GOOGLE_APPLICATION_CREDENTIALS`` ...).
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def zarr(self) -> Any:
        """A store of zarr's, opened once per process."""
        return _opened(self.url)

    def file(self, key: str) -> _Object:
        """One of its objects."""
        return _Object(self, key)

    def clear(self) -> None:
        """Remove all objects under the URL."""
        from zarr.core.sync import sync

        sync(self.zarr().clear())

    def sweep(self) -> None:
        """Nothing is ever half-written."""

    def refusal(self, what: str, error: Exception) -> StoreError:
        """The error of what cannot be read or written; what the client raises is of its own kinds."""
        return StoreError(
            f"{self}: cannot be {what} ({str(error).splitlines()[0]}).",
            "Check the bucket's name, the credentials and the endpoint in the environment (AWS_..., GOOGLE_...).",
        )


@dataclass(frozen=True)
class _Object:
    """An object that may be there."""

    place: Objects
    key: str

    def exists(self) -> bool:
        """Ask for it; a StoreError where the object store cannot be asked."""
        import obstore

        try:
            obstore.head(self.place.zarr().store, self.key)
        except FileNotFoundError:
            return False
        except (obstore.exceptions.BaseError, OSError) as error:
            raise self.place.refusal("read", error) from error
        return True


@lru_cache(maxsize=8)
def _opened(url: str) -> Any:
    if importlib.util.find_spec("obstore") is None:
        raise InputError(f"{url}: object stores need the package obstore.", 'pip install "iscale[objects]"')
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    return ObjectStore(from_url(url))


def is_url(where: str) -> bool:
    """Whether something names a place in an object store.

    >>> is_url("s3://bucket/run"), is_url("/data/run")
    (True, False)
    """
    return where.startswith(SCHEMES)


def store_url(out: str) -> str:
    """URL of the store in an output place, which may be the store's own.

    >>> store_url("s3://bucket/run"), store_url("s3://bucket/run/run.zarr/")
    ('s3://bucket/run/run.zarr', 's3://bucket/run/run.zarr')
    """
    out = out.rstrip("/")
    return out if out.endswith("/run.zarr") else f"{out}/run.zarr"

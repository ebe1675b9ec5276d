"""A run whose store lies in an object store, here a server of moto's on this machine: the same as one in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import iscale
from iscale.errors import InputError, StoreError

pytestmark = pytest.mark.cluster

PORT = 5617
OPTIONS = {"n_genes": 12, "n_plots": 2}


def _asked(method: str, path: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{PORT}/{path}", method=method), timeout=60).close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket on a server on the loopback interface."""
    program = os.environ.get("ISCALE_MOTO_SERVER") or shutil.which("moto_server")
    if not program:
        pytest.skip("moto_server is not at hand (ISCALE_MOTO_SERVER names it; make test-cluster installs it)")
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            [program, "--port", str(PORT), "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as server,
    ):
        for name, value in {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        try:
            for _ in range(600):
                try:
                    _asked("PUT", "tissue")
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.5)
            yield "s3://tissue"
        finally:
            server.terminate()


def test_a_run_in_an_object_store_equals_one_in_a_folder(demo_project: Path, tmp_path: Path, bucket: str) -> None:
    there = f"{bucket}/dask"
    iscale.run(demo_project, out=tmp_path / "out", stage="predict", **OPTIONS)
    iscale.run(demo_project, out=there, stage="predict", dask="local", workers=2, **OPTIONS)
    ours, theirs = iscale.open_run(tmp_path / "out"), iscale.open_run(there)
    assert np.array_equal(ours.tissue.values, theirs.tissue.values)
    assert np.array_equal(ours.features.values, theirs.features.values, equal_nan=True)
    np.testing.assert_allclose(ours.expression.values, theirs.expression.values, rtol=2e-3, equal_nan=True)
    assert list(ours.captures) == list(theirs.captures)
    assert (ours.captures["D1"].X != theirs.captures["D1"].X).nnz == 0


def test_a_run_in_an_object_store_is_gone_on_with(demo_project: Path, tmp_path: Path, bucket: str) -> None:
    there = f"{bucket}/again"
    iscale.run(demo_project, out=there, stage="tissue")
    ledgers = list((demo_project / "iSCALE_output" / ".iscale").glob("*/*.jsonl"))
    before = {path: path.read_bytes() for path in ledgers}
    iscale.run(demo_project, out=there, stage="tissue")
    assert before
    assert {path: path.read_bytes() for path in ledgers} == before
    iscale.run(demo_project, out=f"{bucket}/another", stage="tissue")
    assert iscale.open_run(f"{bucket}/another").tissue.any()


def test_what_is_not_there_is_one_clear_error(demo_project: Path, bucket: str) -> None:
    with pytest.raises(InputError, match="no run here"):
        iscale.open_run(f"{bucket}/nothing")
    with pytest.raises(StoreError, match="cannot be written"):
        iscale.run(demo_project, out="s3://no-such-bucket/x", stage="tissue")

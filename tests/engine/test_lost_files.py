"""What becomes of a step when workers, or this process, do not reach its files, and when the disk is full."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster
from faulty import REGIONS, a_step, all_once, recorded, run, told

from iscale.engine import assignments, dask_driver
from iscale.engine.dask_driver import DaskDriver
from iscale.engine.drivers import SerialDriver, attempt
from iscale.engine.ledger import Ledger
from iscale.errors import RegionsFailedError, StoreError
from iscale.geometry import Region


@pytest.mark.parametrize("what", ["stale", "unreachable"])
def test_a_worker_that_does_not_reach_its_files_for_a_while_is_waited_for(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(assignments, "SECONDS_BEFORE", (0.1, 0.2, 0.3))
    monkeypatch.setattr(dask_driver, "LOOK_EVERY_S", 0.1)
    (tmp_path / f"{what}-2-2").write_text("3")
    with Client(threads) as client:
        run(a_step(tmp_path), tmp_path, DaskDriver(client))
        all_once(tmp_path, again="2-2", times=4)
        (tmp_path / "ledger" / "t.jsonl").unlink()
        (tmp_path / f"{what}-2-2").write_text("4")
        with pytest.raises(RegionsFailedError, match=r"y 2:4, x 2:4: .*(Stale|is not there).* \(on "):
            run(a_step(tmp_path), tmp_path, DaskDriver(client))
    assert len(recorded(tmp_path)) == REGIONS - 1


def unmounted(output: Path, region: Region) -> int:
    """Lose the output while a region is computed, the first time."""
    if told(output.parent, "lose", f"{region.y0}-{region.x0}"):
        output.unlink()
    return region.area


def test_a_region_whose_output_vanished_meanwhile_is_done_again(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignments, "SECONDS_BEFORE", (0.1, 0.1))
    output = tmp_path / "output"
    output.touch()
    (tmp_path / "lose-2-2").touch()
    seen: list[bool] = []

    def slow(paths: Any) -> bool:
        """As another machine sees it, on which the file is not gone; soon it is there for all again."""
        seen.append(output.exists())
        output.touch()
        return True

    monkeypatch.setattr(dask_driver, "all_there", slow)
    step = replace(a_step(tmp_path), kernel=unmounted, context=output, outputs=(output,))
    with Client(threads) as client:
        assert run(step, tmp_path, DaskDriver(client)).regions == REGIONS
    assert False in seen, "what failed was put back"
    assert list(recorded(tmp_path).values()) == [1] * REGIONS


def test_where_this_process_lost_the_output_too_nothing_is_waited_for(
    threads: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignments, "SECONDS_BEFORE", (60.0,))
    output = tmp_path / "output"
    output.touch()
    step = replace(a_step(tmp_path), outputs=(output,))
    (tmp_path / "unreachable-2-2").touch()
    monkeypatch.setattr(dask_driver, "all_there", lambda paths: paths != (output,))
    with Client(threads) as client, pytest.raises(RegionsFailedError, match="1 of 12"):
        run(step, tmp_path, DaskDriver(client))


def full(folder: Path, region: Region) -> int:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_stops_the_run_in_whatever_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No space left on device"):
        attempt(full, tmp_path, Region(0, 1, 0, 1))


def test_a_full_disk_that_the_driver_meets_first_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "record", no_room)
    with pytest.raises(StoreError, match="No space left on device") as stopped:
        run(a_step(tmp_path), tmp_path, SerialDriver())
    assert "the same command continues" in stopped.value.remedy

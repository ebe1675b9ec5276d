"""What becomes of a step when workers die, hang or are not heard of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from faulty import REGIONS, a_step, all_once, calls, recorded, run, until

from iscale.engine import assignments, dask_driver
from iscale.engine.dask_workers import LocalDriver
from iscale.errors import RegionsFailedError
from iscale.plan.workers import open_driver

LIMIT = 600 * 2**20
SILENT_S = 5.0
"""Long enough that a worker of a busy machine is not taken for silent."""


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalDriver]:
    """Two workers that are processes, as ``--dask local`` starts them."""
    with open_driver("local", 2, LIMIT) as driver:
        assert isinstance(driver, LocalDriver)
        until(lambda: len(driver.started.workers) == 2)
        yield driver


@pytest.fixture
def both(processes: LocalDriver) -> LocalDriver:
    """The same, both there, whatever became of them in the test before."""
    until(lambda: len(processes.started.workers) == 2)
    return processes


def test_a_killed_worker_costs_one_attempt_at_one_region(both: LocalDriver, tmp_path: Path) -> None:
    (tmp_path / "kill-2-2").touch()
    assert run(a_step(tmp_path), tmp_path, both).regions == REGIONS
    all_once(tmp_path, again="2-2", times=2)
    assert len(set(calls(tmp_path)["2-2"])) == 2


def test_a_region_that_kills_three_workers_is_given_up_and_the_others_are_done(
    both: LocalDriver, tmp_path: Path
) -> None:
    (tmp_path / "kill-2-4").write_text("99")
    with pytest.raises(
        RegionsFailedError, match=r"1 of 12 regions failed.\n    y 2:4, x 4:6: 3 workers died"
    ) as failed:
        run(a_step(tmp_path), tmp_path, both)
    assert failed.value.exit_code == 3
    assert "3 were killed from outside" in str(failed.value)
    assert len(recorded(tmp_path)) == REGIONS - 1
    assert len(set(calls(tmp_path)["2-4"])) == 3
    (tmp_path / "kill-2-4").unlink()
    assert run(a_step(tmp_path), tmp_path, both).regions == 1
    all_once(tmp_path, again="2-4", times=4)


@pytest.mark.full
def test_a_region_that_takes_too_much_memory_is_given_up_and_that_is_said(both: LocalDriver, tmp_path: Path) -> None:
    (tmp_path / "grow-0-0").write_text("99")
    with pytest.raises(RegionsFailedError, match=r"y 0:2, x 0:2: 3 workers .*: 3 took more than the 629 MB"):
        run(a_step(tmp_path), tmp_path, both)
    assert len(recorded(tmp_path)) == REGIONS - 1


@pytest.mark.full
def test_a_worker_of_which_nothing_is_heard_is_restarted_and_its_region_done_by_another(
    both: LocalDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "SILENCE_S", SILENT_S)
    (tmp_path / "silent-4-4").touch()
    run(a_step(tmp_path), tmp_path, both)
    all_once(tmp_path, again="4-4", times=2)
    assert len(set(calls(tmp_path)["4-4"])) == 2


@pytest.mark.full
def test_a_region_that_never_tells_anything_is_given_up(
    both: LocalDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_driver, "SILENCE_S", SILENT_S)
    monkeypatch.setattr(assignments, "MOST_DEATHS", 1)
    (tmp_path / "silent-4-4").touch()
    with pytest.raises(RegionsFailedError, match=r"y 4:5, x 4:6: .* nothing was heard of them for 5 s"):
        run(a_step(tmp_path), tmp_path, both)
    assert len(recorded(tmp_path)) == REGIONS - 1


@pytest.mark.full
def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "stop-0-4").touch()
    with (
        # Dask would look once, so long after a worker died, and not bear with one that is just being started again.
        dask.config.set({"distributed.scheduler.worker-ttl": "8s", "distributed.deploy.lost-worker-timeout": "50ms"}),
        open_driver("local", 2, LIMIT) as driver,
    ):
        assert isinstance(driver, LocalDriver)
        run(a_step(tmp_path), tmp_path, driver)
        until(lambda: len(driver.started.workers) == 2)
        time.sleep(1)
        assert len(driver.started.workers) == 2, "and it stays"
        all_once(tmp_path, again="0-4", times=2)
        stopped = int(calls(tmp_path)["0-4"][0])
    until(lambda: not Path(f"/proc/{stopped}").exists())

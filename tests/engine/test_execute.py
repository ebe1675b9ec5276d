"""Steps run once, resume after a failure, and give the same result under every driver."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from iscale.engine import dask_workers
from iscale.engine.dask_driver import DaskDriver
from iscale.engine.dask_workers import LocalDriver
from iscale.engine.drivers import Driver, SerialDriver
from iscale.engine.execute import StepReport, execute, pending
from iscale.engine.ledger import Ledger, fingerprint
from iscale.engine.plan import Resources, plan_regions
from iscale.engine.step import Step
from iscale.engine.watchers import Silence
from iscale.errors import InputError, RegionsFailedError, StoreError
from iscale.geometry import Region
from iscale.plan.workers import open_driver


def touch(folder: Path, region: Region) -> int:
    """Leave a trace of every call; fail where told to."""
    name = f"{region.y0}-{region.x0}"
    with (folder / name).open("a") as file:
        file.write("x")
    if (folder / f"fail-{name}").exists():
        raise RuntimeError("told to fail")
    if (folder / f"bad-{name}").exists():
        raise InputError("the slide is damaged here", "copy it again")
    if (folder / f"full-{name}").exists():
        raise OSError(28, "No space left on device", "shard")
    kill = folder / f"kill-{name}"
    if kill.exists():
        kill.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return region.area


def a_step(folder: Path, seed: int = 0, shards_per_side: int = 1) -> Step:
    plan = plan_regions("t", (5, 7), (2, 2), lambda _: 1, Resources(2**31, shards_per_side=shards_per_side))
    return Step("t", touch, folder, plan, fingerprint("t", {"seed": seed}))


def run(step: Step, folder: Path, driver: Driver | None = None) -> StepReport:
    return execute(step, driver or SerialDriver(), Ledger(folder / "ledger", step.name), Silence())


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    assert run(a_step(tmp_path), tmp_path).regions == 12
    again = run(a_step(tmp_path), tmp_path)
    assert (again.regions, again.reused) == (0, 12)
    assert (tmp_path / "0-0").read_text() == "x"


def test_other_parameters_make_a_step_stale(tmp_path: Path) -> None:
    run(a_step(tmp_path, seed=0), tmp_path)
    assert run(a_step(tmp_path, seed=1), tmp_path).regions == 12


def test_a_failed_region_is_reported_and_alone_tried_again(tmp_path: Path) -> None:
    (tmp_path / "fail-2-4").touch()
    with pytest.raises(RegionsFailedError, match=r"1 of 12 regions failed.\n    y 2:4, x 4:6: RuntimeError: told"):
        run(a_step(tmp_path), tmp_path)
    (tmp_path / "fail-2-4").unlink()
    again = run(a_step(tmp_path), tmp_path)
    assert (again.regions, again.reused) == (1, 11)


def test_other_regions_over_the_same_shards_reuse_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "fail-4-6").touch()
    with pytest.raises(RegionsFailedError):
        run(a_step(tmp_path), tmp_path)
    (tmp_path / "fail-4-6").unlink()
    assert [str(r) for r in pending(a_step(tmp_path, shards_per_side=2), Ledger(tmp_path / "ledger", "t"))] == [
        "y 4:5, x 4:7"
    ]


def test_a_torn_line_of_the_ledger_costs_one_region(tmp_path: Path) -> None:
    run(a_step(tmp_path), tmp_path)
    path = tmp_path / "ledger" / "t.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert run(a_step(tmp_path), tmp_path).regions == 1
    assert run(a_step(tmp_path), tmp_path).regions == 0


def test_finish_sees_every_region_once_and_failure_in_it_is_not_success(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def finish(values: list[int]) -> None:
        seen.append(values)
        if len(seen) == 1:
            raise InputError("not yet")

    step = a_step(tmp_path)
    step = dataclasses.replace(step, finish=finish)
    with pytest.raises(InputError):
        run(step, tmp_path)
    run(step, tmp_path)
    assert len(seen) == 2
    assert sum(seen[1]) == 35


@pytest.mark.parametrize(("mark", "error"), [("bad", InputError), ("full", StoreError)])
def test_bad_input_and_a_full_disk_stop_the_step(tmp_path: Path, mark: str, error: type[Exception]) -> None:
    (tmp_path / f"{mark}-0-2").touch()
    with pytest.raises(error):
        run(a_step(tmp_path), tmp_path)
    assert not (tmp_path / "2-0").exists()


def test_dask_runs_the_same_and_survives_a_killed_worker(tmp_path: Path) -> None:
    (tmp_path / "kill-2-2").touch()
    (tmp_path / "fail-4-0").touch()
    with open_driver("local", 2, 2**31) as driver:
        assert isinstance(driver, LocalDriver)
        assert len(driver.started.workers) == 2
        with pytest.raises(RegionsFailedError, match="1 of 12"):
            run(a_step(tmp_path), tmp_path, driver)
        (tmp_path / "fail-4-0").unlink()
        assert run(a_step(tmp_path), tmp_path, driver).regions == 1
        (tmp_path / "bad-0-2").touch()
        with pytest.raises(InputError, match="damaged"):
            run(a_step(tmp_path, seed=1), tmp_path, driver)


def test_an_address_where_nobody_answers_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_workers, "CONNECT_WITHIN", "1s")
    with pytest.raises(InputError, match="no scheduler answers"), open_driver("tcp://127.0.0.1:9", 0, 2**31):
        pass


def test_a_step_whose_output_is_lost_is_done_anew(tmp_path: Path) -> None:
    output = tmp_path / "output"
    step = a_step(tmp_path)
    step = Step(
        step.name, step.kernel, step.context, step.plan, step.fingerprint, outputs=(output,), prepare=output.touch
    )
    assert run(step, tmp_path).regions == 12
    assert run(step, tmp_path).regions == 0
    output.unlink()
    assert run(step, tmp_path).regions == 12


def test_a_scheduler_that_runs_is_reached_by_its_address(tmp_path: Path) -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        open_driver(cluster.scheduler_address, 0, 2**31) as driver,
    ):
        assert isinstance(driver, DaskDriver)
        assert len(driver.workers) == 1
        assert run(a_step(tmp_path), tmp_path, driver).regions == 12

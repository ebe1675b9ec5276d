"""The driver whose workers are jobs of a batch system: a pool of jobs per kind of step, as large as there is work."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from iscale.batch.clusters import job_cluster
from iscale.batch.settings import PoolName, SchedulerName, Site
from iscale.engine.dask_driver import DaskDriver
from iscale.engine.dask_workers import dashboard
from iscale.engine.drivers import Outcome, Say
from iscale.engine.progress import Hear
from iscale.engine.step import Step
from iscale.errors import ClusterError, InputError
from iscale.geometry import Region

TIMEOUT_S = 30.0

COMMANDS: dict[SchedulerName, tuple[str, ...]] = {
    "slurm": ("squeue", "--noheader", "--format=%i %t", "--states=all", "--jobs"),
    "lsf": ("bjobs", "-noheader", "-o", "jobid stat"),
}
ALIVE = {
    "slurm": {"PD": "waiting", "CF": "waiting", "S": "waiting", "R": "running", "CG": "running"},
    "lsf": {"PEND": "waiting", "PSUSP": "waiting", "USUSP": "waiting", "SSUSP": "waiting", "RUN": "running"},
}


def jobs_in_queue(scheduler: SchedulerName, jobs: Iterable[str]) -> dict[str, str] | None:
    """Which of some jobs wait or run: ``waiting`` or ``running`` by id, without those that are over.

    None where the batch system does not answer.
    """
    ids = [job for job in jobs if job]
    if not ids:
        return {}
    command = [*COMMANDS[scheduler], *([",".join(ids)] if scheduler == "slurm" else ids)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return read_jobs(scheduler, said.stdout, ids, failed=bool(said.returncode), complaint=said.stderr)


def read_jobs(
    scheduler: SchedulerName, text: str, jobs: Iterable[str], *, failed: bool = False, complaint: str = ""
) -> dict[str, str] | None:
    r"""Read what ``squeue`` or ``bjobs`` printed.

    >>> read_jobs("slurm", "12 PD\n13 R\n14 CD\n", ["12", "13", "14"])
    {'12': 'waiting', '13': 'running'}
    >>> read_jobs("lsf", "7 PEND\n8 EXIT\n", ["7", "8"])
    {'7': 'waiting'}
    >>> read_jobs("slurm", "", ["12"], failed=True, complaint="slurm_load_jobs error: Unable to contact slurm")
    """
    unknown = ("Invalid job id", "is not found", "No unfinished job", "No matching job")
    if failed and not any(words in complaint for words in unknown):
        return None
    states = ALIVE[scheduler]
    lines = [line.split() for line in text.splitlines()]
    wanted = set(jobs)
    return {line[0]: states[line[1]] for line in lines if len(line) > 1 and line[0] in wanted and line[1] in states}


IDLE_S = 300.0
"""Jobs that have had nothing to do for so long are given back; until then the next step may need them."""

SAY_EVERY_S = 60.0
"""How often the user is told that jobs wait in the queue."""

QUEUE_EVERY_S = 20.0
"""How often the batch system is asked for the jobs: not more, others ask it too."""

MOST_STILLBORN = 3
"""A run stops when so many jobs have ended one after the other before a worker of theirs came."""

LOG_LINES = 8
"""Lines shown of the log of such a job."""


class BatchDriver:
    """Runs steps on a pool of jobs, which is started with the first region and ended when another pool takes over.

    Steps of networks go to the pool of cards where they are to be ``on_cards``; ``logs`` is the folder for what jobs
    print.
    """

    def __init__(self, site: Site, *, on_cards: bool, logs: Path, say: Say) -> None:
        self._site = site
        self._on_cards = on_cards and site.gpu is not None
        self._logs = site.log_directory or logs
        self._say = say
        self._open: _Jobs | None = None

    def map(self, step: Step, regions: Iterable[Region], hear: Hear | None = None) -> Iterator[Outcome]:
        """Run the regions on the pool that the step is for."""
        todo = list(regions)
        name: PoolName = "gpu" if step.where == "gpu" and self._on_cards else "cpu"
        if self._open is None or self._open.name != name:
            self.close()
            self._logs.mkdir(parents=True, exist_ok=True)
            self._open = _Jobs(self._site, name, self._logs, self._say)
        self._open.need(len(todo))
        return self._open.driver.map(step, todo, hear)

    def close(self) -> None:
        """End the jobs."""
        if self._open is not None:
            self._open.driver.close()
            self._open = None


class _Jobs:
    """The jobs of a pool: as many as the regions left need, those that are lost replaced.

    Which jobs are lost is answered here, by the batch system alone; Dask is told. Which workers are there, and what
    becomes of a region whose worker is not, is the `DaskDriver`'s.
    """

    def __init__(self, site: Site, name: PoolName, logs: Path, say: Say) -> None:
        from distributed import Client

        self.name = name
        self._site, self._pool, self._logs, self._say = site, site.pool(name), logs, say
        self._cluster = job_cluster(site, name, logs)
        self._client = Client(self._cluster)
        self.driver = DaskDriver(self._client, self._cluster, self._look_after)
        self._jobs = 0
        self._enough_since: float | None = None
        self._queue_seen = self._last_said = time.monotonic()
        self._born: set[str] = set()
        self._stillborn: list[str] = []
        say(f"{name} pool: up to {self._pool.jobs} jobs of {site.scheduler}; {dashboard(self._client)}")

    def need(self, regions: int) -> None:
        """Have jobs enough for so many regions, not fewer than there are."""
        jobs = min(self._pool.jobs, -(-regions // self._pool.workers))
        if jobs > self._jobs:
            self._scale(jobs)

    def _scale(self, jobs: int) -> None:
        """Have so many jobs; dask submits as many as are missing of those that it knows."""
        self._jobs = jobs
        self._cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs, interval="5s")

    def _look_after(self, workers: int, regions: int) -> bool:
        """Give back jobs that have had nothing to do for long; say what waits; stop where no job comes to life.

        However long jobs wait in the queue is right.
        """
        now = time.monotonic()
        # At every look: one that leaves between two questions to the batch system was alive all the same.
        self._born |= {_job_of(worker.name) for worker in list(self._cluster.scheduler.workers.values())}
        if self._cluster.refusals:
            raise InputError(
                f"{self._site.scheduler} refused a job of the {self.name} pool: {self._cluster.refusals[-1]}",
                "Change the pool's settings in the file that --dask names; --dry-run prints the jobs.",
            )
        jobs = max(1, min(self._pool.jobs, -(-regions // self._pool.workers)))
        if jobs >= self._jobs:
            self._enough_since = None
        elif self._enough_since is None:
            self._enough_since = now
        elif now - self._enough_since > IDLE_S:
            self._scale(jobs)
        if workers >= self._jobs * self._pool.workers:
            self._queue_seen, self._stillborn = now, []
        elif now - self._queue_seen > QUEUE_EVERY_S:
            self._queue_seen = now
            self._look_at_queue(workers, now)
        return True

    def _look_at_queue(self, workers: int, now: float) -> None:
        """Compare the jobs that were submitted with those that the batch system knows."""
        jobs = {name: str(job.job_id) for name, job in self._cluster.workers.items() if job.job_id}
        queued = jobs_in_queue(self._site.scheduler, jobs.values())
        if queued is None:
            return
        gone = [name for name, job in jobs.items() if job not in queued]
        for name in gone:
            if str(name) not in self._born:
                self._stillborn.append(jobs[name])
        if len(self._stillborn) >= MOST_STILLBORN:
            raise self._no_life()
        if gone:
            ended = ", ".join(jobs[name] for name in gone)
            self._say(f"{self.name} pool: ended before its time: job {ended}; others are submitted")
            # Dask is to forget them: it waits for their workers, and submits others only for jobs that it lacks.
            self._cluster.sync(self._cluster.scale_down, gone)
        if now - self._last_said > SAY_EVERY_S or (not workers and self._last_said < now - 2 * QUEUE_EVERY_S):
            self._last_said = now
            waiting = sum(state == "waiting" for state in queued.values())
            self._say(f"{self.name} pool: {workers} workers at work, {waiting} jobs wait in the queue")

    def _no_life(self) -> ClusterError:
        last = self._stillborn[-1]
        logs = sorted(self._logs.glob(f"*{last}*"))
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]]
        told = "".join(f"\n    {line}" for line in lines) or " (there is no log)"
        return ClusterError(
            f"{len(self._stillborn)} jobs of the {self.name} pool ended before a worker of theirs came; "
            f"what job {last} printed last:{told}",
            f"Mend `environment`, `python` or the directives in the file that --dask names; logs are in {self._logs}.",
        )


def _job_of(worker: Any) -> str:
    """The job of a worker: where a job has several workers, these are called after it with a number.

    >>> _job_of("cpu-3"), _job_of("cpu-3-1")
    ('cpu-3', 'cpu-3')
    """
    parts = str(worker).split("-")
    return "-".join(parts[:2])

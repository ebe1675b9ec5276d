"""dask-jobqueue's jobs and clusters, where this package needs them otherwise. Imported only where workers are jobs."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import dask
from dask_jobqueue.core import Job, JobQueueCluster
from dask_jobqueue.lsf import LSFCluster, LSFJob
from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from distributed.core import Status
from distributed.utils import format_dashboard_link

SECTION = "iscale"
"""Section of dask-jobqueue's configuration that these clusters read. It is this program's own and empty: what somebody
once wrote for SLURM or LSF into ``~/.config/dask/jobqueue.yaml`` or ``/etc/dask`` changes nothing in silence."""

NOTHING = (
    "name", "cores", "memory", "processes", "python", "interface", "death-timeout", "local-directory", "extra",
    "worker-command", "shebang", "queue", "account", "project", "walltime", "env-extra", "job-extra", "log-directory",
    "job-cpu", "job-mem", "ncpus", "mem", "lsf-units", "header-skip", "shared-temp-directory",
)  # fmt: skip
LISTS = ("worker-extra-args", "job-script-prologue", "job-extra-directives", "job-directives-skip")


def own_section() -> None:
    """Make the section: jobs read it whenever they are started, so it is there for good."""
    section: dict[str, Any] = {
        **dict.fromkeys(NOTHING),
        **{key: [] for key in LISTS},
        "scheduler-options": {},
        "use-stdin": True,
    }
    dask.config.set({f"jobqueue.{SECTION}": section})


BUSY = (
    *("timed out", "Unable to contact", "Connection refused", "temporarily", "not responding"),
    *("try again", "try later"),
)
"""Words of a batch system that would take the job at another time."""

RETRY_AFTER_S = (5.0, 20.0, 60.0)


class _RefusableJob(Job):
    """A job that keeps why the batch system refused it among ``refusals``: dask only logs it, and asks again."""

    def __init__(self, *arguments: Any, refusals: list[str], **keywords: Any) -> None:
        self.refusals = refusals
        super().__init__(*arguments, **keywords)

    @property
    def worker_process_memory(self) -> str:
        """A worker's limit to the byte; the original rounds to a hundredth of its unit."""
        return str(int(self.worker_memory) // int(self.worker_processes))

    async def start(self) -> None:
        """Submit the job: again after a while where the batch system is only busy, and never again once refused."""
        for pause in (*RETRY_AFTER_S, None):
            try:
                await super().start()
                return
            except (OSError, RuntimeError, ValueError) as error:
                _, _, said = str(error).rpartition("stderr:\n")
                if pause is None or not any(word in said for word in BUSY):
                    self.refusals.append(said.strip() or f"{self.submit_command} failed and said nothing")
                    # For dask it is there all the same: of one that is not, it prints a traceback and asks again.
                    self.status = Status.running
                    return
            await asyncio.sleep(pause)


class SlurmJob(_RefusableJob, SLURMJob):
    """A job of SLURM."""


class LsfJob(_RefusableJob, LSFJob):
    """A job of LSF."""

    async def _submit_job(self, script_filename: str) -> str:
        """Submit by standard input, which every LSF reads directives from; the original throws away what bsub says."""
        return str(await self._call([f"{self.submit_command} < {shlex.quote(script_filename)}"], shell=True))


class _Cluster(JobQueueCluster):
    """Keeps what was said each time that a job was refused; its dashboard is on this machine's own address only."""

    def __init__(self, **keywords: Any) -> None:
        self.refusals: list[str] = []
        super().__init__(refusals=self.refusals, **keywords)

    @property
    def dashboard_link(self) -> str:
        """For a browser here, or by way of ``ssh -L PORT:127.0.0.1:PORT``."""
        port = self.scheduler_info["services"].get("dashboard")
        return str(format_dashboard_link("127.0.0.1", port)) if port else ""


class SlurmCluster(_Cluster, SLURMCluster):
    """Workers that are jobs of SLURM."""

    job_cls = SlurmJob


class LsfCluster(_Cluster, LSFCluster):
    """Workers that are jobs of LSF."""

    job_cls = LsfJob

"""What a batch system says of jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

from iscale.batch.settings import SchedulerName

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
    """Which of some jobs wait or run.

    Parameters
    ----------
    scheduler
        The batch system.
    jobs
        Ids of jobs.

    Returns
    -------
    dict or None
        ``waiting`` or ``running`` by id, without those that are over; None where the batch system does not answer.
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

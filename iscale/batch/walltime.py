"""How long a job may run: as SLURM and LSF have it, in seconds, and what of it a worker may use."""

from __future__ import annotations

import re

SHORTEST_S = 300
"""A job must be able to start, work for a while and leave before its end."""


def parse_walltime(text: str) -> int:
    """Seconds of HH:MM:SS, of D-HH:MM:SS (as SLURM writes days), or of HH:MM (LSF).

    Raises
    ------
    ValueError
        If it is none of these, or shorter than `SHORTEST_S`.

    Examples
    --------
    >>> parse_walltime("04:00:00"), parse_walltime("1-12:00:00"), parse_walltime("36:30")
    (14400, 129600, 131400)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d{1,4}):([0-5]\d)(?::([0-5]\d))?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError("not a time: write hours, minutes and seconds, such as '04:00:00', with the quotes")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total < SHORTEST_S:
        raise ValueError(f"{total} seconds are too short for a job; give it {SHORTEST_S // 60} minutes at least")
    return total


def has_seconds(text: str) -> bool:
    """Whether a walltime has all of hours, minutes and seconds; SLURM takes two numbers for minutes and seconds."""
    return text.count(":") == 2


def slurm_walltime(seconds: int) -> str:
    """As ``sbatch -t`` has it.

    >>> slurm_walltime(14400), slurm_walltime(129600)
    ('04:00:00', '36:00:00')
    """
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def lsf_walltime(seconds: int) -> str:
    """As ``bsub -W`` has it: hours and minutes, rounded down, so that no queue's limit is passed.

    >>> lsf_walltime(14400), lsf_walltime(131459)
    ('04:00', '36:30')
    """
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}"


def lifetime(walltime_s: int) -> tuple[int, int]:
    """When a worker leaves by itself, so that the batch system need not kill it.

    A worker that leaves hands back what it has not begun, and its loss is not counted against a region. The margin is a
    tenth of the walltime, a minute at least (jobs take a while to start Python) and ten at most (no more is gained).
    Workers started together leave one after the other, or all would wait in the queue again at once.

    Parameters
    ----------
    walltime_s
        Seconds that the job may run.

    Returns
    -------
    tuple of int
        Mean lifetime, and by how much it is varied at random either way; both in seconds. Their sum is the walltime
        less the margin.

    Examples
    --------
    >>> lifetime(300), lifetime(3600), lifetime(86400)
    ((210, 30), (3060, 180), (85500, 300))
    """
    margin = min(600, max(60, walltime_s // 10))
    stagger = margin // 2
    return walltime_s - margin - stagger, stagger

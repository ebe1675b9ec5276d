"""A pool of jobs as a Dask cluster, and the script that each of its jobs is."""

from __future__ import annotations

import math
import re
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

from iscale.batch.settings import Pool, PoolName, Site, lifetime, lsf_walltime, memory_directives, slurm_walltime
from iscale.engine.dask_workers import SETTINGS, thread_variables
from iscale.engine.machine import CARD_EXPECTED, CORES
from iscale.errors import InputError

DEATH_TIMEOUT_S = 60.0
"""A job that does not find its scheduler for so long ends by itself."""

MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(64 * 2**20), "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20)}
"""Where glibc's own thresholds end up in a process that handles large arrays. Dask would set a low one, and every
temporary would be mapped anew; freed memory is given back after every task instead."""

SUBMIT = {"slurm": "sbatch", "lsf": "bsub"}


def job_cluster(site: Site, pool_name: PoolName, logs: Path, *, death_timeout_s: float = DEATH_TIMEOUT_S) -> Any:
    """A Dask cluster whose workers are jobs of a pool; no job is submitted before it is scaled.

    Its scheduler runs in this process, its dashboard on 127.0.0.1 of this machine only. ``logs`` is the folder for what
    the jobs print, on a file system that the nodes see. What comes is of :mod:`iscale.batch.jobs`: its ``refusals``
    hold what the batch system says where it takes no job.
    """
    import dask

    jobs = _jobs()
    keywords = _keywords(site, pool_name, logs, death_timeout_s)
    check_can_submit(site)
    logs.mkdir(parents=True, exist_ok=True)
    cluster = {"slurm": jobs.SlurmCluster, "lsf": jobs.LsfCluster}[site.scheduler]
    with dask.config.set(SETTINGS):
        return cluster(
            n_workers=0,
            name=pool_name,
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
            **keywords,
        )


def check_can_submit(site: Site) -> None:
    """Refuse a machine that cannot submit jobs, or has not the interface by which workers are to reach it."""
    submit = SUBMIT[site.scheduler]
    if shutil.which(submit) is None:
        raise InputError(
            f"{submit} is not on the PATH of this machine: it cannot submit jobs of {site.scheduler.upper()}.",
            "Start from a machine that can, such as a login node; where none may, run all in one allocation (deploy/).",
        )
    interfaces = psutil.net_if_addrs()
    if site.interface is not None and site.interface not in interfaces:
        raise InputError(
            f"interface {site.interface!r} is none of this machine's: {', '.join(sorted(interfaces))}.",
            "Name the one by which nodes and this machine reach each other, or leave `interface:` empty.",
        )


def job_script(site: Site, pool_name: PoolName, logs: Path, *, death_timeout_s: float = DEATH_TIMEOUT_S) -> str:
    """The script of a pool's jobs, the scheduler's address left open. It needs no batch system and writes nothing."""
    jobs = _jobs()
    job = {"slurm": jobs.SlurmJob, "lsf": jobs.LsfJob}[site.scheduler]
    keywords = _keywords(site, pool_name, logs, death_timeout_s)
    return str(job("tcp://SCHEDULER:PORT", name=f"{pool_name}-0", refusals=[], **keywords).job_script())


def _jobs() -> Any:
    """The module that needs dask-jobqueue, its section of the configuration made."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        from iscale.batch import jobs
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("dask_jobqueue"):
            raise
        raise InputError(
            "The package dask-jobqueue is not installed: no jobs can be submitted.", 'pip install "iscale[cluster]"'
        ) from error
    finally:
        # Importing dask-jobqueue makes Ctrl-C end the program as if all were well.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)
    jobs.own_section()
    return jobs


def _keywords(site: Site, pool_name: PoolName, logs: Path, death_timeout_s: float) -> dict[str, Any]:
    """All that a job is made of, for jobs of either batch system."""
    pool, name = site.pool(pool_name), f"iscale-{pool_name}"
    mean, stagger = lifetime(pool.walltime_s)
    own = _slurm(site, pool, name, logs) if site.scheduler == "slurm" else _lsf(site, pool, name, logs)
    return {
        "config_name": "iscale",
        "job_name": name,
        "queue": pool.queue,
        # One thread of Dask per worker. The batch system is asked for the cores below, which are the kernels'.
        "cores": pool.workers,
        "processes": pool.workers,
        "memory": pool.worker_bytes * pool.workers,
        "interface": site.interface,
        "nanny": True,
        "death_timeout": f"{death_timeout_s:g}",
        "local_directory": _quoted(site.local_directory) if site.local_directory else None,
        "python": _quoted(site.python or sys.executable),
        "worker_command": "distributed.cli.dask_worker",
        "worker_extra_args": [
            *("--lifetime", f"{mean}s", "--lifetime-stagger", f"{stagger}s"),
            "--no-dashboard",
        ],
        "shebang": "#!/usr/bin/env bash",
        "job_script_prologue": [*site.environment, *pool.environment, *_exports(pool)],
        **own,
    }


def _slurm(site: Site, pool: Pool, name: str, logs: Path) -> dict[str, Any]:
    """What is asked of SLURM. A job that it requeued would come back under the name of the one that replaced it.

    Memory is asked for once: as the pool's own directives say, or else for the job or each of its cores.
    """
    mib = math.ceil(pool.memory_bytes / 2**20)
    asks = "no" if memory_directives(pool) else site.reserve_memory
    return {
        "account": pool.account,
        "job_cpu": pool.cores,
        "job_mem": f"{mib}M",
        "job_directives_skip": [] if asks == "job" else ["SBATCH --mem="],
        "walltime": slurm_walltime(pool.walltime_s),
        "job_extra_directives": [
            *([f"--mem-per-cpu={math.ceil(mib / pool.cores)}M"] if asks == "core" else []),
            f'-o "{_folder(logs).replace("%", "%%")}/{name}-%j.log"',
            "--no-requeue",
            *([pool.gpu_directive or f"--gres=gpu:{pool.gpus}"] if pool.gpus else []),
            *pool.directives,
        ],
    }


def _lsf(site: Site, pool: Pool, name: str, logs: Path) -> dict[str, Any]:
    """What is asked of LSF: -M is a limit only, rusage keeps the memory free for the job."""
    unit = 1000 ** ("KB", "MB", "GB").index(site.memory_unit) * 1000
    shares = {"job": 1, "core": pool.cores, "no": 0}[site.reserve_memory]
    reserved = math.ceil(pool.memory_bytes / shares / unit) if shares else 0
    return {
        "project": pool.account,
        "ncpus": pool.cores,
        "mem": pool.memory_bytes,
        "lsf_units": site.memory_unit.lower(),
        "walltime": lsf_walltime(pool.walltime_s),
        "use_stdin": True,
        "job_extra_directives": [
            *([f'-R "rusage[mem={reserved}]"'] if reserved else []),
            f'-o "{_folder(logs)}/{name}-%J.log"',
            "-rn",
            *([pool.gpu_directive or f'-gpu "num={pool.gpus}"'] if pool.gpus else []),
            *pool.directives,
        ],
    }


def _exports(pool: Pool) -> list[str]:
    """Environment of the workers; after the site's own lines, which may load modules that set the same."""
    settings = {
        f"DASK_{key.upper().replace('.', '__').replace('-', '_')}": repr(value).replace("'", '"')
        for key, value in SETTINGS.items()
        if key.startswith("distributed.worker.")
    }
    card = {CARD_EXPECTED: "1"} if pool.gpus else {}
    # A model is trained by one worker alone: it may use all cores of its job, and no others of the node.
    variables = {**thread_variables(pool.threads), CORES: str(pool.cores), **MALLOC, **settings, **card}
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _quoted(text: str) -> str:
    """A word of the command line in which the node's shell replaces variables, such as $TMPDIR.

    >>> _quoted("/opt/python3"), _quoted("$TMPDIR/my files")
    ('/opt/python3', '"$TMPDIR/my files"')
    """
    return text if re.fullmatch(r"[\w/.+-]+", text) else f'"{text}"'


def _folder(logs: Path) -> str:
    folder = str(logs.expanduser().absolute())
    if '"' in folder or "\n" in folder:
        raise InputError(
            f"Jobs cannot write into {folder!r}: its name has a quote or a line break.",
            "Name another folder with log_directory.",
        )
    return folder

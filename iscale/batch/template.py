"""The YAML file of a site, every key explained: what ``iscale init --scheduler`` writes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from iscale.batch.settings import JOB_OVERHEAD_BYTES, SchedulerName
from iscale.engine.plan import format_bytes
from iscale.errors import InputError

WORDS: dict[SchedulerName, dict[str, str]] = {
    "slurm": {
        "NAME": "SLURM",
        "QUEUE": "Partition (sbatch -p). Without it: the site's default. `sinfo` lists them.",
        "ACCOUNT": "Account that the hours are booked on (sbatch -A), if your site wants one.",
        "LOG_FILE": "iscale-cpu-JOBID.log",
        "WALLTIME": "hours, minutes and seconds, such as '04:00:00' or '1-12:00:00'; keep the quotes.",
        "TIME": "04:00:00",
        "DIRECTIVE": "--constraint=cascadelake",
        "GPU_DIRECTIVE": "--gpus-per-node=a100:1",
        "GPU_DEFAULT": "--gres=gpu:1",
        "MANAGED": "-J, -p, -A, -n, --cpus-per-task, --mem (or --mem-per-cpu), -t, -o and --no-requeue",
        "OWN_KEYS": """
# How memory is asked for: job (--mem, of the whole job), core (--mem-per-cpu, its share of each core), or no (your
# SLURM takes neither, and gives memory by cores). A job may have one of these: where one stands among `directives`,
# iscale writes none.
reserve_memory: job
""",
    },
    "lsf": {
        "NAME": "LSF",
        "QUEUE": "Queue (bsub -q). Without it: the site's default. `bqueues` lists them.",
        "ACCOUNT": "Project that the hours are booked on (bsub -P), if your site wants one.",
        "LOG_FILE": "iscale-cpu-JOBID.log",
        "WALLTIME": "hours and minutes, such as '04:00'; keep the quotes.",
        "TIME": "04:00",
        "DIRECTIVE": '-R "select[type==X86_64]"',
        "GPU_DIRECTIVE": '-gpu "num=1:gmodel=NVIDIAA100"',
        "GPU_DEFAULT": '-gpu "num=1"',
        "MANAGED": "-J, -q, -P, -n, -R span and rusage, -M, -W, -o and -rn",
        "OWN_KEYS": """
# The unit in which your LSF reads -M and rusage: KB, MB or GB. Ask your admins, or look for LSF_UNIT_FOR_LIMITS in
# lsf.conf: without such a line it is KB.
memory_unit: MB

# How memory is reserved (bsub -R rusage): job (the figure is the job's, LSF's default), core (your LSF multiplies it by
# the cores: RESOURCE_RESERVE_PER_TASK=Y in lsb.params), or no (only the limit -M is set).
reserve_memory: job
""",
    },
}
"""What differs between the batch systems."""

TEXT = """\
# Workers of iscale as jobs of {NAME}: `iscale run PROJECT --dask THIS_FILE`.
#
# Lines marked EDIT are to be looked at; all others may stay as they are, or be left out. A key that is left out, or
# empty, is at its default. `iscale run PROJECT --dask THIS_FILE --dry-run` prints the jobs and submits none.
#
# The program itself runs where you call it and submits the jobs; it needs little memory and must stay alive (tmux, or a
# job of its own). If it dies, its jobs end by themselves within minutes, and the same command continues.

scheduler: {LOWER}

# Network interface by which nodes and this machine reach each other, such as ib0 (`ip addr` lists them).
# Default: the one that leads out of the machine. Set it where workers do not find the scheduler.
interface:

# Folder for what the jobs print ({LOG_FILE}), on a file system that the nodes see.
# Default: beside the output of the run.
log_directory:

# Fast disk of a node, for a worker's small temporary files; variables such as $TMPDIR are those of the node.
# Default: the node's temporary folder. Nothing large is written there.
local_directory:

# Python that has iscale, as the nodes see it. Default: the one that submits, which is right where nodes share its file
# system.
python:

# Shell lines that every job runs before Python starts, one a line, after a dash.
environment:
#  - module load cuda
#  - export TMPDIR=/scratch/$USER
{OWN_KEYS}
# Jobs for most of the work. Cores, memory and workers are those of ONE job.
cpu:
  # {QUEUE}
  queue:                # EDIT
  # {ACCOUNT}
  account:              # EDIT
  # CPU cores of a job, all on one node.
  cores: 4
  # Processes that share the job: each computes one region at a time with cores / workers threads.
  workers: 4
  # Memory of a job; a worker may use its share, less {OVERHEAD} that the job itself takes. 4 GB per worker are plenty.
  memory: 16GB
  # How long a job may run: {WALLTIME}
  # Workers leave a little earlier by themselves, and new jobs take over: a run may take longer than a job.
  walltime: '{TIME}'    # EDIT
  # Most jobs at once. Fewer are started where there is less to do.
  jobs: 4               # EDIT
  # Further options of the batch system, one a line, each as on its command line.
  # Set by iscale, so not to be repeated: {MANAGED}.
  directives:
  #  - {DIRECTIVE}
  # Shell lines of these jobs only, after those above.
  environment:

# Jobs with a card, for the encoder's and the model's networks. Without this part they run in the cpu jobs.
# One job has one card and one worker: for more cards raise `jobs`. To use it, remove the `# ` before every line.
# gpu:
#   queue:              # EDIT
#   account:            # EDIT
#   cores: 4
#   workers: 1
#   gpus: 1
#   memory: 32GB
#   walltime: '{TIME}'  # EDIT
#   jobs: 1             # EDIT
#   # How a card is asked for, if not by {GPU_DEFAULT}; for instance: {GPU_DIRECTIVE}
#   gpu_directive:
#   directives:
#   environment:
"""


def template(scheduler: str) -> str:
    """A site's file that `iscale.batch.settings.read_site` reads as it is."""
    for name in get_args(SchedulerName):
        if name == scheduler:
            return TEXT.format(LOWER=name, OVERHEAD=format_bytes(JOB_OVERHEAD_BYTES), **WORDS[name])
    raise InputError(f"--scheduler {scheduler}: not known.", f"Known are: {', '.join(get_args(SchedulerName))}.")


def write_template(scheduler: str, path: Path) -> str:
    """Write the file where there is none, under a name that would be taken for one, and say what to do with it."""
    text, path = template(scheduler), path.expanduser()
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: --dask knows such files by their ending.", f"Name it {path.name}.yaml.")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is there already.", "Choose another name, or remove it.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose a folder that is there and yours."
        ) from error
    return (
        f"{path}: written. Look at the lines marked EDIT: queue, account, walltime and jobs, and remove the `# ` before"
        f" `gpu:` and below if there are cards.\nThen: iscale run PROJECT --dask {path} --dry-run"
    )

"""What a site's batch system is like: the YAML file that ``--dask FILE.yaml`` names, read and checked; jobs' times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iscale.engine.plan import BASELINE_BYTES, format_bytes, parse_bytes
from iscale.errors import InputError
from iscale.options import MemorySize, wanted

SHORTEST_S = 300
"""A job must be able to start, work for a while and leave before its end."""


def parse_walltime(text: str) -> int:
    """Seconds of HH:MM:SS, of D-HH:MM:SS (as SLURM writes days), or of HH:MM (LSF).

    A ValueError if it is none of these, or shorter than `SHORTEST_S`.

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
    Workers started together leave one after the other, or all would wait in the queue again at once: what comes is the
    mean lifetime, and by how much it is varied at random either way, in seconds; their sum is the walltime less the
    margin.

    >>> lifetime(300), lifetime(3600), lifetime(86400)
    ((210, 30), (3060, 180), (85500, 300))
    """
    margin = min(600, max(60, walltime_s // 10))
    stagger = margin // 2
    return walltime_s - margin - stagger, stagger


SchedulerName = Literal["slurm", "lsf"]
PoolName = Literal["cpu", "gpu"]

JOB_OVERHEAD_BYTES = 100 * 2**20
"""Memory of a job that no worker has: the process that starts and watches the workers (60 MB) and Python's tracker
of shared resources (12 MB), whatever the number of workers."""

TEXT_WANTED = {
    "memory": "write it with its unit, such as 16GB",
    "walltime": "put it in quotes, such as '12:00:00', or YAML makes one number of it",
}
"""What to do where a number was read."""


class _Keys(BaseModel):
    """Keys and values of the file; a key without a value is as good as none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None}


class Pool(_Keys):
    """Jobs of one kind: what each asks for, and how many there may be."""

    queue: str | None = Field(None, min_length=1)
    account: str | None = Field(None, min_length=1)
    cores: int = Field(ge=1)
    workers: int = Field(1, ge=1)
    memory: MemorySize
    gpus: int = Field(0, ge=0)
    gpu_directive: str | None = None
    walltime: str
    jobs: int = Field(ge=1)
    directives: list[str] = []
    environment: list[str] = []

    @field_validator("walltime")
    @classmethod
    def _walltime_is_a_time(cls, value: str) -> str:
        parse_walltime(value)
        return value

    @field_validator("queue", "account")
    @classmethod
    def _is_one_word(cls, value: str) -> str:
        if value.split() != [value] or '"' in value:
            raise ValueError("a name has no blanks and no quotes")
        return value

    @field_validator("directives", "gpu_directive")
    @classmethod
    def _directives_are_options(cls, value: list[str] | str) -> list[str] | str:
        for line in value if isinstance(value, list) else [value]:
            if not line.startswith("-") or "\n" in line:
                raise ValueError(f"{line!r} is not one option: write it as on the command line, from its dash on")
        return value

    @model_validator(mode="after")
    def _workers_share_a_job(self) -> Self:
        if self.workers > self.cores:
            raise ValueError(
                f"{self.workers} workers share {self.cores} cores: ask for a core per worker, or fewer workers"
            )
        if self.worker_bytes < BASELINE_BYTES:
            need = self.workers * BASELINE_BYTES + JOB_OVERHEAD_BYTES
            raise ValueError(
                f"memory {self.memory} leaves {format_bytes(max(0, self.worker_bytes))} to each of {self.workers} "
                f"workers, which take {format_bytes(BASELINE_BYTES)} before any work: ask for more than "
                f"{format_bytes(need)}, or for fewer workers"
            )
        return self

    @property
    def memory_bytes(self) -> int:
        """Memory of a job."""
        return parse_bytes(self.memory)

    @property
    def worker_bytes(self) -> int:
        """Memory that a worker may use: its share of the job's, less what the job itself takes."""
        return (self.memory_bytes - JOB_OVERHEAD_BYTES) // self.workers

    @property
    def threads(self) -> int:
        """Compute threads of a worker; Dask itself runs one task at a time on each."""
        return self.cores // self.workers

    @property
    def walltime_s(self) -> int:
        """Seconds that a job may run."""
        return parse_walltime(self.walltime)


MEMORY_OPTIONS = ("--mem", "--mem-per-cpu", "--mem-per-gpu")
"""How memory is asked for of SLURM: a job may have one of them."""


def memory_directives(pool: Pool) -> list[str]:
    """What a pool's own directives say on memory.

    >>> pool = {"cores": 4, "memory": "8GB", "walltime": "04:00:00", "jobs": 1, "directives": ["--mem-per-cpu=4G"]}
    >>> memory_directives(Pool.model_validate(pool))
    ['--mem-per-cpu=4G']
    """
    return [line for line in pool.directives if line.replace("=", " ").split()[0] in MEMORY_OPTIONS]


def _asked_bytes(directive: str, pool: Pool) -> int | None:
    """Memory of a job by a directive of SLURM; None where it does not say (0 is all of the node)."""
    found = re.fullmatch(r"(--[a-z-]+)[= ]\s*(\d+)([KMGT]?)B?", directive.strip(), re.IGNORECASE)
    if found is None or int(found[2]) == 0:
        return None
    times = {"--mem": 1, "--mem-per-cpu": pool.cores, "--mem-per-gpu": max(1, pool.gpus)}[found[1]]
    unit: int = 1024 ** ("KMGT".index((found[3] or "M").upper()) + 1)
    return int(found[2]) * unit * times


class Site(_Keys):
    """A batch system: which one, what its nodes need, and the pools of jobs."""

    scheduler: SchedulerName
    interface: str | None = Field(None, min_length=1)
    log_directory: Path | None = Field(None, strict=False)
    local_directory: str | None = Field(None, min_length=1)
    python: str | None = Field(None, min_length=1)
    environment: list[str] = []
    memory_unit: Literal["KB", "MB", "GB"] = "MB"
    reserve_memory: Literal["job", "core", "no"] = "job"
    cpu: Pool
    gpu: Pool | None = None

    @field_validator("log_directory", mode="before")
    @classmethod
    def _path_is_text(cls, value: Any) -> Any:
        if not isinstance(value, str | Path):
            raise ValueError("not a path: put it in quotes")
        return value

    @model_validator(mode="after")
    def _pools_are_what_they_are_called(self) -> Self:
        if self.cpu.gpus:
            raise ValueError(f"cpu.gpus = {self.cpu.gpus}: jobs with a card are described under gpu:, cpu has none")
        if self.gpu is not None and (self.gpu.gpus, self.gpu.workers) != (1, 1):
            raise ValueError(
                f"gpu.gpus = {self.gpu.gpus}, gpu.workers = {self.gpu.workers}: a worker drives one card, and a job "
                "holds one worker: write gpus: 1 and workers: 1; for more cards raise gpu.jobs"
            )
        return self

    @model_validator(mode="after")
    def _slurm_gives_what_workers_use(self) -> Self:
        for name in ("cpu", "gpu"):
            pool = getattr(self, name)
            if self.scheduler != "slurm" or pool is None:
                continue
            for directive in memory_directives(pool):
                asked = _asked_bytes(directive, pool)
                if asked is not None and asked < pool.memory_bytes:
                    raise ValueError(
                        f"{name}.directives: {directive} gives a job {format_bytes(asked)}, {name}.memory = "
                        f"{pool.memory} is what its workers use: write the same in both"
                    )
        return self

    @model_validator(mode="after")
    def _slurm_needs_all_of_a_walltime(self) -> Self:
        for name in ("cpu", "gpu"):
            pool = getattr(self, name)
            if self.scheduler == "slurm" and pool is not None and not has_seconds(pool.walltime):
                raise ValueError(
                    f"{name}.walltime = {pool.walltime!r}: SLURM would read minutes and seconds: "
                    f"write hours, minutes and seconds, such as '{pool.walltime}:00'"
                )
        return self

    def pool(self, name: PoolName) -> Pool:
        """A pool by its name; one that the file does not describe is refused."""
        pool = self.cpu if name == "cpu" else self.gpu
        if pool is None:
            raise InputError(f"The site's file describes no {name} pool.", f"Write one under `{name}:`.")
        return pool


def read_site(path: Path) -> Site:
    """Read and check the file; of keys and values that cannot be used, all are told at once."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}.", "`iscale init --scheduler slurm FILE.yaml` (or lsf) writes one."
        ) from error
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file.", "Write it as plain UTF-8 text.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {_where(error)}.", "Mend it there; indent with spaces.") from error
    except ValueError as error:  # such as a date that is none
        raise InputError(f"{path}: not valid YAML: {error}.", "Put the value in quotes.") from error
    if not isinstance(content, dict):
        what = "nothing" if content is None else repr(content)[:60]
        raise InputError(
            f"{path} holds {what}, not keys and values.",
            "`iscale init --scheduler slurm FILE.yaml` writes one that does.",
        )
    try:
        return Site.model_validate(content)
    except ValidationError as error:
        raise InputError(
            "\n".join(_explain(path, item) for item in error.errors()),
            "What `iscale init --scheduler slurm NEW.yaml` (or lsf) writes explains every key.",
        ) from error


def _where(error: yaml.YAMLError) -> str:
    """Line, column and what is wrong there, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _explain(path: Path, item: Any) -> str:
    """One wrong key or value: file, key, value, and what is wrong with it or to be done."""
    location = [str(part) for part in item["loc"]]
    key, kind = ".".join(location), item["type"]
    if kind == "missing":
        return f"{path}: {key} is missing."
    if kind == "extra_forbidden":
        model = Pool if location[0] in get_args(PoolName) and len(location) > 1 else Site
        return f"{path}: {key} = {_shown(item['input'])}: no such key; there are {', '.join(model.model_fields)}."
    what = item["msg"].removeprefix("Value error, ")
    if kind == "string_type":
        what = TEXT_WANTED.get(location[-1], "must be text: put it in quotes")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        what = "must be keys and values, each on a line, indented"
    if kind == "list_type":
        what = "must be a list: one entry a line, after a dash"
    if what.startswith("Input should"):
        what = f"give {_wanted(location)}"
    if (isinstance(item["input"], dict) and kind != "string_type") or not location:
        return f"{path}: {key + ': ' if key else ''}{what}."
    return f"{path}: {key} = {_shown(item['input'])}: {what}."


def _wanted(location: list[str]) -> str:
    """Values that a key takes."""
    within = Pool if location[0] in get_args(PoolName) and len(location) > 1 else Site
    return wanted(within, next(part for part in reversed(location) if part in within.model_fields))


def _shown(value: Any) -> str:
    return repr(value)[:60]

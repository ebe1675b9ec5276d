"""Plans: which regions a step works through, and the memory that each of them will need.

Pure arithmetic: no store, no dask, no torch. A step's output is a two-dimensional grid (pixels of a pyramid level, or
superpixels) cut into write shards; a region is a block of whole shards, owned by one task.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from iscale.errors import MemoryBudgetError
from iscale.geometry import Region

BASELINE_BYTES = 600 * 2**20
"""A worker before any task: interpreter, torch, zarr, codecs (workers in ``make bench-memory``
peak at 640 to 670 MB with their tasks)."""

TASKS_PER_WORKER = 32
"""Every worker gets at least this many regions where there are shards enough: progress shows, little is lost with a
task, and no worker waits long for the last."""

MAX_SHARDS_PER_SIDE = 4
"""Beyond this a larger region saves next to no halo and makes a lost task dearer."""

MAX_OVERLAPPING_SHARDS = 3
"""The same for costly work, a region of which takes minutes."""


@dataclass(frozen=True)
class Resources:
    """What a run may use.

    Attributes
    ----------
    memory_bytes
        Budget of one worker, its baseline included.
    workers
        Workers that share the regions.
    shards_per_side
        Use regions of this many shards per axis instead of choosing.
    more
        How the user gives a worker more memory, ``{}`` standing for how much.
    """

    memory_bytes: int
    workers: int = 1
    shards_per_side: int | None = None
    more: str = "--memory {}"


@dataclass(frozen=True)
class Plan:
    """The regions of one step.

    Attributes
    ----------
    shape, shard
        Rows and columns of the output grid, and of one of its write shards.
    regions
        Blocks of whole shards that tile the grid.
    task_bytes
        Projected peak of one task, without the worker's own ``BASELINE_BYTES``.
    """

    shape: tuple[int, int]
    shard: tuple[int, int]
    regions: tuple[Region, ...]
    task_bytes: int

    @property
    def worker_bytes(self) -> int:
        """Projected peak of a worker that runs this plan."""
        return BASELINE_BYTES + self.task_bytes

    def shards_of(self, region: Region) -> Iterator[tuple[int, int]]:
        """Row and column of every shard that a region owns."""
        for i in range(region.y0 // self.shard[0], -(-region.y1 // self.shard[0])):
            for j in range(region.x0 // self.shard[1], -(-region.x1 // self.shard[1])):
                yield i, j


def cut(shape: tuple[int, int], shard: tuple[int, int], shards: tuple[int, int]) -> tuple[Region, ...]:
    """Tile a grid with regions of ``shards`` shards per axis; those at the end may be smaller.

    >>> [str(r) for r in cut((5, 8), (2, 4), (2, 1))]
    ['y 0:4, x 0:4', 'y 0:4, x 4:8', 'y 4:5, x 0:4', 'y 4:5, x 4:8']
    """
    (h, w), step_y, step_x = shape, shard[0] * shards[0], shard[1] * shards[1]
    return tuple(
        Region(y, min(y + step_y, h), x, min(x + step_x, w)) for y in range(0, h, step_y) for x in range(0, w, step_x)
    )


def plan_regions(
    step: str,
    shape: tuple[int, int],
    shard: tuple[int, int],
    bytes_of: Callable[[tuple[int, int]], int],
    resources: Resources,
) -> Plan:
    """Choose the largest regions that fit the memory and still give every worker enough of them.

    Parameters
    ----------
    step
        Name of the step, for the error.
    shape, shard
        Rows and columns of the output grid and of a write shard.
    bytes_of
        Projected peak bytes of a task whose region has the given rows and columns.
    resources
        What the run may use.

    Raises
    ------
    MemoryBudgetError
        If the chosen (or even the smallest) region is over the budget.

    Examples
    --------
    >>> plan = plan_regions("t", (640, 640), (128, 128), lambda s: 1000 * s[0] * s[1], Resources(2**30))
    >>> len(plan.regions), plan.task_bytes
    (25, 16384000)
    """

    def peak(side: int) -> int:
        return bytes_of((min(side * shard[0], shape[0]), min(side * shard[1], shape[1])))

    if resources.shards_per_side is not None:
        side = resources.shards_per_side
    else:
        side, shards = 1, len(cut(shape, shard, (1, 1)))
        for larger in range(2, MAX_SHARDS_PER_SIDE + 1):
            enough = shards >= larger**2 * TASKS_PER_WORKER * resources.workers
            if enough and BASELINE_BYTES + peak(larger) <= resources.memory_bytes:
                side = larger
    plan = Plan(shape, shard, cut(shape, shard, (side, side)), peak(side))
    check_budget(step, plan, resources)
    return plan


def plan_overlapping(
    step: str,
    shape: tuple[int, int],
    shard: tuple[int, int],
    bytes_of: Callable[[tuple[int, int]], int],
    work_of: Callable[[Region], float],
    resources: Resources,
) -> Plan:
    """Choose regions for work that neighbouring regions share, and each does anew: those with which all is done first.

    Larger regions do less twice, smaller ones are shared more evenly between workers. ``work_of`` says what a region
    costs, in any unit; all else is as for `plan_regions`.

    >>> work = lambda r: (r.shape[0] + 12) * (r.shape[1] + 12)
    >>> plans = [plan_overlapping("t", (384, 384), (128, 128), lambda s: 1, work, Resources(2**30, n)) for n in (1, 9)]
    >>> [len(plan.regions) for plan in plans]
    [1, 9]
    """

    def plan(regions: tuple[Region, ...]) -> Plan:
        largest = max(region.shape[0] for region in regions), max(region.shape[1] for region in regions)
        return Plan(shape, shard, regions, bytes_of(largest))

    if resources.shards_per_side is not None:
        chosen = plan(cut(shape, shard, (resources.shards_per_side, resources.shards_per_side)))
    else:
        sides = range(1, MAX_OVERLAPPING_SHARDS + 1)
        plans = [plan(cut_evenly(shape, shard, (rows, columns))) for rows in sides for columns in sides]
        affordable = [p for p in plans if p.worker_bytes <= resources.memory_bytes] or plans[:1]
        chosen = min(affordable, key=lambda p: makespan([work_of(region) for region in p.regions], resources.workers))
    check_budget(step, chosen, resources)
    return chosen


def cut_evenly(shape: tuple[int, int], shard: tuple[int, int], most: tuple[int, int]) -> tuple[Region, ...]:
    """Tile a grid with as few regions of at most ``most`` shards per axis as will do, as equal as whole shards allow.

    >>> [str(r) for r in cut_evenly((4, 40), (4, 4), (1, 4))]
    ['y 0:4, x 0:16', 'y 0:4, x 16:28', 'y 0:4, x 28:40']
    """

    def parts(axis: int) -> list[tuple[int, int]]:
        n, side = shape[axis], shard[axis]
        shards = -(-n // side)
        count = -(-shards // most[axis])
        bounds = [min(n, side * -(-shards * i // count)) for i in range(count + 1)]
        return list(pairwise(bounds))

    return tuple(Region(*y, *x) for y in parts(0) for x in parts(1))


def makespan(works: list[float], workers: int) -> float:
    """When workers are through that take the largest work left whenever they are free.

    >>> makespan([3, 3, 2, 2], 2), makespan([3, 3, 2, 2], 1)
    (5.0, 10.0)
    """
    loads = [0.0] * workers
    for work in sorted(works, reverse=True):
        heapq.heapreplace(loads, loads[0] + work)
    return max(loads)


def single_task(step: str, task_bytes: int, resources: Resources) -> Plan:
    """A plan of one task, for work that is not cut into regions.

    >>> len(single_task("fit", 10, Resources(2**30)).regions)
    1
    """
    plan = Plan((1, 1), (1, 1), (Region(0, 1, 0, 1),), task_bytes)
    check_budget(step, plan, resources)
    return plan


def plan_rows(step: str, rows: int, at_once: int, task_bytes: int, resources: Resources) -> Plan:
    """A plan over the rows of a table, so many of them to a task.

    >>> [str(region) for region in plan_rows("draw", 5, 4, 10, Resources(2**30)).regions]
    ['y 0:4, x 0:1', 'y 4:5, x 0:1']
    """
    shape, shard = (rows, 1), (at_once, 1)
    plan = Plan(shape, shard, cut(shape, shard, (1, 1)), task_bytes)
    check_budget(step, plan, resources)
    return plan


def check_budget(step: str, plan: Plan, resources: Resources) -> None:
    """Fail before any work if a plan does not fit its budget."""
    if plan.worker_bytes <= resources.memory_bytes:
        return
    needs = (
        f"{step} needs {format_bytes(plan.worker_bytes)} per worker ({format_bytes(BASELINE_BYTES)} for the program, "
        f"{format_bytes(plan.task_bytes)} for a region of {plan.regions[0].shape[0]} x {plan.regions[0].shape[1]})"
    )
    error = MemoryBudgetError(
        f"{needs}, the budget is {format_bytes(resources.memory_bytes)}.",
        f"Give it more: {resources.more.format(size_like('2GB', plan.worker_bytes))}.",
    )
    error.needs, error.needed_bytes = needs, plan.worker_bytes
    raise error


def parse_bytes(text: str) -> int:
    """Bytes of a size with its unit.

    >>> parse_bytes("2GB"), parse_bytes("512 MiB"), parse_bytes("1.5g")
    (2000000000, 536870912, 1500000000)
    """
    units = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
    body = text.strip().lower().removesuffix("b")
    base = body.removesuffix("i")
    number, unit = base.rstrip("kmgt"), base[len(base.rstrip("kmgt")) :]
    if unit not in units:
        raise ValueError(text)
    factor = units[unit]
    if body.endswith("i"):
        factor = 1024 ** (len("kmgt".partition(unit)[0]) + 1)
    value = float(number) * factor
    if not 0 < value < 2**60:
        raise ValueError(text)
    return int(value)


def size_like(given: str, n: int, *, down: bool = False) -> str:
    """A size in the unit in which another one was given: a tenth of it where that is large, rounded up or down.

    >>> size_like("2GB", 1_530_000_000), size_like("500 MB", 1_530_000_001), size_like("2GB", 1_580_000_000, down=True)
    ('1.6GB', '1531MB', '1.5GB')
    """
    unit = given.strip().lstrip("0123456789. ")
    bytes_of_unit = parse_bytes(f"1{unit}")
    step = max(1, bytes_of_unit // 10) if bytes_of_unit >= 10**9 else bytes_of_unit
    steps = n // step if down else -(-n // step)
    return f"{steps * step / bytes_of_unit:.{int(step < bytes_of_unit)}f}{unit}"


def format_bytes(n: float) -> str:
    """A size for people.

    >>> format_bytes(1536000000), format_bytes(700)
    ('1.54 GB', '700 B')
    """
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"

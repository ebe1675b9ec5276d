"""Stages of a run on a cluster, each bound by one of three: its workers, the hand-out of regions, the store.

`benchmarks.scaling` prints what comes out. A stage ends when the slowest of the three is through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.features import PATCH_OPERATIONS
from benchmarks.rates import Rates
from benchmarks.workload import Slide, finished, patches, shards, tissue_of
from iscale.store.layout import MASK_SHARD_SUPERPIXELS

HIPT_BYTES = 2 * (384 + 3 + 192 / 16) + 4 * 384 / 16
"""HIPT's features of a superpixel as stored (`iscale.store.layout`), with the vectors of 16 shifts; not compressed."""

HALO_READ = 1.3
"""Pixels that an encoder reads over those of its regions."""


@dataclass(frozen=True)
class Assumptions:
    """What was not measured here.

    Attributes
    ----------
    bandwidth
        Bytes per second of the file system, shared by all workers.
    slide_bytes
        Of the slide file, per pixel.
    lifetime_s, start_s
        After which workers are replaced, and what a new one, and the run itself, takes to be there; half a region is
        lost with each.
    gpu_hour, core_hour
        Prices.
    cores_per_gpu
        Single-threaded CPU workers beside every card, in a pool of their own.
    """

    bandwidth: float = 2e9
    slide_bytes: float = 0.5
    lifetime_s: float = 3.5 * 3600
    start_s: float = 60.0
    gpu_hour: float = 2.5
    core_hour: float = 0.04
    cores_per_gpu: int = 8


@dataclass(frozen=True)
class Card:
    """What computes patches: operations per second that its maker publishes, and the share of them that is reached."""

    name: str
    peak: float
    share: float = 1.0


@dataclass(frozen=True)
class Stage:
    """What a stage takes.

    Attributes
    ----------
    name, workers, on_cards
        Who works, and whether on cards.
    work
        Seconds of all regions together, on one worker.
    computing, handing, storing
        Seconds until all regions are computed, are handed out, and all bytes are through the file system.
    """

    name: str
    workers: int
    on_cards: bool
    work: float
    computing: float
    handing: float
    storing: float

    @property
    def seconds(self) -> float:
        """Until the stage is over."""
        return max(self.computing, self.handing, self.storing)

    @property
    def bound(self) -> str:
        """What it waits for."""
        names = {"workers": self.computing, "hand-out of regions": self.handing, "store": self.storing}
        return max(names, key=lambda name: names[name])


def stage(
    name: str, works: Sequence[float], workers: int, moved: float, rates: Rates, given: Assumptions, cards: bool = False
) -> Stage:
    """A stage of regions that take so many seconds each, and move so many bytes together."""
    region = sum(works) / len(works)
    lost = 1 + (region / 2 + given.start_s) / given.lifetime_s
    computing = finished(works, workers) * lost
    return Stage(name, workers, cards, sum(works), computing, len(works) / rates.tasks, moved / given.bandwidth)


def common(slide: Slide, cores: int, feature_bytes: float, rates: Rates, given: Assumptions) -> list[Stage]:
    """The stages that do not depend on the encoder, but for the bytes of its features."""
    plan, masks = shards(slide, cores), shards(slide, cores, MASK_SHARD_SUPERPIXELS).regions
    pixels, tissue = float(slide.side) ** 2, tissue_of(slide, plan)
    superpixels = sum(tissue)
    image = superpixels * rates.image_bytes
    share = [region.area * 256.0 for region in plan.regions]
    per_superpixel = rates.predict + rates.predict_gene * slide.genes
    expression = superpixels * rates.gene_bytes * slide.genes
    features = superpixels * feature_bytes

    def cpu(name: str, works: Sequence[float], moved: float, workers: int = cores) -> Stage:
        return stage(name, works, workers, moved, rates, given)

    # The pyramid's coarser levels have a third as many regions again; their time is in the rate.
    return [
        cpu("start", [given.start_s], 0.0, 1),
        cpu(
            "ingest", [rates.ingest * n for n in share] + [0.0] * (len(share) // 3), pixels * given.slide_bytes + image
        ),
        cpu("tissue", [rates.tissue * region.area * 256.0 for region in masks], image / 64),
        cpu("fit", [rates.fit], 0.0, 1),
        cpu("predict", [per_superpixel * n for n in tissue], features + expression),
        cpu("plot", [rates.plot], 0.0, 1),
    ]


def texture_run(slide: Slide, cores: int, rates: Rates, given: Assumptions) -> list[Stage]:
    """All stages with the texture encoder, on single-threaded CPU workers."""
    plan = shards(slide, cores)
    tissue = tissue_of(slide, plan)
    moved = sum(tissue) * (HALO_READ * rates.image_bytes + rates.texture_bytes)
    features = stage("features", [rates.texture * n for n in tissue], cores, moved, rates, given)
    return _in_order(common(slide, cores, rates.texture_bytes, rates, given), features)


def hipt_run(
    slide: Slide, gpus: int, shifts: int, card: Card, feeding: float, rates: Rates, given: Assumptions
) -> list[Stage]:
    """All stages with HIPT: features on cards, one worker on each, all else on the CPU workers beside them.

    A patch costs its operations over the card's rate and what the process beside the card does for it, one after the
    other, as if nothing overlapped.
    """
    per_patch = PATCH_OPERATIONS * (1 + rates.context) / (card.peak * card.share) + feeding
    return _hipt(slide, (gpus, gpus * given.cores_per_gpu), shifts, per_patch, rates, given, cards=True)


def hipt_on_cores(slide: Slide, cores: int, shifts: int, rate: float, rates: Rates, given: Assumptions) -> list[Stage]:
    """All stages with HIPT on CPU workers, ``rate`` patches per second on each."""
    return _hipt(slide, (cores, cores), shifts, (1 + rates.context) / rate, rates, given, cards=False)


def _hipt(
    slide: Slide,
    workers: tuple[int, int],
    shifts: int,
    per_patch: float,
    rates: Rates,
    given: Assumptions,
    *,
    cards: bool,
) -> list[Stage]:
    """Features on the first number of workers, all else on the second."""
    works = [per_patch * count for count in patches(slide, shifts, workers[0])]
    moved = slide.superpixels * (HALO_READ * rates.image_bytes + HIPT_BYTES)
    features = stage("features", works, workers[0], moved, rates, given, cards=cards)
    return _in_order(common(slide, workers[1], HIPT_BYTES, rates, given), features)


def _in_order(stages: list[Stage], features: Stage) -> list[Stage]:
    return [*stages[:3], features, *stages[3:]]


def seconds(stages: list[Stage]) -> float:
    """Of a run, stage after stage."""
    return sum(stage.seconds for stage in stages)


def cost(stages: list[Stage], given: Assumptions) -> float:
    """Workers are paid for while their stage lasts; those of other stages are not there."""
    price = {True: given.gpu_hour, False: given.core_hour}
    return sum(stage.workers * stage.seconds / 3600 * price[stage.on_cards] for stage in stages)

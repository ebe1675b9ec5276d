"""The tables of ``docs/concepts/scaling.md``: what a slide of 100,000 px takes on cluster sizes that were not at hand.

``make bench-scaling``. Rates of the CPU stages come from the tables of ``docs/benchmarks.md``, regions from the
program's own planner. Cards (`CARDS`, `SHARES`), prices and the file system are assumptions, most of them options.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.features import PATCH_OPERATIONS
from benchmarks.feeding import seconds_per_patch
from benchmarks.rates import Rates, measured
from benchmarks.report import publish, table
from benchmarks.study import Assumptions, Card, Stage, cost, hipt_on_cores, hipt_run, seconds, texture_run
from benchmarks.workload import Slide, cells, finished, patches, patches_on_tissue, shards
from iscale.engine.plan import format_bytes

PAGE = Path(__file__).parent.parent / "docs" / "concepts" / "scaling.md"

CARDS = (
    Card("A100, float32", 19.5e12),
    Card("A100, bfloat16", 312e12),
    Card("H100, float32", 67e12),
    Card("H100, bfloat16", 989e12),
)
"""Operations per second as NVIDIA publishes them for the SXM cards, without sparsity."""

SHARES = (0.4, 0.8)
"""Of a card's published rate that ViT-256 may reach: least and most."""

SIZES = (8, 64)
MANY = 1000


def hours(value: float) -> str:
    """Seconds for people.

    >>> hours(42), hours(600), hours(7200)
    ('42 s', '10 min', '2.0 h')
    """
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def between(values: list[float], said: str = "") -> str:
    """Least and most of some seconds or sums of money."""
    told = [
        (f"{value:,.0f}" if value >= 100 else f"{value:.2f}") if said else hours(value)
        for value in (min(values), max(values))
    ]
    return told[0] if told[0] == told[1] else f"{told[0]} to {told[1]}"


def work_table(slide: Slide, gpus: tuple[int, ...]) -> str:
    """What there is to do."""
    rows = []
    for shifts in (16, 4, 1):
        once = patches_on_tissue(slide, shifts)
        row = [str(shifts), f"{once:,}", f"{once * PATCH_OPERATIONS / 1e15:.1f}"]
        for n in gpus:
            regions = patches(slide, shifts, n)
            wait = finished(regions, n) * n / sum(regions)
            row.append(f"{len(regions)}: +{sum(regions) / once - 1:.0%}, x {wait:.2f}")
        rows.append(row)
    head = ["shifts", "patches on tissue", "10^15 operations"]
    head += [f"{n} {'GPUs' if n > 1 else 'GPU'}: regions, patches done twice, last worker" for n in gpus]
    return table(head, rows)


def rates_table(rates: Rates, feeding: float) -> str:
    """What a core does."""
    scale, workers, features = "`make bench-scale`", "`make bench-workers`", "`make bench-features`"
    per_core = " and ".join(f"{rate:.1f}" for rate in rates.patches)
    reached = " and ".join(f"{share:.2f}" for share in rates.matmul)
    rows = [
        ["ingest, px/s and core", f"{1 / rates.ingest / 1e6:.1f} million", scale],
        ["texture, superpixels of tissue/s and core", f"{1 / rates.texture:,.0f}", scale],
        [
            "predict, s and core per million superpixels",
            f"{1e6 * rates.predict:.1f} + {1e6 * rates.predict_gene:.4f} per gene",
            f"{scale} (few genes), {workers} (many)",
        ],
        ["HIPT on a CPU, patches/s and core, float32 and bfloat16", per_core, features],
        ["the same, of the matrix products' rate", reached, features],
        ["ViT-4K over ViT-256, in time", f"{rates.context:.3f}", features],
        ["work beside the network, ms per patch", f"{1e3 * feeding:.2f}", "`python -m benchmarks.feeding`"],
        ["regions handed out per s", f"{rates.tasks:.0f}", "`make bench-scheduler`"],
        [
            "on disk per superpixel of tissue, bytes: image, texture, each gene",
            f"{rates.image_bytes:.0f}, {rates.texture_bytes:.0f}, {rates.gene_bytes:.1f}",
            scale,
        ],
    ]
    return table(["rate", "measured", "by"], rows)


def runs(slide: Slide, gpus: int, card: Card, feeding: float, rates: Rates, given: Assumptions) -> list[list[Stage]]:
    """The run at both ends of what a card may reach."""
    return [hipt_run(slide, gpus, 16, replace(card, share=share), feeding, rates, given) for share in SHARES]


def slide_table(slide: Slide, feeding: float, rates: Rates, given: Assumptions) -> str:
    """One slide on every cluster."""
    rows = []
    for size in SIZES:
        cores = size * given.cores_per_gpu
        rows.append(_slide_row("texture", f"{cores} cores", [texture_run(slide, cores, rates, given)], given))
        for precision, rate in zip(("float32", "bfloat16"), rates.patches, strict=True):
            found = [hipt_on_cores(slide, cores, 16, rate, rates, given)]
            rows.append(_slide_row(f"HIPT, {precision}", f"{cores} cores", found, given))
        for card in CARDS:
            found = runs(slide, size, card, feeding, rates, given)
            rows.append(_slide_row(f"HIPT, {card.name}", f"{size} GPUs, {cores} cores", found, given))
    return table(["encoder", "cluster", "features", "predict", "all", "GPU-hours", "cost"], rows)


def _slide_row(encoder: str, cluster: str, found: list[list[Stage]], given: Assumptions) -> list[str]:
    by_name = [{stage.name: stage for stage in run} for run in found]
    cards = [sum(stage.workers * stage.seconds for stage in run if stage.on_cards) / 3600 for run in found]
    return [
        encoder,
        cluster,
        between([run["features"].seconds for run in by_name]),
        between([run["predict"].seconds for run in by_name]),
        between([seconds(run) for run in found]),
        between(cards, "hours") if max(cards) else "",
        between([cost(run, given) for run in found], "money"),
    ]


def many_table(slide: Slide, feeding: float, rates: Rates, given: Assumptions) -> str:
    """A thousand slides: one after the other on all workers, or a slide on each card with its cores."""
    rows = []
    for size in SIZES:
        cores = size * given.cores_per_gpu
        own = given.cores_per_gpu
        share = replace(given, bandwidth=given.bandwidth / size)
        turns = math.ceil(MANY / size)
        together = [MANY * seconds(texture_run(slide, cores, rates, given))]
        apart = [turns * seconds(texture_run(slide, own, rates, share))]
        paid = [MANY * cost(texture_run(slide, own, rates, share), given)]
        rows.append(["texture", f"{cores} cores", between(together), between(apart), between(paid, "money")])
        for card in CARDS:
            together = [MANY * seconds(run) for run in runs(slide, size, card, feeding, rates, given)]
            alone = runs(slide, 1, card, feeding, rates, share)
            apart = [turns * seconds(run) for run in alone]
            paid = [MANY * cost(run, given) for run in alone]
            clusters = f"{size} GPUs, {cores} cores"
            rows.append([f"HIPT, {card.name}", clusters, between(together), between(apart), between(paid, "money")])
    head = [
        "encoder",
        "cluster",
        "one after the other, on all",
        f"at once, {given.cores_per_gpu} cores (and a GPU) each",
    ]
    return table([*head, "cost of the latter"], rows)


def bottleneck_table(slide: Slide, feeding: float, rates: Rates, given: Assumptions) -> str:
    """What each stage waits for, HIPT in bfloat16 on A100 cards at the lower share."""
    rows = []
    for size in SIZES:
        for stage in runs(slide, size, CARDS[1], feeding, rates, given)[0]:
            limits = [f"{value:,.0f}" for value in (stage.work, stage.computing, stage.handing, stage.storing)]
            who = f"{stage.workers} {'GPUs' if stage.on_cards else 'cores' if stage.workers > 1 else 'core'}"
            rows.append([f"{size} GPUs: {stage.name}", who, *limits, stage.bound])
    head = ["stage", "workers", "work, s of one", "workers, s", "hand-out, s", "store, s", "waits for"]
    return table(head, rows)


def patch_table(feeding: float, rates: Rates) -> str:
    """A patch on a card, and beside it."""
    rows = []
    for card in CARDS:
        on_card = [PATCH_OPERATIONS * (1 + rates.context) / (card.peak * share) for share in SHARES]
        told = [f"{1e3 * s:.3f}" for s in (min(on_card), max(on_card), feeding)]
        rows.append(
            [
                card.name,
                f"{told[0]} to {told[1]}",
                told[2],
                f"{feeding / max(on_card):.1f} to {feeding / min(on_card):.1f}",
            ]
        )
    return table(["card", "network, ms per patch", "beside it, ms", "beside it over network"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for field in (*fields(Slide), *fields(Assumptions)):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    parser.add_argument("--no-publish", action="store_true")
    options = vars(parser.parse_args())
    slide = Slide(**{field.name: options[field.name] for field in fields(Slide)})
    given = Assumptions(**{field.name: options[field.name] for field in fields(Assumptions)})
    rates, feeding = measured(), seconds_per_patch()
    superpixels = slide.superpixels
    stored = format_bytes(superpixels * slide.genes * rates.gene_bytes)
    about = (
        f"{slide.side:,} x {slide.side:,} px, {cells(slide).mean():.0%} tissue in blobs, {superpixels / 1e6:.1f} "
        f"million superpixels of it; {slide.genes:,} genes, {stored} of expression on disk; stages on CPUs have "
        f"{len(shards(slide, 8).regions)} regions for 8 workers, {len(shards(slide, 512).regions)} for 512.\n\n"
    )
    texts = {
        "work": about + work_table(slide, (1, *SIZES)),
        "rates": rates_table(rates, feeding),
        "patch": patch_table(feeding, rates),
        "slide": slide_table(slide, feeding, rates, given),
        "many": many_table(slide, feeding, rates, given),
        "bottleneck": bottleneck_table(slide, feeding, rates, given),
    }
    for name, text in texts.items():
        if options["no_publish"]:
            print(f"{name}\n\n{text}\n")
        else:
            publish(name, text, PAGE)


if __name__ == "__main__":
    main()

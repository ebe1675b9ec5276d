"""What a run will need, and whether the machine has it: memory, disk, device, weights, hours."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil

from iscale.check.finding import Finding
from iscale.encoders import get_encoder
from iscale.encoders.base import PatchEncoder, StoredFeatures
from iscale.encoders.checkpoint import file_sha256
from iscale.encoders.weights import CONVERTED_SUFFIX, NETWORKS, PUBLISHED_SUFFIX, WEIGHT_FILES
from iscale.engine.machine import all_cores, available_cores, has_card, here
from iscale.engine.plan import format_bytes
from iscale.errors import MemoryBudgetError
from iscale.options import Options
from iscale.plan.job import Job
from iscale.plan.steps import COMPRESSION, planned
from iscale.slide.base import file_fingerprint
from iscale.stages import LAST, stages
from iscale.words import plural

HASHED_BYTES = 2 << 30
"""A larger weight file is told by samples of it: hashing all of it would take longer than the check."""

REFERENCE_RATE = 171e9
"""Products per second of the machine that docs/benchmarks.md was written on; times scale with it."""

IMAGE_S, TEXTURE_S = 0.05e-6, 0.52e-6
"""Seconds there: per pixel for ingest, tissue and plots, per pixel of tissue for texture and prediction (Memory)."""

PATCH_TOKENS = 257
EFFICIENCY = 0.8
"""Share of the rate that encoders of patches reach (HIPT features)."""

DEFAULT_FIT_S, PUBLISHED_FIT_S, FIT_SPOTS = 3.1, 1474.0, 347
"""Seconds there to train on so many spots (Fit)."""


def device_findings(options: Options) -> tuple[list[Finding], str]:
    """Whether the device that the options ask for is there, and which there is."""
    if options.dask not in (None, "local"):
        return [], f"--device {options.device}: each worker looks for its own"
    found = has_card()
    said = f"GPU: {_card_name()}" if found else "no GPU found"
    if not options.device.startswith("cuda") or found:
        used = "cpu" if options.device == "cpu" or not found else options.device
        return (
            [],
            f"{said}; {available_cores()} cores; --device {options.device} uses {'cuda' if used == 'auto' else used}",
        )
    message = f"--device {options.device}: torch sees no CUDA device here."
    remedy = "Use --device cpu or auto, or a machine with a GPU and a torch that was built for it."
    return [Finding("gpu-missing", message, remedy)], f"{said}; {available_cores()} cores"


def _card_name() -> str:
    import torch

    return torch.cuda.get_device_name(0)


def plan_findings(job: Job) -> tuple[list[Finding], dict[str, str]]:
    """Plan the whole run, and hold what it needs against the machine: findings, and facts."""
    try:
        plan = planned(job, stages()[LAST])
    except MemoryBudgetError as error:
        return [Finding("memory-short", error.problem, error.remedy)], {}
    peak = max(step.plan.worker_bytes for step in plan)
    disk = sum(step.disk_bytes for step in plan)
    workers = job.workers.cpu.workers
    memory, free_disk = psutil.virtual_memory().available, _free_disk(job.store.folder)
    facts = {
        "memory": f"up to {format_bytes(peak)} of {job.workers.budget(job.options)}, "
        f"{plural(workers, 'worker')}; {format_bytes(memory)} free",
        "disk": f"up to {format_bytes(disk)} before compression; {format_bytes(free_disk)} free",
    }
    findings = []
    folder = _existing(job.store.folder)
    if not os.access(folder, os.W_OK | os.X_OK) or not shutil.disk_usage(folder).total:
        message = f"{job.store.folder} cannot be made: {folder} is not writable."
        findings.append(Finding("out-not-writable", message, "Name another folder with --out."))
        return findings, facts
    if peak * workers > memory and job.options.dask in (None, "local"):
        message = f"{workers} x {format_bytes(peak)} of memory will be needed, {format_bytes(memory)} are free."
        findings.append(Finding("memory-short", message, "Use fewer --workers, less --memory, or another machine."))
    if free_disk < disk / COMPRESSION:
        message = f"{format_bytes(free_disk)} of disk are free, the run needs up to {format_bytes(disk)}."
        remedy = "Make room, choose another folder with --out, or impute fewer genes (--n-genes)."
        findings.append(Finding("disk-short", message, remedy))
    return findings, facts


def hours(job: Job, tissue_share: float) -> str:
    """About how long the run will take, from this machine's rate of matrix products and docs/benchmarks.md."""
    rate = _matmul_rate(here(job.workers.device), job.options.precision)
    slower = REFERENCE_RATE / rate
    rows, columns = job.grid.shape_px
    pixels = rows * columns
    seconds = (IMAGE_S + TEXTURE_S * tissue_share) * pixels * slower
    encoder = get_encoder(job.encoder)
    if isinstance(encoder, StoredFeatures):
        seconds = IMAGE_S * pixels * slower
    elif isinstance(encoder, PatchEncoder):
        patches = job.grid.superpixel_shape[0] * job.grid.superpixel_shape[1] / encoder.step**2 * tissue_share
        bytes_each = 2 if job.options.precision == "bfloat16" else 4
        seconds += patches * 2.2 * encoder.model_bytes / bytes_each * PATCH_TOKENS / (EFFICIENCY * rate)
    trained = {"default": DEFAULT_FIT_S, "published": PUBLISHED_FIT_S}[job.options.recipe]
    seconds += trained * len(job.spots.xy_px) / FIT_SPOTS * slower
    seconds /= job.workers.gpu.workers
    said = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"
    return f"about {said} in all (an estimate: {rate / 1e9:.0f} GFLOP/s measured, docs/benchmarks.md)"


def weights_fact(folder: Path | None) -> str:
    """Which weights were found, and their hashes."""
    if folder is None:
        return "none of HIPT"
    said = []
    for which in WEIGHT_FILES:
        for suffix in (CONVERTED_SUFFIX, PUBLISHED_SUFFIX):
            path = folder / f"{which}{suffix}"
            if path.is_file():
                said.append(f"{path} ({_hash(path, NETWORKS[which].published_sha256)})")
                break
    return "; ".join(said) or f"{folder}"


def _hash(path: Path, published: str) -> str:
    if path.stat().st_size > HASHED_BYTES:
        return f"fingerprint {file_fingerprint(path)[:12]}, larger than {format_bytes(HASHED_BYTES)} and not hashed"
    sha256 = file_sha256(path)
    return f"sha256 {sha256}{', the published file' if sha256 == published else ''}"


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


def _free_disk(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _matmul_rate(device: str, precision: str) -> float:
    """Operations per second of a square product: the best of three, a tenth of a second or so."""
    import torch

    side = 1024 if device == "cpu" else 8192
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with all_cores():
        a = torch.ones(side, side, dtype=kind, device=device)
        best = float("inf")
        for _ in range(4):
            start = time.perf_counter()
            (a @ a)[0, 0].item()
            best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best

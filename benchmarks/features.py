"""HIPT's features: ours against the published scheme, on the same image, in the same run.

``make bench-features``. The image is section C4 of her2st, x 400 to 6650 and y 1800 to 6520 of the file, at 0.75 um/px:
4352 x 5888 px, 16 shifts. Each encoding is a process of its own, run as a user would (``iscale features``); weights are
the stand-ins of ``ISCALE_GOLDEN``, since time does not depend on their values. The plain scheme is timed per patch on
one batch and multiplied by the patches that it would encode.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import plain_hipt
from benchmarks.matmul import matmul_rate
from benchmarks.report import machine, publish, table
from benchmarks.sampling import peak_of
from iscale.encoders import EncoderSpec
from iscale.encoders.hipt import HiptEncoder
from iscale.encoders.registry import has_bfloat16
from iscale.encoders.weights import PATCH_FILE, load_weights
from iscale.engine.machine import all_cores
from iscale.features.patch_lattice import PatchLattice
from iscale.geometry import Region
from iscale.results import open_run

BOX = (400, 1800, 6650, 6520)
RAW_UM, PIXEL_UM = 0.688, 0.75

WIDTH, HIDDEN, DEPTH, TOKENS = 384, 1536, 12, 257
PATCH_OPERATIONS = DEPTH * (2 * TOKENS * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN) + 4 * TOKENS**2 * WIDTH) + (
    2 * 256 * 768 * WIDTH
)
"""Multiplications and additions of one patch in ViT-256: its linear layers, its attention, its stem."""


def lay_out(project: Path, data: Path) -> None:
    """The box of C4 as a project without captures."""
    mother = project / "MotherImage"
    mother.mkdir(parents=True)
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(data / "her2st" / "C4.jpg") as image:
        image.crop(BOX).save(mother / "he-raw.png", compress_level=1)
    (mother / "pixel-size-raw.txt").write_text(f"{RAW_UM}\n")


def stand_ins(golden: Path, folder: Path) -> None:
    """Make the stand-in weights."""
    subprocess.run([sys.executable, str(golden / "make_stand_in_weights.py"), str(folder)], check=True)


def run(project: Path, *arguments: str) -> tuple[dict[str, dict[str, float]], int]:
    """Run ``iscale features``; what its report says of every step, and the process' peak in bytes."""
    command = [sys.executable, "-m", "iscale", "features", str(project), *arguments]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, peak_of(child.pid))
        time.sleep(0.05)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    report = json.loads((project / "iSCALE_output" / "report.json").read_text())
    return {step["step"]: step for step in report["steps"]}, peak


def encoded_patches(project: Path) -> tuple[int, int]:
    """Patches that the run encoded, and patches of the slide that touch tissue."""
    store = open_run(project).store
    ledger = (store.ledgers / "features.patches.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in ledger if line]
    done = sum(record["value"]["patches"] for record in records if "value" in record)
    mask = np.asarray(store.array("tissue/mask")[...])
    lattice = PatchLattice((mask.shape[0], mask.shape[1]), 16, 4)
    return done, int(lattice.touching(mask, Region(0, lattice.places[0], 0, lattice.places[1])).sum())


def plain_scheme(weights: Path, project: Path, batch: int) -> tuple[float, float, dict[str, float], tuple[int, int]]:
    """Seconds per patch of the plain scheme, its peak memory growth in GB, ours' error, the image's shape in px."""
    store = open_run(project).store
    image = store.array("image/0")
    h, w = image.shape[1:]
    side = int(batch**0.5)
    y, x = h // 2 - side * 128, w // 2 - side * 128
    crop = np.moveaxis(np.asarray(image[:, y : y + side * 256, x : x + side * 256]), 0, -1)
    patches = np.ascontiguousarray(plain_hipt.cut(crop))
    tensors = load_weights(weights, PATCH_FILE).tensors
    plain_hipt.encode(tensors, patches[:2])
    before = peak_of(os.getpid())
    start = time.perf_counter()
    tokens, vectors = plain_hipt.encode(tensors, patches)
    seconds = (time.perf_counter() - start) / len(patches)
    grown = (peak_of(os.getpid()) - before) / 1e9
    errors = {}
    for precision in precisions():
        ours = HiptEncoder(EncoderSpec("hipt", weights=weights, precision=precision))
        found = [ours.encode(torch.from_numpy(patches[i : i + 4])) for i in range(0, len(patches), 4)]
        own = torch.cat([t.flatten(1, 2) for t, _ in found]), torch.cat([v for _, v in found])
        errors[precision] = max(
            float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(own, (tokens, vectors), strict=True)
        )
    return seconds, grown, errors, (h, w)


def card(device: str) -> str:
    """The name of a GPU, for the line above the table."""
    return "" if device == "cpu" else f", {torch.cuda.get_device_name(device)}"


def precisions(device: str = "cpu") -> list[str]:
    """Precisions that a device has."""
    return ["float32", *(["bfloat16"] if has_bfloat16(device) else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shifts", default="16")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; the plain scheme runs on the CPU all the same")
    parser.add_argument("--batch", type=int, default=256, help="patches of the plain scheme's batch")
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    data, golden = Path(os.environ["ISCALE_DATA"]), Path(os.environ["ISCALE_GOLDEN"])
    with tempfile.TemporaryDirectory() as name, all_cores():
        project, weights = Path(name) / "project", Path(name) / "weights"
        lay_out(project, data)
        stand_ins(golden, weights)
        text = compare(project, weights, options.shifts, options.batch, options.device)
    if options.no_publish:
        print(text)
    else:
        publish("features", text)


def compare(project: Path, weights: Path, shifts: str, batch: int, device: str) -> str:
    """Run all, and lay the figures out as a table."""
    ours = []
    for precision in precisions(device):
        dtype = getattr(torch, precision)
        rates = [matmul_rate(dtype, device=device)]
        settings = ["--pixel-size", str(PIXEL_UM), "--encoder", "hipt", "--weights", str(weights), "--device", device]
        steps, peak = run(project, *settings, "--shifts", shifts, "--precision", precision)
        rates.append(matmul_rate(dtype, device=device))
        seconds = steps["features/patches"]["seconds"]
        done, touching = encoded_patches(project)
        projected = max(step["projected_bytes"] for step in steps.values())
        ours.append((precision, seconds, done, touching, max(rates), peak, projected, steps["features/context"]))
        print(ours[-1], flush=True)
    per_patch, grown, errors, shape = plain_scheme(weights, project, batch)
    plain_rate = matmul_rate()
    patches = plain_hipt.patches_of(shape, int(shifts))
    plain_seconds = per_patch * patches
    rows = [
        [
            "plain, float32",
            f"{patches:,}",
            f"{plain_seconds:,.0f}",
            f"{1 / per_patch:.1f}",
            f"{PATCH_OPERATIONS / per_patch / plain_rate:.2f}",
            f"+{grown:.1f} (one batch)",
            "",
            "1",
        ]
    ]
    rows += [
        [
            f"iscale, {precision}",
            f"{done:,} ({done / touching:.3f} of those on tissue)",
            f"{seconds:,.0f}",
            f"{done / seconds:.1f}",
            f"{PATCH_OPERATIONS * done / seconds / rate:.2f} of {rate / 1e9:.0f} GFLOP/s",
            f"{peak / 1e9:.2f} (projected {projected / 1e9:.2f})",
            f"{errors[precision]:.1e}",
            f"{plain_seconds / seconds:.1f}",
        ]
        for precision, seconds, done, touching, rate, peak, projected, _ in ours
    ]
    head = ["scheme", "patches", "s", "patches/s", "of the matmul rate", "memory, GB", "error", "times as fast"]
    context = ", ".join(f"{step['seconds']:.0f} s in {precision}" for precision, *_, step in ours)
    return (
        f"{shape[0]} x {shape[1]} px, {shifts} shifts, context `regions`; {machine()}{card(device)}. "
        f"ViT-4K took {context} more.\n\n" + table(head, rows)
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

"""HIPT's two contexts, `regions` and `published`: how far apart they are, and what that does to predicted genes.

``make bench-context``. With the stand-in weights of ``ISCALE_GOLDEN``: distances and scores of the published weights
will be others. The image of the golden file is small, so that most of its published grid is padding; section C4 of
her2st is a whole tissue. ``texture`` is scored beside the two.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import iscale
from benchmarks.accuracy import SCORES, median, section
from benchmarks.features import precisions, stand_ins
from benchmarks.report import machine, publish, table

CONTEXTS = ("regions", "published")


def context_on_tissue(out: Path) -> NDArray[np.float64]:
    """Stored context (cell, feature) of the cells that lie on tissue."""
    store = iscale.open_run(out).store
    values = np.asarray(store.array("features/context")[...], np.float64)
    stride = store.attributes("features/context")["stride_superpixels"]
    mask = np.asarray(store.array("tissue/mask")[...])
    rows, columns = values.shape[1:]
    kept = mask.reshape(rows, stride, columns, stride).any(axis=(1, 3))
    return values[:, kept].T


def apart(found: NDArray[np.float64], reference: NDArray[np.float64]) -> list[str]:
    """Norm of the difference over the norm, the same of what varies over the slide, and the median correlation."""
    centred, about = found - found.mean(axis=0), reference - reference.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0) * np.linalg.norm(about, axis=0)
    correlation = (centred * about).sum(axis=0) / np.where(norms, norms, 1)
    distances = (
        np.linalg.norm(found - reference) / np.linalg.norm(reference),
        np.linalg.norm(centred - about) / np.linalg.norm(about),
        np.median(correlation),
    )
    return [f"{value:.3f}" for value in distances]


def golden(folder: Path, weights: Path) -> list[str]:
    """Distances on the golden image, 16 shifts, all of it tissue."""
    mother = folder / "MotherImage"
    mother.mkdir(parents=True)
    with np.load(Path(os.environ["ISCALE_GOLDEN"]) / "features.npz") as arrays:
        image = arrays["image"]
    Image.fromarray(image).save(mother / "he.png")
    Image.fromarray(np.full(image.shape[:2], 255, np.uint8)).save(mother / "mask-raw.png")
    found = []
    for context in CONTEXTS:
        out = folder / context
        iscale.run(folder, stage="features", encoder="hipt", weights=weights, context=context, out=out)
        found.append(context_on_tissue(out))
    return apart(found[0], found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shifts", type=int, default=4)
    parser.add_argument("--precision", default=precisions()[-1])
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    source = Path(os.environ["ISCALE_DATA"]) / "her2st"
    with tempfile.TemporaryDirectory() as name:
        work, weights = Path(name), Path(name) / "weights"
        stand_ins(Path(os.environ["ISCALE_GOLDEN"]), weights)
        distances = [["golden image, 16 shifts, float32", *golden(work / "golden", weights)]]
        settings = {"weights": weights, "shifts": options.shifts, "precision": options.precision}
        cases = {f"hipt, `{context}`": {"encoder": "hipt", "context": context, **settings} for context in CONTEXTS}
        cases["texture"] = {"encoder": "texture"}
        scores, found = [], []
        for label, chosen in cases.items():
            folder = work / label
            pairs = section(source, folder, "C4", "covered", **chosen)
            scores.append([label, *(f"{median([pairs[score, 'ours']]):.3f}" for score in SCORES)])
            print(scores[-1], flush=True)
            if label != "texture":
                found.append(context_on_tissue(folder / "C4"))
        distances.append([f"C4, {options.shifts} shifts, {options.precision}", *apart(found[0], found[1])])
    text = (
        f"Stored context on tissue, `regions` against `published`, stand-in weights; {machine()}\n\n"
        + table(["image", "distance / norm", "distance / norm, means removed", "median correlation"], distances)
        + "\n\nHeld-out gene correlation on C4, covered, the other two sections as captures:\n\n"
        + table(["features", *SCORES], scores)
    )
    if options.no_publish:
        print(text)
    else:
        publish("context", text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()

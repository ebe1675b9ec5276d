"""Stage ``integrate``: captures and training spots into the store, and back."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import anndata as ad
import numpy as np
import pandas as pd
import zarr

from iscale.captures.spots import Capture, TrainingSpots
from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, single_task
from iscale.engine.step import Step, nothing
from iscale.geometry import SlideGrid
from iscale.store.run_store import RunStore


def integrate_step(
    store: RunStore, captures: Sequence[Capture], spots: TrainingSpots, grid: SlideGrid, resources: Resources
) -> Step:
    """The step that writes ``captures/`` and ``training/``, which the driving process holds already."""

    def write(_: list[object]) -> None:
        store.make_group("captures", {})
        for capture in captures:
            write_capture(store, capture, grid)
        write_training(store, spots, grid)

    return Step(
        name="integrate",
        kernel=nothing,
        context=None,
        plan=single_task("integrate", 0, resources),
        fingerprint=spots_fingerprint(captures, spots, grid),
        outputs=store.metadata(*(f"captures/{name}" for name in spots.captures), "training", "training/counts"),
        finish=write,
        disk_bytes=sum(int(c.counts.data.nbytes + c.counts.indices.nbytes) for c in captures) + spots.counts.nbytes,
        files=20 * len(captures) + 8,
        note=f"{len(spots.depth)} spots, {len(spots.genes)} genes",
    )


def spots_fingerprint(captures: Sequence[Capture], spots: TrainingSpots, grid: SlideGrid) -> str:
    """Fingerprint of the captures' content and of what was made of it."""
    digest = sha256()
    for capture in captures:
        digest.update(repr((capture.name, capture.radius_um, len(capture.spot_ids))).encode())
        for part in (capture.counts.data, capture.counts.indices, capture.counts.indptr, capture.xy_px):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update("\0".join((*capture.genes, *capture.spot_ids)).encode())
    for values in (spots.counts, spots.depth, spots.xy_px, spots.radius_um, spots.capture):
        digest.update(np.ascontiguousarray(values).tobytes())
    return fingerprint(
        "integrate", {"genes": list(spots.genes), "pixel_size_um": grid.pixel_size_um}, digest.hexdigest()
    )


def write_capture(store: RunStore, capture: Capture, grid: SlideGrid) -> None:
    """Write a capture as AnnData; positions in full-resolution pixels of the mother image."""
    data = ad.AnnData(
        X=capture.counts,
        obs=pd.DataFrame(index=pd.Index(capture.spot_ids, dtype=object)),
        var=pd.DataFrame(index=pd.Index(capture.genes, dtype=object)),
        obsm={"spatial": capture.xy_px / grid.scale},
        uns={
            "transform": np.eye(3),
            "spatial": {
                capture.name: {
                    "scalefactors": {
                        "spot_diameter_fullres": 2 * capture.radius_um / grid.raw_pixel_size_um,
                        "microns_per_pixel": grid.raw_pixel_size_um,
                    }
                }
            },
        },
    )
    with ad.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        # Not `write_zarr`, which consolidates metadata: that is outside the Zarr v3 specification, and warned of.
        ad.io.write_elem(zarr.open_group(store.path, path="captures", mode="r+"), capture.name, data)


def write_training(store: RunStore, spots: TrainingSpots, grid: SlideGrid) -> None:
    """Write the integrated spots: positions in um from the slide's corner."""
    store.make_group("training", {"captures": list(spots.captures)})
    store.put("training/gene", spots.genes, ("gene",))
    store.put("training/counts", spots.counts, ("spot", "gene"))
    store.put("training/depth", spots.depth, ("spot",), long_name="counts of all genes")
    store.put("training/xy", spots.xy_px * grid.pixel_size_um, ("spot", "axis"), units="um")
    store.put("training/radius", spots.radius_um, ("spot",), units="um")
    store.put("training/capture", spots.capture, ("spot",), long_name="index of the capture; -1: merged of several")


def read_training(store: RunStore, grid: SlideGrid) -> TrainingSpots:
    """Read the integrated spots back."""

    def values(name: str) -> np.ndarray:
        return np.asarray(store.array(f"training/{name}")[...])

    return TrainingSpots(
        genes=tuple(str(gene) for gene in values("gene")),
        counts=values("counts"),
        depth=values("depth"),
        xy_px=values("xy") / grid.pixel_size_um,
        radius_um=values("radius"),
        capture=values("capture"),
        captures=tuple(store.attributes("training")["captures"]),
    )

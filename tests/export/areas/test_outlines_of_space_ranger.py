"""Outlines of cells that Space Ranger 4 segmented: found in its folder, placed as the capture is."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from area_runs import SUPERPIXEL_RAW, add_capture, box, some_maps, write_run

from iscale.export.areas.aggregate import aggregate_run

S = SUPERPIXEL_RAW


@pytest.mark.parametrize("given", ["outs", "outs/segmented_outputs", ""])
def test_the_outlines_in_the_folder_are_summed_over(tmp_path: Path, given: str) -> None:
    maps = some_maps()
    run = write_run(tmp_path / "run", maps)
    add_capture(run, "H1", np.array([[2.0, 0, 60 * S], [0, 2.0, 70 * S], [0, 0, 1]]), um_per_px=0.5)
    cells = [box(0, 0, S / 2, S / 2), box(S / 2, 0, S, S / 2)]  # a superpixel each, of the slide
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"cell_id": i + 1}}
        for i, ring in enumerate(cells)
    ]
    folder = tmp_path / "hd" / "outs" / "segmented_outputs"
    folder.mkdir(parents=True)
    (folder / "cell_segmentations.geojson").write_text(json.dumps({"features": features}))
    aggregate_run(run.store.folder, str(tmp_path / "hd" / given), out=tmp_path / "found.h5ad", capture="H1")
    found = ad.read_h5ad(tmp_path / "found.h5ad")
    np.testing.assert_allclose(found.X, maps[:, 70, 60:62].T, rtol=1e-5)

"""The contact sheet shows every gene once, page by page, and reads the store once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute
from iscale.engine.ledger import Ledger
from iscale.engine.plan import Resources
from iscale.engine.watchers import Silence
from iscale.geometry import SlideGrid
from iscale.plots import stage
from iscale.plots.draw import PER_PAGE, box_of, thumbnail
from iscale.plots.stage import plot_steps
from iscale.store import layout
from iscale.store.run_store import RunStore

GRID = SlideGrid((2560, 3840), 0.5, 0.5)
GENES = tuple(f"G{i}" for i in range(PER_PAGE + 10))
ROOM = Resources(4 * 10**9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """A run with expression of 106 genes on 160 x 240 superpixels, tissue on a disc, nuclei on its left half."""
    store = RunStore(tmp_path_factory.mktemp("run"))
    store.create()
    shape = GRID.superpixel_shape
    y, x = np.indices(shape)
    tissue = (y - 80) ** 2 + (x - 120) ** 2 < 70**2
    store.make_group("expression", {})
    store.make_group("tissue", {})
    rng = np.random.default_rng(0)
    values = np.where(tissue, rng.gamma(2.0, 1.0, (len(GENES), *shape)), np.nan).astype(np.float16)
    for name, factor in (("expression", 1.0), ("uncertainty", 0.1)):
        store.make(layout.genes(f"expression/{name}", len(GENES), shape))
        store.array(f"expression/{name}", "r+")[...] = (values * factor).astype(np.float16)
    store.make(layout.mask("tissue/cells", shape))
    store.array("tissue/cells", "r+")[...] = tissue & (x < 120)
    return store


def _drawn(store: RunStore, name: str, **more: Any) -> None:
    for step in plot_steps(store, GRID, (), GENES[:3], inputs=("a", "b"), resources=ROOM, **more):
        if step.name == name:
            execute(step, SerialDriver(), Ledger(store.ledgers, step.name), Silence())
            return
    raise AssertionError(f"no step {name}")


def test_the_sheet_has_pages_and_every_gene_is_read_once(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = stage.mean_maps

    def counted(array: object, rows: slice, *rest: object) -> np.ndarray:
        read.extend(range(rows.start, rows.stop))
        return whole(array, rows, *rest)

    monkeypatch.setattr(stage, "mean_maps", counted)
    _drawn(store, "plot/contact-sheet", all_genes=GENES)
    assert read == list(range(len(GENES)))
    folder = store.folder / "super_res_ST_plots"
    first, second = (np.asarray(Image.open(folder / f"contact-sheet{n}.png").convert("RGB")) for n in ("", "-2"))
    assert first.shape[0] > 3 * second.shape[0]
    assert first.shape[1] > 1300
    (folder / "contact-sheet-3.png").write_bytes(b"of an earlier run")
    (folder / "G0.png").write_bytes(b"of another step")
    Ledger(store.ledgers, "plot/contact-sheet").forget()
    _drawn(store, "plot/contact-sheet", all_genes=GENES)
    assert not (folder / "contact-sheet-3.png").exists()
    assert (folder / "G0.png").read_bytes() == b"of another step"


def test_maps_stand_beside_their_uncertainty_and_leave_the_sheet_alone(store: RunStore) -> None:
    folder = store.folder / "super_res_ST_plots"
    folder.mkdir(exist_ok=True)
    (folder / "contact-sheet.png").write_bytes(b"the sheet")
    (folder / "OLD.png").write_bytes(b"of an earlier run")
    _drawn(store, "plot/maps")
    assert sorted(path.name for path in folder.glob("*.png") if path.stem in (*GENES, "OLD")) == [
        "G0.png",
        "G1.png",
        "G2.png",
    ]
    assert (folder / "contact-sheet.png").exists()
    with Image.open(folder / "G0.png") as picture:
        assert picture.width > 1.5 * picture.height


def test_refined_maps_are_zero_where_no_nuclei_are_likely(store: RunStore) -> None:
    array, cells = store.array("expression/expression"), store.array("tissue/cells")
    plain, refined = (stage.mean_maps(array, slice(0, 2), 1, part) for part in (None, cells))
    there = np.isfinite(plain[0])
    np.testing.assert_array_equal(np.isfinite(refined[0]), there)
    kept = np.asarray(cells[...])
    np.testing.assert_array_equal(refined[:, kept], plain[:, kept])
    assert not refined[:, there & ~kept].any()
    _drawn(store, "plot/refined", cells="fingerprint")
    assert len(list((store.folder / "super_res_ST_plots" / "refined").glob("*.png"))) == 3


def test_without_cells_no_refined_maps_are_planned(store: RunStore) -> None:
    names = [step.name for step in plot_steps(store, GRID, ("D1",), GENES, inputs=("a", "b"), resources=ROOM)]
    assert names == ["plot/maps", "plot/contact-sheet", "plot/integrated", "plot/capture.D1"]


def test_thumbnails_are_cut_to_the_tissue_and_of_one_size() -> None:
    values = np.full((300, 200), np.nan, np.float32)
    values[100:150, 20:120] = np.arange(100)
    box = box_of(values)
    assert values[box].shape == (50, 100)
    picture = thumbnail(values[box])
    assert picture.shape == (52, 104, 3)
    assert box_of(np.full((3, 4), np.nan)) == (slice(0, 3), slice(0, 4))
    assert (thumbnail(np.full((3, 4), np.nan)) == 255).all()

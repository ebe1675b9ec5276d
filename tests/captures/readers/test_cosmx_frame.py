"""Where a CosMx section lies: the direction of y and the size of a pixel, as the files themselves tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cosmx_folders import LOCAL, edit, in_frame, write_cells, write_fovs

from iscale.captures.readers import cosmx
from iscale.errors import InputError


@pytest.fixture
def real(data_dir: Path) -> Path:
    return data_dir / "cosmx"


@pytest.mark.real
def test_in_the_real_file_global_y_runs_as_local_y_does(real):
    table = pd.read_csv(real / "Lung12_tx_file.csv.gz")
    fovs = pd.read_csv(real / "Lung12_fov_positions_file.csv").set_index("fov")
    shift = table["y_global_px"] - table["fov"].map(fovs["y_global_px"])
    np.testing.assert_allclose(shift, table["y_local_px"], atol=1e-6)
    (notice,) = (n for n in cosmx.read(real).notices if "y runs downwards" in n)
    assert "as global and local y do" in notice
    assert "x 494.4, y -160233.3" in notice


def test_fields_of_view_above_each_other_keep_their_order_where_global_y_runs_up(tmp_path):
    write_cells(tmp_path, up=True)
    table = pd.read_csv(tmp_path / "S_metadata_file.csv")
    table.loc[table["fov"] == 2, "CenterY_global_px"] += 4256  # the second lies above the first
    table.to_csv(tmp_path / "S_metadata_file.csv", index=False)
    y = cosmx.read(tmp_path).xy_px[:, 1]
    np.testing.assert_allclose(y, LOCAL[:, 1] + [4256, 4256, 4256, 0, 0, 0])


def test_without_local_positions_y_is_as_it_is_and_the_pixel_that_of_today(tmp_path):
    write_cells(tmp_path, local=False)
    measured = cosmx.read(tmp_path)
    np.testing.assert_allclose(measured.xy_px, in_frame() - [100, 20])
    assert any("no local y" in n for n in measured.notices)
    assert any("the files do not tell" in n and "0.12028" in n for n in measured.notices)


def test_centres_that_are_rounded_one_at_a_time_still_fit(tmp_path):
    write_cells(tmp_path, up=True)
    edit(tmp_path / "S_metadata_file.csv", "200.0,80.0", "201.0,79.0")
    assert any("global y runs upwards" in n for n in cosmx.read(tmp_path).notices)


def test_global_and_local_positions_that_do_not_fit_are_refused(tmp_path):
    write_cells(tmp_path)
    edit(tmp_path / "S_metadata_file.csv", "200.0,80.0", "900.0,80.0")
    with pytest.raises(InputError, match=r"global and local x do not belong together.* 700 px"):
        cosmx.read(tmp_path)


@pytest.mark.parametrize(
    ("fovs", "um"),
    [
        ("fov,x_global_px,y_global_px\n1,0,0\n2,5472.2,1\n", 0.18),
        ("fov,x_global_px,y_global_px\n1,0,0\n2,3,-3648\n", 0.18),
        ("FOV,x_global_px,y_global_px\n1,0,0\n2,0,4256\n3,0,8512\n", 0.12028),
        ("FOV,x_global_px,y_global_px,x_global_mm,y_global_mm\n1,0,0,0,0\n2,5472,0,0.6566,0\n", 0.12),
        ("fov,x_global_px,y_global_px,X_mm,Y_mm\n1,0,100,7,3\n2,1000,600,7.05,3.1\n", 0.1),
    ],
)
def test_the_side_of_a_pixel_is_derived_from_the_fields_of_view(tmp_path, fovs, um):
    write_cells(tmp_path, local=False)
    write_fovs(tmp_path, fovs)
    assert cosmx.read(tmp_path).um_per_px == pytest.approx(um, rel=1e-4)
    assert cosmx.read(tmp_path, um_per_px=0.3).um_per_px == 0.3


def test_a_wide_field_of_view_is_of_the_first_release(tmp_path):
    write_cells(tmp_path)
    edit(tmp_path / "S_metadata_file.csv", "4000.0,4200.0,-16000.0,94200.0", "5400.0,3600.0,-14600.0,93600.0")
    assert cosmx.read(tmp_path).um_per_px == 0.18


@pytest.mark.parametrize("um", [0, -1, 180, float("nan")])
def test_a_pixel_size_must_be_plausible(tmp_path, um):
    write_cells(tmp_path)
    with pytest.raises(InputError, match="side of a pixel"):
        cosmx.read(tmp_path, um_per_px=um)
    write_fovs(tmp_path, "fov,x_global_px,y_global_px,X_mm,Y_mm\n1,0,0,7,3\n2,1000,600,700,300\n")
    with pytest.raises(InputError, match=r"fov_positions_file\.csv gives 618"):
        cosmx.read(tmp_path)

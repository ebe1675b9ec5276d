"""Small folders of the layout of CosMx's flat files: two fields of view of three cells each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

GENES = ["EPCAM", "CD3E", "MS4A1"]
CONTROLS = ["NegPrb1", "Negative2", "SystemControl7", "FalseCode3"]
CELLS = [(fov, cell) for fov in (1, 2) for cell in (1, 2, 3)]
COUNTS = np.arange(42).reshape(6, 7) % 13
LOCAL = np.array([[100.0, 50], [200, 80], [4000, 4200], [10, 20], [30, 40], [50, 60]])
CORNERS = {1: (-20000.0, 90000.0), 2: (-15744.0, 90000.0)}


def global_px(up: bool) -> np.ndarray:
    corners = np.array([CORNERS[fov] for fov, _ in CELLS])
    return np.column_stack([corners[:, 0] + LOCAL[:, 0], corners[:, 1] + (-1 if up else 1) * LOCAL[:, 1]])


def in_frame() -> np.ndarray:
    return LOCAL + np.array([[0.0, 0]] * 3 + [[4256, 0]] * 3)


def write_cells(folder: Path, up: bool = False, local: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    matrix = pd.DataFrame(COUNTS, columns=[*GENES, *CONTROLS])
    matrix.insert(0, "fov", [fov for fov, _ in CELLS])
    matrix.insert(1, "cell_ID", [cell for _, cell in CELLS])
    background = pd.DataFrame([[1, 0, *[99] * 7]], columns=matrix.columns)
    pd.concat([background, matrix]).to_csv(folder / "S_exprMat_file.csv", index=False)
    table = matrix[["fov", "cell_ID"]].copy()
    table["Area"] = [900, 1000, 1100, 1200, 1300, 1400]
    if local:
        table["CenterX_local_px"], table["CenterY_local_px"] = LOCAL.T
    table["CenterX_global_px"], table["CenterY_global_px"] = global_px(up).T
    table["Mean.PanCK"] = 1
    table.to_csv(folder / "S_metadata_file.csv", index=False)


def write_transcripts(folder: Path, up: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame({"fov": [fov for fov, _ in CELLS], "cell_ID": 0})
    table["x_local_px"], table["y_local_px"] = LOCAL.T
    table["x_global_px"], table["y_global_px"] = global_px(up).T
    table["z"] = 0
    table["target"] = ["EPCAM", "NegPrb1", "CD3E", "CD3E", "SystemControl7", "MS4A1"]
    table["CellComp"] = "Nuclear"
    table.to_csv(folder / "S_tx_file.csv", index=False)
    write_fovs(folder)


def write_fovs(folder: Path, text: str | None = None) -> None:
    rows = "".join(f"{fov},{x},{y}\n" for fov, (x, y) in CORNERS.items())
    (folder / "S_fov_positions_file.csv").write_text(text or f"fov,x_global_px,y_global_px\n{rows}")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))

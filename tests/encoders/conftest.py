"""Weight files in the published form, with drawn values: the published ones cannot be handed on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def stand_in_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the two stand-in ``.pth`` files that the script in the folder named by ``ISCALE_GOLDEN`` makes."""
    golden = os.environ.get("ISCALE_GOLDEN")
    script = Path(golden or "") / "make_stand_in_weights.py"
    if not golden or not script.is_file():
        pytest.skip("ISCALE_GOLDEN does not name the folder of reference outputs: no stand-in weights can be made")
    folder = tmp_path_factory.mktemp("weights")
    subprocess.run([sys.executable, script, folder], check=True)
    return folder

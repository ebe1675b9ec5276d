"""The Python code of the documents runs: the blocks of a page in order, in one namespace, on the demo."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import matplotlib
import pytest
from doc_pages import PAGES, blocks, prose, read

NOT_HERE = ("napari", "spatialdata")
"""Packages that cannot be installed beside ours; a block behind whose language one stands is not run."""

ELSEWHERE = ("docs/reference/captures.md", "docs/reference/encoders.md")
"""Pages whose code other tests run: tests/vendors/test_read_capture.py, tests/test_docs.py."""

WITH_CODE = [page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE]


@pytest.fixture(scope="module")
def project(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, run to the end and held against its truth, to change."""
    return Path(shutil.copytree(demo_run, tmp_path_factory.mktemp("docs") / "demo")) / "project"


@pytest.mark.filterwarnings("ignore:The set_bad function:PendingDeprecationWarning")  # scanpy's, of matplotlib
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(
    page: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)  # what a page writes goes there
    if page == "docs/reference/check.md":  # it shows the first finding
        (project / "MotherImage" / "gene-names.txt").write_text("NOSUCHGENE\n")
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        if not set(block.words) & set(NOT_HERE):
            code = block.text.replace("demo/project", "PROJECT").replace("PROJECT", str(project))
            exec(compile("\n" * (block.line - 1) + code, page, "exec"), names)
    (project / "MotherImage" / "gene-names.txt").unlink(missing_ok=True)
    capsys.readouterr()


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_that_is_not_run_is_said_to_be_untried(page: str) -> None:
    skipped = [word for block in blocks(page, "python") for word in block.words]
    assert set(skipped) <= set(NOT_HERE)
    if skipped:
        assert "not tried here" in prose(page).lower()


def test_a_run_leaves_the_files_that_are_documented(project: Path) -> None:
    not_here = {"alignment", "logs"}  # of captures that the program aligned, and of batch systems
    page = read("docs/reference/files.md")
    for title, folder in (("output folder", "iSCALE_output"), ("store", "iSCALE_output/run.zarr")):
        table = re.search(rf"^## The {title}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
        assert table is not None
        cells = re.findall(r"^\| (`.+?) \|", table[1], re.M)
        named = {name.strip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)} - not_here
        assert len(named) > 10
        missing = [n for n in sorted(named) if not list((project / folder).glob(re.sub("<[^>]+>", "*", n)))]
        assert not missing

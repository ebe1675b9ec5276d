"""Finding the files of captures: aligned by tables or by a transform, or not yet; and each way it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from iscale import transform
from iscale.errors import InputError
from iscale.project.files import check_capture_names, find_captures, find_project
from iscale.project.layout import TRANSFORM_FILE


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def project(bare_project: Path) -> Path:
    return bare_project


def test_correct_spelling_is_found_too(project: Path) -> None:
    captures = project / "DaughterCaptures"
    (captures / "AllignedToMother").rename(captures / "AlignedToMother")
    (captures / "UnallignedToMother").rename(captures / "UnalignedToMother")
    files = find_project(project, ["D2"])
    assert [c.name for c in files.captures] == ["D2"]
    assert files.unaligned == ("D3",)
    write(captures / "AllignedToMother/D9/locs.tsv")
    with pytest.raises(InputError, match="both AllignedToMother and AlignedToMother"):
        find_project(project)


def vendor(project: Path, name: str, transform: str | None = "{}") -> Path:
    """A capture as an instrument wrote it, with a transform or without."""
    if transform is not None:
        write(project / f"DaughterCaptures/AllignedToMother/{name}/transform.json", transform)
    return write(project / f"DaughterCaptures/UnallignedToMother/{name}/filtered_feature_bc_matrix.h5").parent


def test_a_transform_aligns_a_measurement(project: Path) -> None:
    source = vendor(project, "D3")
    files = find_project(project).captures[2]
    assert (files.name, files.source, files.counts, files.locs) == ("D3", source, None, None)
    assert files.transform == project / "DaughterCaptures/AllignedToMother/D3/transform.json"
    assert files.is_aligned
    assert find_project(project).unaligned == ()


def test_a_transform_wins_over_aligned_locations(project: Path) -> None:
    vendor(project, "D1")
    (project / "DaughterCaptures/AllignedToMother/D1/cnts.tsv.gz").unlink()
    files = find_project(project).captures[0]
    assert files.transform is not None
    assert files.locs is not None
    assert files.counts is None


def test_a_transform_without_a_measurement(project: Path) -> None:
    write(project / "DaughterCaptures/AllignedToMother/D1/transform.json")
    with pytest.raises(InputError, match=r"no folder D1 with what was measured.*\n.*UnallignedToMother/D1"):
        find_project(project)


def test_landmarks_and_a_radius_alone_do_not_align(project: Path) -> None:
    vendor(project, "D4", transform=None)
    write(project / "DaughterCaptures/AllignedToMother/D4/landmarks.csv")
    write(project / "DaughterCaptures/AllignedToMother/D4/radius.txt", "8")
    assert find_project(project).unaligned == ("D3", "D4")
    with pytest.raises(InputError, match=r"Not yet aligned.*D4 \(neither.*AllignedToMother/D4\).*\n.*iscale align"):
        find_project(project, ["D1", "D4"])


def test_all_captures_are_found_whether_they_are_aligned_or_not(project: Path) -> None:
    source = vendor(project, "D4", transform=None)
    vendor(project, "D5")
    captures = {files.name: files for files in find_captures(project)}
    assert list(captures) == ["D1", "D2", "D3", "D4", "D5"]
    assert [name for name, files in captures.items() if not files.is_aligned] == ["D3", "D4"]
    assert captures["D4"].source == source
    assert captures["D4"].aligned == project / "DaughterCaptures/AllignedToMother/D4"
    assert not captures["D4"].aligned.exists()
    assert captures["D1"].source is None
    assert [files.name for files in find_captures(project, ["D5", "D1"])] == ["D5", "D1"]
    with pytest.raises(InputError, match="no capture 'D9'"):
        find_captures(project, ["D9"])
    with pytest.raises(InputError, match=r"settings: There is no capture 'D9'"):
        check_capture_names(project, ["D1", "D9"], "settings: ")


def test_where_nothing_is_aligned_the_aligned_folder_is_the_published_or_the_one_there(project: Path) -> None:
    captures = project / "DaughterCaptures"
    (captures / "AllignedToMother").rename(project / "elsewhere")
    assert find_captures(project)[0].aligned == captures / "AllignedToMother" / "D3"
    (captures / "AlignedToMother").mkdir()
    assert find_captures(project)[0].aligned == captures / "AlignedToMother" / "D3"


@pytest.mark.parametrize("name", ["cells.h5ad", "sample.zarr"])
def test_one_file_alone_in_a_folder_is_the_measurement(project: Path, name: str) -> None:
    file = write(project / f"DaughterCaptures/UnallignedToMother/D6/{name}")
    write(file.with_name(".DS_Store"))
    assert find_captures(project, ["D6"])[0].source == file
    write(file.with_name("he.jpg"))
    assert find_captures(project, ["D6"])[0].source == file.parent


def test_a_link_that_leads_nowhere_is_told_where_it_is_needed(project: Path) -> None:
    measured = project / "DaughterCaptures/UnallignedToMother"
    for name in ("D1", "D7"):
        (measured / name).symlink_to("/nowhere/run7")
    assert find_project(project).captures[0].source is None, "aligned tables need no measurement"
    assert find_project(project).unaligned == ("D3", "D7")
    with pytest.raises(InputError, match=r"D7 is a link to /nowhere/run7, which is not there"):
        find_captures(project)
    write(project / "DaughterCaptures/AllignedToMother/D7/transform.json")
    with pytest.raises(InputError, match=r"D7 is a link to /nowhere/run7"):
        find_project(project)
    (measured / "D8").mkdir()
    (measured / "D8" / "a.h5ad").symlink_to("/nowhere/a.h5ad")
    with pytest.raises(InputError, match=r"a\.h5ad is a link to /nowhere/a\.h5ad"):
        find_captures(project, ["D8"])


def test_the_name_of_the_transform_is_one() -> None:
    assert transform.TRANSFORM_FILE == TRANSFORM_FILE


def test_named_captures_keep_the_order_of_the_user(project: Path) -> None:
    assert [c.name for c in find_project(project, ["D2", "D1", "D2"]).captures] == ["D2", "D1"]


def test_counts_may_stay_in_the_unaligned_folder(project: Path) -> None:
    (project / "DaughterCaptures/AllignedToMother/D1/cnts.tsv.gz").unlink()
    with pytest.raises(InputError, match=r"D1 has no cnts\.tsv \(there is: locs\.tsv\)"):
        find_project(project)
    counts = write(project / "DaughterCaptures/UnallignedToMother/D1/cnts.h5ad")
    assert find_project(project).captures[0].counts == counts


def test_bad_captures(project: Path) -> None:
    aligned = project / "DaughterCaptures/AllignedToMother"
    write(aligned / "D1/cnts.parquet")
    with pytest.raises(InputError, match=r"2 files that could be the counts: cnts\.parquet, cnts\.tsv\.gz"):
        find_project(project)
    (aligned / "D1/cnts.parquet").unlink()
    (aligned / "D1/locs.tsv").rename(aligned / "D1/locs.csv")
    with pytest.raises(InputError, match=r"D1 has no locs\.tsv \(there is: cnts\.tsv\.gz, locs\.csv\)"):
        find_project(project)
    aligned.rename(project / "elsewhere")
    with pytest.raises(InputError, match=r"Not yet aligned to the mother image: D3"):
        find_project(project)
    (project / "DaughterCaptures").rename(project / "daughters")
    with pytest.raises(InputError, match="no captures under DaughterCaptures"):
        find_project(project)

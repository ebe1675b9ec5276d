"""``markers.csv`` as people write it, and one clear message for each way it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from iscale.errors import InputError
from iscale.geometry import SlideGrid
from iscale.regions.annotate_kernels import AnnotateContext
from iscale.regions.marker_table import MOST_LABELS, Markers, read_markers
from iscale.store.run_store import RunStore

GENES = ("ERBB2", "KRT8", "CD3E", "CD3D", "COL1A1", "Mki67")


def read(folder: Path, text: str | bytes, genes: tuple[str, ...] = GENES) -> Markers:
    path = folder / "markers.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_markers(path, genes)


@pytest.mark.parametrize(
    "text",
    [
        "gene,label\nERBB2,tumour\nKRT8,tumour\nCD3E,T cell\n",
        "gene\tlabel\r\nERBB2\ttumour\r\nKRT8\ttumour\r\nCD3E\tT cell\r\n",
        "gene;label\nERBB2;tumour\nKRT8;tumour\nCD3E;T cell",
        b"\xef\xbb\xbfgene,label\nERBB2,tumour\nKRT8,tumour\nCD3E,T cell\n",
        "\n\ngene, label\n\nERBB2, tumour\n,\nKRT8 ,tumour\nERBB2,tumour\nCD3E,T cell\n\n",
        '"Gene","Label"\n"ERBB2","tumour"\n"KRT8","tumour"\n"CD3E","T cell"\n',
        "label,note,gene\ntumour,HER2,ERBB2\ntumour,,KRT8\nT cell,,CD3E\n",
    ],
    ids=["commas", "tabs", "semicolons", "byte-order-mark", "blanks-and-repeats", "quotes", "more-columns"],
)
def test_a_table_is_read_however_it_was_saved(tmp_path: Path, text: str | bytes) -> None:
    assert read(tmp_path, text) == Markers(("tumour", "T cell"), (("ERBB2", "KRT8"), ("CD3E",)))


def test_a_gene_may_speak_for_two_labels(tmp_path: Path) -> None:
    markers = read(tmp_path, "gene,label\nCD3E,T cell\nCD3E,immune\nCD3D,immune\n")
    assert markers.genes == (("CD3E",), ("CD3E", "CD3D"))
    context = AnnotateContext(RunStore(tmp_path), SlideGrid((16, 16), 0.5, 0.5), markers.labels, markers.genes)
    assert context.markers == ("CD3E", "CD3D")


def test_markers_that_the_run_lacks_are_named_with_those_of_another_case(tmp_path: Path) -> None:
    markers = read(tmp_path, "gene,label\nERBB2,tumour\nMKI67,tumour\nEPCAM,tumour\n")
    assert markers.genes == (("ERBB2",),)
    assert markers.missing == ("MKI67", "EPCAM")
    (notice,) = markers.notices
    assert "left out, as not among the 6 genes of the run, 2 of 3 markers:" in notice
    assert "MKI67 (there is Mki67), EPCAM." in notice


def test_a_label_without_markers_is_left_out_and_told(tmp_path: Path) -> None:
    markers = read(tmp_path, "gene,label\nERBB2,tumour\nADIPOQ,fat\nPLIN1,fat\nCD3E,T cell\n")
    assert markers.labels == ("tumour", "T cell")
    assert "not annotated, as without any marker in the run, 1 label: fat." in markers.notices[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("gene,label\n", "names no markers"),
        ("ERBB2,tumour\n", r"line 1 is 'ERBB2,tumour', not a header with `gene` and `label`"),
        ("gene,label\nERBB2,tumour\n\nCD3E\n", r"line 4 is 'CD3E': it has no label"),
        ("gene,label\n,tumour\n", r"line 2 is ',tumour': it has no gene"),
        ("gene,label\nERBB2,unclassified\n", r"line 2 has the label 'unclassified'"),
        ("gene,label\nERBB2,T cell\nCD3E,T_cell\n", r"line 3 has the label 'T_cell', an earlier line 'T cell'"),
        ("gene,label\nERBB2,Tumour\nCD3E,tumour\n", r"line 3 has the label 'tumour', an earlier line 'Tumour'"),
        ("gene,label\nerbb2,tumour\nXYZ,fat\n", r"none of the 2 markers: erbb2 \(there is ERBB2\), XYZ\."),
        (b"\xff\xfe\x00g", "is not a text file"),
        ("gene,label\n" + "".join(f"ERBB2,l{i}\n" for i in range(MOST_LABELS + 1)), "more than 254 labels: line 256"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert "markers.csv" in str(caught.value)
    assert caught.value.remedy


def test_long_lists_of_missing_markers_are_cut(tmp_path: Path) -> None:
    lines = "".join(f"X{i},tumour\n" for i in range(9))
    markers = read(tmp_path, f"gene,label\nERBB2,tumour\n{lines}")
    assert "X0, X1, X2, X3, X4 and 4 more." in markers.notices[0]


def test_labels_that_no_superpixel_can_get_are_told(tmp_path: Path) -> None:
    markers = read(tmp_path, "gene,label\nERBB2,tumour\nERBB2,stroma\nCD3E,T cell\n")
    assert markers.labels == ("tumour", "stroma", "T cell")
    (notice,) = markers.notices
    assert "stroma has the same markers in the run as tumour, ERBB2: no superpixel gets it" in notice

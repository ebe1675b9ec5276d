"""The report says what a run offers, what it does not, and is one file that holds what users wrote as text only."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iscale.engine.drivers import SerialDriver
from iscale.engine.execute import execute, pending
from iscale.engine.ledger import Ledger
from iscale.engine.step import Step
from iscale.engine.watchers import Silence
from iscale.options import load_options
from iscale.plan.job import Job
from iscale.plan.steps import steps
from iscale.report.stage import report_steps
from iscale.stages import stage_called

EVIL = "<script>alert(1)</script>"
TRUST = ("gene", "score", "low", "high", "score_depth_normalised", "knn", "ridge", "ceiling", "word")


class _Tags(HTMLParser):
    """Tags of a page with their attributes, and that all are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _report_step(job: Job) -> Step:
    options = job.options.model_dump(mode="json")
    notices = (f"a notice of {EVIL}", *(text for text in job.notices if "Warning" in text))
    resources = job.workers.of("here")
    (step,) = report_steps(job.store, job.grid, job.project, options, notices, inputs=("a",), resources=resources)
    return step


def _reported(job: Job) -> str:
    step = _report_step(job)
    execute(step, SerialDriver(), Ledger(job.store.ledgers, step.name), Silence())
    return (job.store.folder / "report.html").read_text()


def _predict(project: Path) -> None:
    """Run a project as far as expression; one of its genes gets an unkind name."""
    for table in project.glob("DaughterCaptures/AllignedToMother/*/cnts.tsv"):
        table.write_text(table.read_text().replace("G3", EVIL))
    job = Job(project, load_options(project, {}))
    job.store.create()
    for step in steps(job, stage_called("predict")):
        execute(step, SerialDriver(), Ledger(job.store.ledgers, step.name), Silence())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test of this file leaves its run for the others."""
    return tmp_path_factory.mktemp("kept") / "project"


@pytest.fixture
def job(kept: Path, tiny_project: Path) -> Job:
    """A run, as far as expression, in a folder of the test's own."""
    if not kept.exists():
        _predict(tiny_project)
        shutil.copytree(tiny_project, kept)
    shutil.rmtree(tiny_project)
    shutil.copytree(kept, tiny_project)
    return Job(tiny_project, load_options(tiny_project, {}))


def test_a_bare_run_is_reported_with_what_it_lacks(job: Job) -> None:
    page = _reported(job)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    for command in ("cluster", "annotate", "refine", "evaluate project --hold-out", "evaluate project --truth PATH"):
        assert f"iscale {command}" in page, command
    assert "Median score of 8 genes on spots that the fit kept back" in page
    assert len(page) < 10_000_000
    pictures = [attributes for tag, attributes in tags.tags if tag == "img"]
    assert len(pictures) >= 6
    for picture in pictures:
        assert str(picture["src"]).startswith("data:image/webp;base64,")
        assert picture["alt"]
    named = set(re.findall(r"report/([\w.-]+\.png)", page))
    drawn = {path.name for path in (job.store.folder / "report").glob("*.png")}
    assert named == drawn, "every figure of the page lies beside it"
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "nothing is loaded from elsewhere"


def test_what_users_wrote_stays_text(job: Job) -> None:
    _write_trust(job, [("G0", 0.5), (EVIL, 0.4)])
    page = _reported(job)
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert page.count("<script>") == 1
    assert not list((job.store.folder / "report").glob("*<*"))


def _write_trust(job: Job, scores: list[tuple[str, float]], how: str = "capture") -> None:
    lines = ["\t".join(TRUST)]
    for i, (gene, score) in enumerate(scores):
        word = ("weak", "reliable")[i % 2]
        values = (score, score - 0.1, score + 0.1, score, 0.3, 0.2, 0.9)
        lines.append("\t".join([gene, *map(str, values), word]))
    path = job.store.folder / "evaluation" / f"trust-{how}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_the_trust_table_wins_over_the_fit_and_is_told_in_words(job: Job) -> None:
    _write_trust(job, [(f"G{i}", 0.1 * i) for i in (0, 1, 2, 4, 5, 6, 7)])
    page = _reported(job)
    assert "Genes by how far they can be believed: 3 reliable, 4 weak." in page
    assert "each capture in turn" in page
    assert (job.store.folder / "report" / "scores-best-and-worst.png").exists()
    rows = re.findall(r'<th scope="row">(G\d)</th>', page)
    assert rows[:7] == ["G7", "G6", "G5", "G4", "G2", "G1", "G0"]
    assert "There is no trust table" not in page
    best = re.findall(r'alt="Map of the predicted expression of (G\d)', page)
    assert best == ["G7", "G6", "G5", "G2", "G1", "G0"]


def test_a_baseline_that_does_better_is_told(job: Job) -> None:
    _write_trust(job, [(f"G{i}", 0.05) for i in range(3)])
    assert "The nearest spots alone scores higher (median 0.30)" in _reported(job)


def test_the_page_is_made_anew_when_a_table_changes_and_only_then(job: Job) -> None:
    _reported(job)
    ledger = Ledger(job.store.ledgers, "report")
    assert not pending(_report_step(job), ledger)
    _write_trust(job, [("G0", 0.5)])
    assert pending(_report_step(job), ledger)
    _reported(job)
    assert not pending(_report_step(job), ledger)
    _write_trust(job, [("G0", 0.6)])
    assert pending(_report_step(job), ledger)


def test_clusters_labels_and_nuclei_are_shown_where_they_are(job: Job) -> None:
    store, out = job.store, job.store.folder
    shape = job.grid.superpixel_shape
    mask = np.asarray(store.array("tissue/mask")[...])
    labels = np.where(mask, 1 + (np.indices(shape)[1] > shape[1] // 2), 0).astype(np.uint8)
    store.put("tissue/cells", mask & (labels == 1), ("y", "x"))
    store.make_group("clusters", {})
    store.put("clusters/labels", labels[None], ("n_clusters", "y", "x"))
    store.put("clusters/n_clusters", np.array([2]), ("n_clusters",))
    store.make_group("annotation", {})
    store.put("annotation/labels", labels[None], ("threshold", "y", "x"))
    store.put("annotation/label", ["tumour & co"], ("label",))
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    for folder in ("clusters-gene_2", "annotation", "refine"):
        (out / folder).mkdir()
    picture.save(out / "refine" / "threshold.png")
    columns = "cluster\trank\tgene\teffect_size\tlog2_fold_change\tmean_in\tmean_out"
    (out / "clusters-gene_2" / "markers.tsv").write_text(
        f"{columns}\n1\t1\tG5\t1.25\t2\t3\t1\n2\t1\tG1\t0.5\t1\t2\t1\n"
    )
    called = "cluster\tsuperpixels\tbest_label\tlabel\tmean_score\tshare\n1\t9\ttumour & co\ttumour & co\t0.5\t0.5\n"
    (out / "clusters-gene_2" / "annotation.tsv").write_text(called)
    (out / "annotation" / "shares.tsv").write_text(
        "threshold\tlabel\tsuperpixels\tshare\n0.10\ttumour & co\t9\t0.25\n0.10\tUnclassified\t27\t0.75\n"
    )
    page = _reported(job)
    for said in ("G5 (1.25)", "tumour &amp; co", "75 %", "Labels at threshold 0.10", "2 clusters of all tissue"):
        assert said in page, said
    kept, of = int((labels == 1).sum()), int(mask.sum())
    assert f"{kept:,} of {of:,} tissue superpixels" in page
    for command in ("iscale cluster", "iscale annotate", "iscale refine"):
        assert command not in page


def test_clusters_whose_genes_contradict_their_label_are_told(job: Job) -> None:
    """By the user's own markers, not where a cluster's genes speak for its label as often as for another."""
    store, folder = job.store, job.store.folder / "clusters-gene_2"
    shape = job.grid.superpixel_shape
    store.make_group("clusters", {})
    store.put("clusters/labels", np.ones((1, *shape), np.uint8), ("n_clusters", "y", "x"))
    store.put("clusters/n_clusters", np.array([2]), ("n_clusters",))
    markers = {"tumour": ["G0", "G4"], "lymphoid": ["G1", "G2"]}
    store.make_group("annotation", {"markers": markers, "scaling_rule": "by a rule that is told"})
    store.put("annotation/labels", np.ones((1, *shape), np.uint8), ("threshold", "y", "x"))
    store.put("annotation/label", ["tumour", "lymphoid"], ("label",))
    folder.mkdir()
    genes = {1: ["G1", "G5", "G2", "G0"], 2: ["G0", "G1", "G6"]}
    rows = [f"{cluster}\t{rank}\t{gene}" for cluster, names in genes.items() for rank, gene in enumerate(names, 1)]
    (folder / "markers.tsv").write_text("\n".join(["cluster\trank\tgene", *rows]) + "\n")
    labels = "1\t9\ttumour\ttumour\t0.5\t1\n2\t9\ttumour\ttumour\t0.5\t1\n"
    (folder / "annotation.tsv").write_text(f"cluster\tsuperpixels\tbest_label\tlabel\tmean_score\tshare\n{labels}")
    page = _reported(job)
    told = "cluster 1 of 2 is labelled tumour, its marker genes G1 and G2 are those of lymphoid"
    assert f"Labels contradict clusters: {told}." in page
    assert f"A contradiction: {told}." in page
    assert "cluster 2 of 2 is labelled" not in page
    assert "(by a rule that is told)" in page
    store.mark("annotation", "MotherImage/markers.csv is gone")
    (job.store.folder / "report.html").unlink()
    page = _reported(job)
    assert "annotation is of an earlier run: MotherImage/markers.csv is gone" in page
    assert "contradict" not in page
    assert "label by your markers" not in page


def test_alignments_and_warnings_come_first(job: Job) -> None:
    folder = job.store.folder / "alignment"
    folder.mkdir()
    placed = {"how": "images", "verdict": "doubtful", "reasons": ["Outlines agree by 54%."], "quality": {"iou": 0.54}}
    (folder / "alignment.json").write_text(json.dumps({"D1": placed, "gone": placed}))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "D1.png")
    job.notices.append("Warning: 3 of 36 spots (D2) lie off the tissue.")
    page = _reported(job)
    findings = re.findall(r'<li class="(\w+)"><span class="mark">\w+</span> <span>(.*?)</span>', page)
    assert findings[:2] == [
        ("doubtful", "Capture D1: its alignment is doubtful. Outlines agree by 54%."),
        ("doubtful", "3 of 36 spots (D2) lie off the tissue."),
    ]
    assert "Alignment of D1." in page
    assert "gone" not in page


def test_a_truth_is_told_by_medians_over_genes(job: Job) -> None:
    folder = job.store.folder / "evaluation" / "truth-xenium <b>"
    folder.mkdir(parents=True)
    rows = ["G0 1 0.2 0.5", "G1 1 0.4 NA", "G0 spot 0.1 0.9", "G1 spot 0.3 0.7"]
    lines = ["\t".join(row.split()) for row in ("gene block rmse pearson", *rows)]
    (folder / "genes.tsv").write_text("\n".join(lines) + "\n")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "superpixels-pearson-1.png")
    page = _reported(job)
    assert "xenium &lt;b&gt;" in page
    cell = '<td class="n">(.*?)</td>'
    cells = re.findall(f'<th scope="row">(1 x 1|spot)</th><td class="n">2</td>{cell}{cell}', page)
    assert cells == [("1 x 1", "0.300", "0.500"), ("spot", "0.200", "0.800")]
    assert "Pearson over the genes, in every superpixel." in page


def test_a_damaged_table_is_as_good_as_none(job: Job) -> None:
    path = job.store.folder / "evaluation" / "trust-capture.tsv"
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00gene")
    assert "Median score of 8 genes on spots that the fit kept back" in _reported(job)

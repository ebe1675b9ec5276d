"""Stage ``report``: one page that says what the run found, and how far it can be believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iscale.engine.ledger import fingerprint
from iscale.engine.plan import Resources, single_task
from iscale.engine.step import Step
from iscale.geometry import Region, SlideGrid
from iscale.plots.overview import TILE
from iscale.report.captures import captures_findings, captures_section, read_captures, slide_section
from iscale.report.classes import annotation_section, clusters_section, contradiction_findings, refine_section
from iscale.report.genes import genes_section, uncertainty_section
from iscale.report.page import Finding, render, write_page
from iscale.report.provenance import parameters_section, provenance_section, timings_section
from iscale.report.scene import FOLDER, Scene, share_of, tissue_box
from iscale.report.scores import read_scores, scores_findings, scores_section, truth_section
from iscale.store.layout import GENES_PER_CHUNK
from iscale.store.run_store import RunStore
from iscale.words import plural

if TYPE_CHECKING:
    from iscale.plan.job import Job
    from iscale.plan.workers import Workers

PAGE = "report.html"
VERSION = 2
"""Raised when the page of the same run changes."""

GROUPS = ("image", "tissue", "features", "captures", "training", "expression", "clusters", "annotation")
WEIGHTS = ("bad", "doubtful", "good", "note")
"""What matters most comes first."""

TABLES = ("evaluation", "alignment")
"""Folders whose tables and JSON files the page shows: it is made anew when one of them changes."""


def write_report_page(scene: Scene, region: Region) -> None:
    """Draw the figures, and write the page."""
    del region
    share_of.cache_clear()
    tissue_box.cache_clear()
    for figure in scene.folder.glob("*.png"):
        figure.unlink()
    captures, scores = read_captures(scene), read_scores(scene)
    sections = [
        slide_section(scene, {capture.name: capture.xy_um for capture in captures}),
        captures_section(scene, captures),
        scores_section(scene, scores),
        genes_section(scene, scores),
        uncertainty_section(scene),
        clusters_section(scene),
        annotation_section(scene),
        refine_section(scene),
        truth_section(scene),
        parameters_section(scene),
        provenance_section(scene),
        timings_section(scene),
    ]
    said = scene.notices or tuple(str(text) for text in scene.report().get("notices", ()))
    warnings = [Finding("doubtful", text.replace("Warning: ", "")) for text in said if "Warning: " in text]
    findings = [
        *_outdated(scene),
        *scores_findings(scores),
        *captures_findings(captures),
        *contradiction_findings(scene),
        *warnings,
    ]
    findings.sort(key=lambda finding: WEIGHTS.index(finding.weight))
    lead = (
        f"Spatial gene expression of {plural(len(scene.genes()), 'gene')}, predicted for every "
        f"{scene.grid.superpixel_um:g} µm of tissue from the stained slide and from what was measured on parts of it."
    )
    notices = [text for text in said if "Warning: " not in text]
    write_page(scene.store.folder / PAGE, render(scene.project.name, lead, findings, notices, sections))


def _outdated(scene: Scene) -> list[Finding]:
    """What of the run is of an earlier one."""
    parts = (*GROUPS, "clusters/refined")
    marked = [(part, scene.store.outdated(part)) for part in parts if scene.store.has(part)]
    return [Finding("bad", f"{group} is of an earlier run: {why}. Run it again.") for group, why in marked if why]


def report_steps(
    store: RunStore,
    grid: SlideGrid,
    project: Path,
    options: dict[str, Any],
    notices: tuple[str, ...],
    *,
    inputs: tuple[str, ...],
    resources: Resources,
) -> Iterator[Step]:
    """The step that writes ``report.html`` and its figures.

    Parameters
    ----------
    project, options
        The project folder; the options of the run, by name, JSON-able.
    notices
        What the run had to say of its input; empty: what its last ``report.json`` says.
    inputs
        Fingerprints of the last step of every stage before. Tables of evaluations and alignments, which other commands
        write too, are looked at besides.
    """
    scene = Scene(store, grid, project, options, notices)
    # Some rows of a chunk of genes, read and reduced; matplotlib and the pictures of the page.
    task_bytes = 2 * GENES_PER_CHUNK * 2 * TILE * TILE + 16 * 4 * TILE * TILE + 350 * 2**20
    parameters = {
        "version": VERSION,
        "options": json.dumps(options, sort_keys=True, default=str),
        "files": _tables(store),
    }
    yield Step(
        name="report",
        kernel=write_report_page,
        context=scene,
        plan=single_task("report", task_bytes, resources),
        fingerprint=fingerprint("report", parameters, *inputs),
        outputs=(store.folder / PAGE,),
        disk_bytes=40_000_000,
        files=60,
        note=f"{PAGE}, figures in {FOLDER}/",
        where="here",
    )


def _tables(store: RunStore) -> dict[str, str]:
    """Hashes of the tables that other commands write, by their place."""
    found = sorted(
        path for folder in TABLES for path in (store.folder / folder).rglob("*") if path.suffix in (".tsv", ".json")
    )
    return {str(path.relative_to(store.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def steps(job: Job, workers: Workers, made: Mapping[str, str]) -> Iterator[Step]:
    """Steps of the stage for a job (:class:`iscale.stages.Stage`)."""
    yield from report_steps(
        job.store,
        job.grid,
        job.project,
        job.options.model_dump(mode="json"),
        tuple(job.notices),
        inputs=tuple(made.values()),
        resources=workers.of("here"),
    )

"""``iscale check``: everything about a project that can be told in seconds, before any work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from iscale.align.landmarks import find_landmarks
from iscale.captures.integrate import LEAST_SPOTS
from iscale.captures.merge import least_merged, merge_labels
from iscale.check.captures import capture_findings, shared_placed
from iscale.check.counts import FINE_UM, Depth, check_depth, check_genes, check_largest, check_named, check_places
from iscale.check.explain import FITS, Tissue
from iscale.check.finding import CheckReport, Finding, errors_first
from iscale.check.placing import check_radius, own_placement, placement_of
from iscale.check.positions import Verdict, findings, judge, own_pixel_size
from iscale.check.sample import Sample, read_sample
from iscale.errors import IscaleError
from iscale.geometry import SUPERPIXEL_PX
from iscale.model.discs import disc_offsets
from iscale.options import Options, recall_options
from iscale.plan.job import Job
from iscale.project.files import CaptureFiles, find_captures, read_gene_names
from iscale.project.layout import ALIGNED_FOLDERS, CAPTURES_FOLDER, UNALIGNED_FOLDERS
from iscale.regions.marker_table import named_markers
from iscale.slide.colour import why_not_stained
from iscale.slide.overview import read_overview
from iscale.slide.user_mask import read_user_mask
from iscale.words import plural

OVERVIEW_PX = 1024
LEAST_TISSUE = 0.002
"""With less of the image tissue than this there is nothing to hold spots against."""

STATED_REMEDY = "If the metadata are right, remove --pixel-size-raw, pixel-size-raw.txt or the line in iscale.toml."

STAIN_REMEDY = (
    "Give the H&E image of the section. If this one is meant, say --any-stain; the tissue mask and the features are "
    "made for stains in transmitted light, so give a mask of your own, and look at the results."
)

T = TypeVar("T")


@dataclass
class _Check:
    """A check under way."""

    root: Path
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def tried(self, work: Callable[..., T], *args: Any, capture: str | None = None) -> T | None:
        """What some work gives, or None with its error as a finding."""
        try:
            return work(*args)
        except IscaleError as error:
            self.findings.append(Finding("input", error.problem, error.remedy or "Correct the input.", capture))
        except OSError as error:
            what = f"{error.filename or self.root} cannot be read: {error.strerror or error}."
            self.findings.append(Finding("input", what, "Check that it is there and yours to use.", capture))
        return None

    @property
    def failed(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)


def run_check(project: str | Path, options: Mapping[str, Any] | None = None, job: Job | None = None) -> CheckReport:
    """Check a project without running anything or writing anything.

    Parameters
    ----------
    project
        The project folder.
    options
        Fields of :class:`iscale.options.Options`; they win over the project's ``iscale.toml``, None over nothing.
    job
        The run that the check is for, its options instead: what it has read is not read again.
    """
    start = time.perf_counter()
    root = Path(project).expanduser()
    check = _Check(root)
    if job is not None:
        _check(check, job.options, job)
    elif (chosen := check.tried(recall_options, root, dict(options or {}))) is not None:
        if chosen[1]:
            check.facts["options"] = chosen[1]
        _check(check, chosen[0], None)
    found = errors_first(check.findings)
    return CheckReport(str(root), found, check.facts, time.perf_counter() - start)


def _check(check: _Check, options: Options, job: Job | None) -> None:
    from iscale.check.resources import device_findings

    gone, device = device_findings(options)
    check.findings += gone
    check.facts["device"] = device
    if gone:  # all else is told as it would be without a GPU
        options = options.model_copy(update={"device": "cpu"})
    image = Job(check.root, options, with_captures=False, readings=job.readings if job else None)
    mother = check.tried(_mother, image)
    if not check.root.is_dir():
        return
    captures = _captures(check, options)
    if mother is None:
        return
    tissue, doubt = mother
    share, drawn = float(tissue.mask.mean()), image.files.user_mask
    if drawn is not None and (mask := check.tried(read_user_mask, drawn, image.grid)) is not None:
        within = tissue.drawn(mask, image.grid.scale / SUPERPIXEL_PX, image.grid.superpixel_shape)
        share = float(within.mean())
        check.facts["tissue mask"] = "; ".join([f"{drawn.name}: {share:.0%} of the slide", *mask.notices])
        tissue = replace(tissue, mask=tissue.mask | within)  # a mask of a part is no reason to doubt places beside it
    elif doubt and not options.any_stain:  # what is taken for tissue then is none
        tissue = replace(tissue, mask=np.zeros_like(tissue.mask))
    _image(check, image, tissue, doubt)
    samples = []
    for files in captures:
        known = image.files, image.grid, options, check.root, image.readings
        sample = check.tried(read_sample, files, *known, capture=files.name)
        if not files.is_aligned and sample is not None:
            check.findings.append(_unaligned(files, sample, check.root))
        if sample is not None:
            samples.append(sample)
    verdicts = _positions(check, samples, tissue, image)
    _contents(check, samples, verdicts, image)
    if not all(files.is_aligned for files in captures):
        check.facts["memory, disk, time"] = "told when all captures are aligned"
    elif captures and not check.failed:
        # A run asks for findings alone: its driving process measures no rate, for which it would import torch.
        _resources(check, job or Job(check.root, options, readings=image.readings), None if job else share)


def _image(check: _Check, image: Job, tissue: Tissue, doubt: str) -> None:
    """What is said of the mother image: its size, its tissue, and why it is no stained tissue, if so."""
    name, share = image.files.mother_image.name, tissue.mask.mean()
    said = [text.removeprefix("mother image: ") for text in image.notices]
    facts = [text for text in said if not text.startswith("Warning: ")] or [str(image.grid)]
    check.facts["mother image"] = "; ".join([*facts, f"{share:.0%} tissue"])
    for text in said:
        if text.startswith("Warning: "):
            check.findings.append(Finding("pixel-size-stated", f"{text.removeprefix('Warning: ')}.", STATED_REMEDY))
    if doubt and image.options.any_stain:
        check.facts["stain"] = f"taken as it is, by --any-stain: {doubt}"
    elif doubt:
        message = f"The mother image, {name}, is no H&E by its colours: {doubt}."
        check.findings.append(Finding("no-stain", message, STAIN_REMEDY))
    elif share < LEAST_TISSUE:
        message = f"The mother image shows no tissue: {share:.2%} of {name}."
        remedy = (
            "Check that it is the image that was stained, and whole; of grey ones, draw the tissue as mask-raw.png."
        )
        check.findings.append(Finding("no-tissue", message, remedy))


def _unaligned(files: CaptureFiles, sample: Sample, root: Path) -> Finding:
    """A capture that nothing places yet, and whether there is something to place it by."""
    what = "It is not aligned: there is neither transform.json nor locs.* that places it on the mother image"
    folders = [folder for folder in (files.aligned, files.source) if folder is not None and folder.is_dir()]
    if sample.image is not None or any(find_landmarks(folder) for folder in folders):
        remedy = f"A run aligns it first; better do it now, and look at the figure: iscale align {root}"
        return Finding("not-aligned", f"{what}.", remedy, files.name)
    remedy = f"Give landmarks or a matrix: iscale align {root} --captures {files.name} --landmarks FILE"
    return Finding("cannot-align", f"{what}, and neither an image of its own nor landmarks.", remedy, files.name)


def _mother(image: Job) -> tuple[Tissue, str]:
    """The tissue of the mother image, and why it is no stained tissue, if so."""
    grid = image.grid
    overview = read_overview(image.files.mother_image, OVERVIEW_PX, grid.raw_pixel_size_um)
    tissue = Tissue.of(overview, grid.raw_shape_px)
    return tissue, why_not_stained(overview.rgb, tissue.mask)


def _captures(check: _Check, options: Options) -> list[CaptureFiles]:
    """Files of the captures; one that cannot be used does not hide the others."""
    try:
        return list(find_captures(check.root, options.captures))
    except IscaleError as error:
        parents = [check.root / CAPTURES_FOLDER / name for name in (*ALIGNED_FOLDERS, *UNALIGNED_FOLDERS)]
        there = {
            p.name for parent in parents if parent.is_dir() for p in parent.iterdir() if not p.name.startswith(".")
        }
        found: list[CaptureFiles] = []
        before = len(check.findings)
        for name in options.captures or sorted(there):
            found += check.tried(find_captures, check.root, [name], capture=name) or ()
        if len(check.findings) == before:
            check.findings.append(Finding("input", error.problem, error.remedy))
        return found


def _positions(check: _Check, samples: list[Sample], tissue: Tissue, image: Job) -> dict[str, Verdict]:
    """Verdicts on the mother image by capture; where a capture fits neither image, that on its own is told."""
    raw_um = image.grid.raw_pixel_size_um
    on_mother, on_own = [], []
    for sample in samples:
        placement = placement_of(sample, tissue, image.grid) if tissue.mask.mean() >= LEAST_TISSUE else None
        verdict = judge(placement) if placement else None
        if verdict is None or verdict.code or verdict.explanation.before.overlap < FITS:
            own = check.tried(own_placement, sample, capture=sample.name)
            other = judge(own) if own else None
            if other and other.code:
                on_own.append(other)
                continue
        if verdict is not None:
            on_mother.append(verdict)
    check.findings += findings(on_mother) + [finding for verdict in on_own for finding in findings([verdict])]
    verdicts = {verdict.placement.name: verdict for verdict in on_mother}
    for sample in samples:
        check.facts[sample.name] = _described(sample, verdicts.get(sample.name), raw_um)
        if sample.notices:
            check.facts[f"{sample.name}, as read"] = " ".join(sample.notices)
        check.findings += own_pixel_size(sample)
    check.findings += check_radius(samples, verdicts, image.files, raw_um)
    return verdicts


def _described(sample: Sample, verdict: Verdict | None, raw_um: float) -> str:
    said = [
        sample.platform,
        f"{len(sample.spot_ids):,} spots, {len(sample.genes):,} genes, median depth {np.median(sample.depth):,.0f}",
    ]
    if sample.radius_um is not None:
        said.append(f"radius {sample.radius_um:.4g} um")
    if verdict is not None:
        said.append(f"{verdict.placement.pitch.px * raw_um:.4g} um apart")
        before = verdict.explanation.before
        said.append(f"{before.on_tissue:.0%} on tissue, outlines agree to {before.overlap:.2f}")
    return ", ".join(said)


def _contents(check: _Check, samples: list[Sample], verdicts: dict[str, Verdict], image: Job) -> None:
    genes = {sample.name: sample.genes for sample in samples}
    found, shared = check_genes(genes)
    check.findings += found
    check.facts["genes"] = f"{shared:,} shared by {plural(len(samples), 'capture')}"
    if not found:
        _named_genes(check, genes, image)
    check.findings += check_depth(
        {
            sample.name: Depth(
                float(np.median(sample.depth)), sample.whole_numbers, len(sample.genes), _is_of_spots(sample)
            )
            for sample in samples
        }
    )
    for sample in samples:
        if sample.radius_um is not None:
            disc = len(disc_offsets(sample.radius_um / image.grid.superpixel_um))
            check.findings += check_largest(sample.name, sample.depth, disc)
        if sample.xy_px is not None and _is_of_spots(sample):
            check.findings += check_places(sample.name, sample.xy_px)
    doubted = {f.capture for f in check.findings if f.code.startswith(("coordinates", "spots", "depth-low", "counts"))}
    if any(f.code.startswith(("coordinates", "pixel-size", "genes-")) and not f.capture for f in check.findings):
        doubted = set(genes)  # what is wrong with all of them makes them disagree as well
    placed = shared_placed(samples, verdicts, doubted)
    compared, facts = capture_findings(placed)
    check.findings += compared
    check.facts |= facts
    _merging(check, samples, image)


def _is_of_spots(sample: Sample) -> bool:
    return sample.platform in ("visium", "tables") or (sample.platform_pitch_um or 0) > FINE_UM


def _named_genes(check: _Check, genes: Mapping[str, tuple[str, ...]], image: Job) -> None:
    files = image.files
    if files.gene_names is not None:
        named = check.tried(read_gene_names, files.gene_names)
        check.findings += check_named("genes-not-measured", files.gene_names.name, named or (), genes)
    if files.markers is not None:
        named = check.tried(named_markers, files.markers)
        check.findings += check_named("markers-not-measured", files.markers.name, named or (), genes)


def _merging(check: _Check, samples: list[Sample], image: Job) -> None:
    """Whether merging would leave enough to train on."""
    placed_px = [sample.xy_px * image.grid.scale for sample in samples if sample.xy_px is not None]
    if not placed_px or check.failed:
        return
    at = np.concatenate(placed_px)
    distance = image.options.dist_st
    if least_merged(at, distance) >= LEAST_SPOTS:
        return
    left = int(merge_labels(at, distance).max()) + 1
    if left < LEAST_SPOTS:
        message = (
            f"{len(at)} spots of {len(placed_px)} captures become {left} when those within {distance:g} px are merged."
        )
        remedy = f"At least {LEAST_SPOTS} are needed to train: add captures, or merge less (--dist-st)."
        check.findings.append(Finding("too-few-spots", message, remedy))


def _resources(check: _Check, job: Job, tissue_share: float | None) -> None:
    from iscale.check.resources import hours, plan_findings, weights_fact
    from iscale.plan.steps import check_inputs
    from iscale.stages import LAST, stages

    def plan() -> None:
        check_inputs(job, stages()[LAST])
        job.store.check()
        found, facts = plan_findings(job)
        check.findings.extend(found)
        check.facts.update(facts)
        spec = job.encoder
        check.facts["encoder"] = spec.name
        check.facts["weights"] = weights_fact(spec.weights)
        if tissue_share is not None:
            check.facts["time"] = hours(job, tissue_share)

    check.tried(plan)

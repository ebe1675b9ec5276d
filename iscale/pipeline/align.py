"""``iscale align``: a transform for every capture of a project, and the figures that show that it is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from iscale.align import placement
from iscale.align.quality import BAD, Quality, measure, quality_table, quality_text, verdict
from iscale.align.structure import Stain, stain_of
from iscale.errors import InputError, IscaleError
from iscale.options import Options, recall_options
from iscale.plan.job import Job
from iscale.project.files import CaptureFiles, find_captures
from iscale.slide.overview import Overview, read_overview
from iscale.transform import TRANSFORM_FILE, Kind, Transform, read_transform, write_transform

if TYPE_CHECKING:
    from iscale.captures.measured import Measured

EARLIER_FILE = "transform-earlier.json"
FOLDER = "alignment"
"""Folder of the output that holds figures and tables of the alignment."""


@dataclass(frozen=True)
class Wishes:
    """How the user wants captures aligned.

    Attributes
    ----------
    matrix, landmarks
        Files that place the one capture that is aligned.
    automatic
        Search by the images, whatever else there is.
    refine
        Move the capture, from where the other ways put it, to where the images agree most.
    kind
        ``similarity`` or ``affine``.
    again
        Do not keep a ``transform.json`` that is there.
    """

    matrix: Path | None = None
    landmarks: Path | None = None
    automatic: bool = False
    refine: bool = False
    kind: Kind = "similarity"
    again: bool = False

    @property
    def asks(self) -> bool:
        """Whether something is to be done where there is a transform already."""
        return bool(self.matrix or self.landmarks or self.automatic or self.refine or self.again)


@dataclass(frozen=True)
class Aligned:
    """A capture that was placed.

    Attributes
    ----------
    name
        The capture.
    transform
        From its full-resolution pixels to the mother's.
    file
        Where that is written.
    quality, word, reasons
        What was measured of it, the verdict, and why.
    figure
        The overlay.
    """

    name: str
    transform: Transform
    file: Path
    quality: Quality
    word: str
    reasons: tuple[str, ...]
    figure: Path


def checked_kind(word: str) -> Kind:
    """``similarity`` or ``affine``.

    Raises
    ------
    InputError
        It is neither.
    """
    for kind in get_args(Kind):
        if word == kind:
            return cast(Kind, kind)
    raise InputError(f"--kind {word}: no such transform.", "Say similarity, or affine.")


def align_project(project: Path, wishes: Wishes, *, watcher: Any, **options: Any) -> tuple[str, bool]:
    """Place the captures of a project; what was found, as text, and whether any lies badly.

    Raises
    ------
    InputError
        A capture cannot be placed; the others are, and are kept.
    """
    root = Path(project).expanduser()
    chosen, recalled = recall_options(root, options)
    if recalled:
        watcher.say(recalled)
    job = Job(root, chosen, with_captures=False)
    done = align_captures(job, job.options.captures, wishes, watcher, notices=True)
    lines = [quality_text([(a.name, a.quality) for a in done])]
    for a in done:
        lines += [f"{a.name}: {a.word}: {reason}" for reason in a.reasons]
    lines += [f"Look at {a.figure}" for a in done]
    return "\n".join(lines), any(a.word == BAD for a in done)


def align_missing(project: Path, options: Options, watcher: Any) -> None:
    """Place those captures of a project that have no place yet.

    Raises
    ------
    InputError
        One cannot be placed, or only badly.
    """
    waiting = tuple(c.name for c in find_captures(project, options.captures) if not c.is_aligned)
    if not waiting:
        return
    job = Job(project, options, with_captures=False)
    others = [c.name for c in find_captures(project, options.captures) if c.is_aligned]
    leave_out = f" Or leave it out: --captures {' '.join(others)}." if others else ""
    try:
        align_captures(job, waiting, Wishes(), watcher)
    except InputError as error:
        raise InputError(error.problem, error.remedy + leave_out) from None


def align_captures(
    job: Job, names: tuple[str, ...] | None, wishes: Wishes, watcher: Any, *, notices: bool = False
) -> list[Aligned]:
    """Place captures on the mother image, each by the first way that is open to it.

    A matrix or landmarks that are named; else a ``transform.json`` that is there, unless told to align again; the
    mother image being the capture's own; landmarks in its folders; aligned tables; the search by its image.
    ``transform.json`` is only written when all of that succeeded, a capture at a time. ``notices`` of how captures were
    read are said; a run says them itself.

    Raises
    ------
    InputError
        A capture cannot be placed; the others are, and are kept.
    """
    captures = [files for files in find_captures(job.project, names) if files.source is not None]
    if not captures:
        raise InputError(
            f"{job.project} has no capture to align: those there are given by aligned tables only.",
            "Put what was measured, with its own image, into DaughterCaptures/UnallignedToMother/<capture>/.",
        )
    if (wishes.matrix or wishes.landmarks) and len(captures) > 1:
        raise InputError(
            f"One file of landmarks, or one matrix, places one capture; there are {len(captures)}.",
            f"Name it: --captures {captures[0].name}.",
        )
    from iscale.captures.platforms import read_measured

    mother = read_overview(job.files.mother_image, placement.MOTHER_PX, job.grid.raw_pixel_size_um)
    mother_stain = stain_of(mother)
    watcher.start("align", len(captures), 0)
    done: list[Aligned] = []
    failed: dict[str, IscaleError] = {}
    try:
        for number, files in enumerate(captures, start=1):
            try:
                assert files.source is not None
                measured = read_measured(files.source, **job.options.reading(files.name, job.project))
                for notice in measured.notices if notices else ():
                    watcher.say(f"{files.name}: {notice}")
                done.append(_align(job, files, measured, mother, mother_stain, wishes, watcher.say))
            except IscaleError as error:
                failed[files.name] = error
            watcher.advance("align")
            watcher.reach("align", number)
    finally:
        watcher.stop("align")
        if done:
            write_tables(job.store.folder / FOLDER, done)
    if failed:
        raise _not_placed(failed, done)
    return done


def _not_placed(failed: dict[str, IscaleError], done: list[Aligned]) -> InputError:
    """One error for all captures that could not be placed, the first one's remedy with it."""
    name, first = next(iter(failed.items()))
    problem = first.problem if name in first.problem else f"Capture {name}: {first.problem}"
    others = [n for n in failed if n != name]
    if others:
        problem += f" Nor could {', '.join(others)} be placed."
    if done:
        problem += f" Placed, and kept: {', '.join(a.name for a in done)}."
    return InputError(problem, first.remedy)


def _align(
    job: Job,
    files: CaptureFiles,
    measured: Measured,
    mother: Overview,
    mother_stain: Stain,
    wishes: Wishes,
    say: Callable[[str], None],
) -> Aligned:
    from iscale.captures.counts import depth_of
    from iscale.captures.read import measured_radius_um
    from iscale.plots.alignment import draw_alignment

    scene = placement.Scene(files, measured, job.files.mother_image, mother, job.grid)
    after = place(scene, wishes, lambda text: say(f"{files.name}: {text}"))
    radius_um = measured_radius_um(measured, after, job.grid) or job.grid.superpixel_um
    radius_px = radius_um / job.grid.raw_pixel_size_um / after.scale
    capture = placement.capture_overview(measured)
    depth = depth_of(measured.counts)
    residual_um = after.measures.get("residual_um")
    quality = measure(
        capture, mother, after, measured.xy_px, radius_px, depth, residual_um=residual_um, mother_stain=mother_stain
    )
    word, reasons = verdict(quality)
    figure = job.store.folder / FOLDER / f"{files.name}.png"
    draw_alignment(figure, capture, mother, unplaced(scene), after, measured.xy_px, radius_px, files.name, quality)
    target = files.aligned / TRANSFORM_FILE
    if target != files.transform or wishes.asks:
        if word == BAD and not wishes.matrix:
            raise _bad(reasons, after, figure)
        if target.exists():
            target.replace(target.with_name(EARLIER_FILE))
            say(f"{files.name}: the transform that was there is kept as {EARLIER_FILE}")
        write_transform(target, after)
    say(f"{files.name}: {after}; {word}")
    return Aligned(files.name, after, target, quality, word, tuple(reasons), figure)


def _bad(reasons: list[str], found: Transform, figure: Path) -> InputError:
    """What was found is not written to where it counts, but beside the figure, for who knows better."""
    beside = figure.with_name(f"{figure.stem}-refused.json")
    write_transform(beside, found)
    swapped = " A mirrored fit is what landmarks give whose x and y are swapped." if found.mirrored else ""
    return InputError(
        f"It was placed ({found}), but badly: {' '.join(reasons)}{swapped}",
        f"Look at {figure}. What was there is kept; to use this one all the same: --matrix {beside}",
    )


def place(scene: placement.Scene, wishes: Wishes, say: Callable[[str], None]) -> Transform:
    """Place one capture by the first way that is open to it, and refine that where it is wished.

    Raises
    ------
    InputError
        By that way it cannot be placed, or not be refined.
    """
    found = _placed(scene, wishes, say)
    return placement.refined(scene, wishes.kind, found) if wishes.refine else found


def _placed(scene: placement.Scene, wishes: Wishes, say: Callable[[str], None]) -> Transform:
    if wishes.matrix:
        return placement.by_matrix(wishes.matrix)
    if wishes.landmarks:
        found = placement.by_landmarks(scene, wishes.landmarks, wishes.kind, say)
        assert found is not None
        return found
    if wishes.automatic:
        return placement.by_images(scene, wishes.kind)
    if scene.files.transform is not None and not wishes.again:
        return read_transform(scene.files.transform)
    return (
        placement.by_own_image(scene)
        or placement.by_landmarks(scene, None, wishes.kind, say)
        or placement.by_tables(scene)
        or placement.by_images(scene, wishes.kind)
    )


def unplaced(scene: placement.Scene) -> Transform:
    """Where a capture would lie if nobody aligned it: upright, at the scale of the pixel sizes, middle on middle."""
    own_um, mother_um = scene.measured.um_per_px, scene.grid.raw_pixel_size_um
    matrix = np.diag([own_um / mother_um, own_um / mother_um, 1.0]) if own_um else np.eye(3)
    middle = (scene.measured.xy_px.min(axis=0) + scene.measured.xy_px.max(axis=0)) / 2
    height, width = scene.grid.raw_shape_px
    matrix[:2, 2] = np.array([width / 2, height / 2]) - matrix[:2, :2] @ middle
    return Transform(matrix, "not aligned")


def write_tables(folder: Path, aligned: list[Aligned]) -> None:
    """Write ``alignment.tsv`` and ``alignment.json``, one row or object per capture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alignment.tsv").write_text(quality_table([(a.name, a.quality) for a in aligned]))
    document = {
        a.name: {
            "transform": str(a.file),
            "matrix": a.transform.matrix.tolist(),
            "how": a.transform.how,
            "measures": dict(a.transform.measures),
            "quality": asdict(a.quality),
            "verdict": a.word,
            "reasons": list(a.reasons),
        }
        for a in aligned
    }
    (folder / "alignment.json").write_text(json.dumps(document, indent=1) + "\n")

"""Whether the spots lie where they were measured, and what that says of the pixel size.

Three things must agree: where the spots lie on the tissue, how far they are apart, and how large a pixel is said to be.
Which of them is wrong follows from which two still agree, so one cause is one finding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iscale.check.explain import NEAR_ONE, Explanation, Tissue, explain
from iscale.check.finding import Finding
from iscale.check.sample import Pitch, Sample

KNOWN_FACTOR = 0.03
"""A factor is taken for a known one within this, relatively: outlines tell it to a per cent or two."""

SAME_CAUSE = 0.04
"""Captures whose factors differ by no more than this, relatively, have one cause."""

OWN_PIXEL_SIZE = 0.03
"""Pixel size from a lattice is right to half a per cent."""

OFF_TISSUE = 0.15
"""A share of spots off the tissue above this is told; on sections that are laid right it was 0.06 at most."""


MOSTLY_OFF = 1 / 3
"""With more of the spots off the tissue than this a run would learn from glass."""


@dataclass(frozen=True)
class Placement:
    """Spots of a capture as they are placed on an image, its own or the mother image.

    Attributes
    ----------
    xy, pitch
        (spot, 2) in full-resolution pixels of that image; of the spots, in the same.
    um_per_px
        What a pixel of that image is said to be; None where nothing is said, and of a capture's own image, whose pixel
        size is mostly taken from the pitch.
    known
        Factors by which positions are wrong if they count in other pixels, by what these are.
    may_leave
        Whether spots beside the image are left out, rather than refused.
    analysis_um
        Side of an analysis pixel in um, where the positions are a table in such pixels.
    """

    name: str
    tissue: Tissue
    xy: NDArray[np.float64]
    depth: NDArray[np.float64]
    pitch: Pitch
    um_per_px: float | None
    own: bool = False
    known: Mapping[str, float] = field(default_factory=dict)
    may_leave: bool = False
    analysis_um: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a placement.

    Attributes
    ----------
    ratio
        The spots' pitch at the stated pixel size, over the platform's; None where either is not known.
    code, value
        Of the finding, empty where nothing is wrong with orientation or scale; the factor of the positions, or the true
        pixel size in um, that goes with it.
    """

    placement: Placement
    explanation: Explanation
    ratio: float | None
    code: str = ""
    value: float = 1.0

    @property
    def scale(self) -> float:
        """Factor that brings the positions to the image's pixels."""
        return self.value if self.code == "coordinates-scaled" else self.explanation.factor


def judge(placement: Placement) -> Verdict:
    """Find what is wrong with one placement."""
    pitch, um = placement.pitch, placement.um_per_px
    ratio = None if um is None or pitch.um is None else pitch.px * um / pitch.um
    expected = [1 / ratio] if ratio is not None and _off(ratio) else []
    found = explain(placement.tissue, placement.xy, placement.depth, pitch, expected)
    if found.kind in ("swapped", "mirrored", "rotated"):
        return Verdict(placement, found, ratio, f"coordinates-{found.kind}")
    if ratio is None or um is None:
        code = "coordinates-scaled" if found.kind == "scaled" else ""
        return Verdict(placement, found, ratio, code, found.factor)
    # With the positions as the tissue asks for them, is the pitch still not the platform's? Then the pixel size is.
    left = ratio * found.factor
    if _off(left):
        return Verdict(
            placement, found, ratio, "pixel-size-capture" if placement.own else "pixel-size-mother", um / left
        )
    if found.kind == "scaled":
        return Verdict(placement, found, ratio, "coordinates-scaled", found.factor)
    return Verdict(placement, found, ratio)


def own_pixel_size(sample: Sample) -> list[Finding]:
    """Whether what a capture's files say of its own pixels is what the pitch of its spots says."""
    if sample.own_um_per_px is None or sample.own_xy_px is None:
        return []
    pitch = sample.pitch(sample.own_xy_px)
    if pitch is None or pitch.um is None:
        return []
    true = pitch.um / pitch.px
    # Positions in whole pixels make neighbours seem up to a pixel nearer than they are.
    if abs(math.log(sample.own_um_per_px / true)) <= math.log(1 + OWN_PIXEL_SIZE + 1 / pitch.px):
        return []
    message = (
        f"A pixel of its own image is said to be {sample.own_um_per_px:.4g} um, but its spots, {pitch.um:g} um apart "
        f"on the array, are {pitch.px:.4g} of its pixels apart: a pixel is {true:.4g} um."
    )
    remedy = f"Correct pixel_size_um of [capture.{sample.name}] in iscale.toml, or the file that says so."
    return [Finding("pixel-size-capture", message, remedy, sample.name)]


def findings(verdicts: Sequence[Verdict]) -> list[Finding]:
    """Findings about captures on one image; one for all of them where they have one cause."""
    wrong = [_settled(verdict, verdicts) for verdict in verdicts if verdict.code]
    result = []
    of_all = len(wrong) == len(verdicts) > 1 and len({(v.code, v.explanation.how) for v in wrong}) == 1
    if (of_all and _alike(wrong)) or (wrong and all(v.code == "pixel-size-mother" for v in wrong)):
        result.append(_finding(wrong[0], [v.placement.name for v in wrong]))
    else:
        result += [_finding(verdict, [verdict.placement.name]) for verdict in wrong]
    for verdict in verdicts:
        if not verdict.code:
            result += _beside(verdict)
    return result


def _off(ratio: float) -> bool:
    return abs(math.log(ratio)) > math.log(1 + NEAR_ONE)


def _alike(verdicts: Sequence[Verdict]) -> bool:
    values = [verdict.value for verdict in verdicts]
    return max(values) <= min(values) * (1 + SAME_CAUSE)


def _settled(verdict: Verdict, verdicts: Sequence[Verdict]) -> Verdict:
    """The pixel size of the mother image is to blame only where no capture contradicts that."""
    if verdict.code != "pixel-size-mother":
        return verdict
    others = [other for other in verdicts if other.ratio is not None]
    if all(other.code == "pixel-size-mother" for other in others) and _alike(others):
        return verdict
    assert verdict.ratio is not None
    factor = verdict.explanation.factor if verdict.explanation.kind == "scaled" else 1 / verdict.ratio
    return Verdict(verdict.placement, verdict.explanation, verdict.ratio, "coordinates-scaled", factor)


def _finding(verdict: Verdict, names: Sequence[str]) -> Finding:
    of = names[0] if len(names) == 1 else None
    who = f"All {len(names)} captures ({', '.join(names)})" if of is None else f"The spots of {of}"
    if verdict.code == "coordinates-scaled":
        return _scaled(verdict, who, of)
    if verdict.code == "pixel-size-mother":
        return _pixel_size(verdict, names)
    before, after = verdict.explanation.before, verdict.explanation.after
    own = verdict.placement.own
    message = (
        f"{who} fit the {'own' if own else 'mother'} image when they are {verdict.explanation.how}: outlines then "
        f"agree to {after.overlap:.2f} instead of {before.overlap:.2f}, {after.on_tissue:.0%} lie on tissue instead of "
        f"{before.on_tissue:.0%}, depth follows the stain with a rank correlation of {after.depth:.2f}."
    )
    if verdict.placement.pitch.flipped and verdict.code != "coordinates-rotated":
        message += " Their ids say as well that the array is seen from its back."
    remedies = {
        "coordinates-swapped": "Exchange the columns x and y: x runs to the right, y down.",
        "coordinates-mirrored": "Mirror the positions, or the image: one of the two was exported mirrored.",
        "coordinates-rotated": "Turn the positions, or the image: one of the two was exported turned.",
    }
    if verdict.placement.may_leave and not own:
        remedy = "Its transform does so, if its positions fit its own image: iscale align PROJECT --again."
        return Finding(verdict.code, message, remedy, of)
    again = "" if own else " If a transform places the capture, align it again: iscale align PROJECT --again."
    return Finding(verdict.code, message, remedies[verdict.code] + again, of)


def _scaled(verdict: Verdict, who: str, of: str | None) -> Finding:
    factor, placement = verdict.value, verdict.placement
    names = [name for name, value in placement.known.items() if abs(factor / value - 1) <= KNOWN_FACTOR]
    close = min(names, key=lambda name: abs(factor / placement.known[name] - 1)) if names else ""
    what = f"which is {close}" if close else "which is no factor known of this project"
    less = f" ({_about(factor)})"
    before, after = verdict.explanation.before, verdict.explanation.after
    message = (
        f"{who} fit the {'own' if placement.own else 'mother'} image when their positions are multiplied by "
        f"{factor:.4g}{less}, {what}: {after.on_tissue:.0%} then lie on tissue instead of {before.on_tissue:.0%}"
    )
    if verdict.ratio is not None and placement.um_per_px is not None:
        message += (
            f"; as they are they lie {placement.pitch.px * placement.um_per_px:.4g} um apart instead of "
            f"{placement.pitch.um:.4g} um"
        )
    remedy = "Multiply the positions by this factor"
    if placement.analysis_um is not None:
        remedy += (
            ", so that they count in pixels of the analysis image; or, if all of them count in pixels of "
            f"{placement.analysis_um * factor:.3g} um, say --pixel-size {placement.analysis_um * factor:.3g}"
        )
    elif not placement.own:
        remedy = (
            "If its positions fit its own image, its transform is wrong: align it again (iscale align PROJECT "
            "--again). A transform takes full-resolution pixels of the capture to those of the mother image"
        )
    return Finding("coordinates-scaled", message + ".", remedy + ".", of)


def _about(factor: float) -> str:
    return f"about {factor:.2g}" if factor >= 1 else f"about 1/{1 / factor:.2g}"


def _pixel_size(verdict: Verdict, names: Sequence[str]) -> Finding:
    placement, true = verdict.placement, verdict.value
    assert placement.um_per_px is not None
    assert verdict.ratio is not None
    off = placement.um_per_px / true - 1
    listed = ", ".join(names)
    if verdict.explanation.kind == "scaled":
        why = f"the spots of {listed} fit the tissue when it is"
    else:
        um, px = placement.pitch.um, placement.pitch.px
        why = f"the spots of {listed}, which are {um:.4g} um apart, are {px:.4g} of its pixels apart, which makes it"
    return Finding(
        "pixel-size-mother",
        f"A pixel of the mother image is said to be {placement.um_per_px:.4g} um, but {why} about {true:.3g} um: "
        f"what is said is {off:+.0%} off.",
        f"Correct pixel-size-raw.txt or --pixel-size-raw (about {true:.3g}).",
    )


def _beside(verdict: Verdict) -> list[Finding]:
    """Spots that lie beside the image, else spots that lie beside the tissue."""
    placement = verdict.placement
    inside = placement.tissue.inside(placement.xy)
    outside, total = int((~inside).sum()), len(inside)
    which = "its own image" if placement.own else "the mother image"
    if outside and not (placement.may_leave and 2 * outside < total):
        (x0, y0), (x1, y1) = placement.xy.min(axis=0), placement.xy.max(axis=0)
        h, w = placement.tissue.shape_px
        message = (
            f"{outside} of {total} spots lie outside of {which}: they span x {x0:.0f} to {x1:.0f}, y {y0:.0f} to "
            f"{y1:.0f} in its full-resolution pixels, it is {w} px wide and {h} px high.{_shift(verdict)}"
        )
        return [Finding("spots-outside-image", message, _remedy(placement), placement.name)]
    on = placement.tissue.sample(placement.tissue.mask, placement.xy[inside]) > 0
    off = int((~on).sum())
    if off <= OFF_TISSUE * len(on):
        return []
    message = f"{off} of {len(on)} spots ({off / len(on):.0%}) lie off the tissue of {which}.{_shift(verdict)}"
    code = "spots-mostly-off-tissue" if off > MOSTLY_OFF * len(on) else "spots-off-tissue"
    return [Finding(code, message, _remedy(placement), placement.name)]


def _shift(verdict: Verdict) -> str:
    if verdict.explanation.kind != "shifted":
        return ""
    x, y = verdict.explanation.shift_px
    return (
        f" Moved by {x:+.0f} px in x and {y:+.0f} px in y (full-resolution pixels) "
        f"{verdict.explanation.after.on_tissue:.0%} would lie on tissue."
    )


def _remedy(placement: Placement) -> str:
    if placement.own:
        return "Check that the positions belong to this image."
    if placement.analysis_um is None:
        return "Align the capture again, or correct its transform.json: iscale align PROJECT --again."
    return "Align the capture again, or take spots that lie beside the tissue out of locs.*."

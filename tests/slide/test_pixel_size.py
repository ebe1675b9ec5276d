from __future__ import annotations

import pytest

from iscale.errors import InputError
from iscale.slide.pixel_size import NO_SOURCE, from_metadata, from_resolution, from_tags, overruled, resolve_pixel_size

NOTHING = (None, "slide.svs")


@pytest.mark.parametrize("value", [0, -0.5, 100, "nan", "inf", "half a micron", "", "0,5"])
@pytest.mark.parametrize("place", ["file", "flag"])
def test_impossible_values_are_refused_with_their_source(value: object, place: str) -> None:
    with pytest.raises(InputError, match=f"from {place}-source"):
        resolve_pixel_size(NOTHING, **{place: (value, f"{place}-source")})  # type: ignore[arg-type]


def test_a_contradiction_of_what_a_person_states_names_all_values_and_sources() -> None:
    with pytest.raises(InputError) as caught:
        resolve_pixel_size((0.499, "a.svs (mpp)"), ("0.25\n", "pixel-size-raw.txt"), (0.5, "--pixel-size-raw"))
    for part in ("0.499 um from a.svs (mpp)", "0.25 um from pixel-size-raw.txt", "0.5 um from --pixel-size-raw"):
        assert part in str(caught.value)


@pytest.mark.parametrize("place", ["file", "flag"])
def test_what_a_person_states_wins_over_metadata_with_a_warning_of_both(place: str) -> None:
    metadata = (5.2917, "s.tif (TIFF resolution tags)")
    taken = resolve_pixel_size(metadata, **{place: ("0.5", "a person")})  # type: ignore[arg-type]
    assert taken == (0.5, "a person")
    said = overruled(metadata, taken)
    assert "0.5 um from a person" in said
    assert "5.2917 um from s.tif" in said


def test_there_is_no_warning_where_nothing_is_overruled() -> None:
    assert overruled((0.4988, "m"), (0.5, "flag")) == ""
    assert overruled((0.4988, "m"), (0.4988, "m")) == ""
    assert overruled((None, NO_SOURCE), (0.5, "flag")) == ""


@pytest.mark.parametrize("value", [0.0, -0.25, float("nan"), float("inf"), 1e6, 1e-9])
def test_impossible_metadata_are_none_but_told(value: float) -> None:
    um, why = from_metadata(value, value, "s.svs", "MPP")
    assert um is None
    assert "s.svs (MPP: " in why
    with pytest.raises(InputError, match=r"(?s)unknown: none in s\.svs \(MPP: .*--pixel-size-raw"):
        resolve_pixel_size((um, why))
    assert resolve_pixel_size((um, why), flag=(0.5, "flag")) == (0.5, "flag")
    assert "against s.svs (MPP: " in overruled((um, why), (0.5, "flag"))


@pytest.mark.parametrize(
    ("per_unit", "unit_um", "um"),
    [
        (4800, 25400, None),
        (2400, 25400, None),
        (12000, 25400, None),
        (4800 / 2.54, 1e4, None),
        (1270, 1e4, None),
        (25400, 25400, 1.0),
        (5000, 1e4, 2.0),
        (2500, 1e4, 4.0),
    ],
)
def test_tags_of_print_are_no_pixel_size(per_unit: float, unit_um: float, um: float | None) -> None:
    found, why = from_tags(per_unit, per_unit, unit_um, "s.tif")
    assert found == (None if um is None else pytest.approx(um))
    assert um is not None or (" dpi, " in why and " um, " in why)


def test_the_most_explicit_of_agreeing_values_is_taken() -> None:
    assert resolve_pixel_size((0.4988, "m"), ("0.5", "f"), (None, "flag")) == (0.5, "f")
    assert resolve_pixel_size((0.4988, "m"), ("0.5", "f"), (0.499, "flag")) == (0.499, "flag")
    assert resolve_pixel_size((0.4988, "m")) == (0.4988, "m")


def test_nothing_stated_says_how_to_state_it() -> None:
    with pytest.raises(InputError, match=r"(?s)unknown.*slide.svs.*--pixel-size-raw"):
        resolve_pixel_size(NOTHING)


def test_screen_resolutions_are_not_pixel_sizes() -> None:
    assert from_resolution(72, 72, 25400) is None
    assert from_resolution(96, 96, 25400) is None
    assert from_resolution(96 / 2.54, 96 / 2.54, 1e4) is None
    assert from_resolution(300, 300, 25400) is None  # a printer's: 85 um
    assert from_resolution(1, 1, 25400) is None
    assert from_resolution(50800, 50800, 25400) == (0.5, 0.5)


def test_pixels_must_be_square_within_two_per_cent() -> None:
    assert from_metadata(0.5, 0.505, "s", "f")[0] == pytest.approx(0.5025)
    assert from_metadata(0.5, 0.52, "s", "f") == (None, "s (f: 0.5 um wide, 0.52 um high, which is not square)")

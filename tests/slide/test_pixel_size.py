from __future__ import annotations

import pytest

from iscale.errors import InputError
from iscale.slide.pixel_size import from_resolution, resolve_pixel_size, square

NOTHING = (None, "slide.svs")


@pytest.mark.parametrize("value", [0, -0.5, 100, "nan", "inf", "half a micron", "", "0,5"])
@pytest.mark.parametrize("place", ["file", "flag"])
def test_impossible_values_are_refused_with_their_source(value: object, place: str) -> None:
    with pytest.raises(InputError, match=f"from {place}-source"):
        resolve_pixel_size(NOTHING, **{place: (value, f"{place}-source")})  # type: ignore[arg-type]


def test_a_contradiction_names_all_values_and_sources() -> None:
    with pytest.raises(InputError) as caught:
        resolve_pixel_size((0.499, "a.svs (mpp)"), ("0.25\n", "pixel-size-raw.txt"), (0.5, "--pixel-size-raw"))
    for part in ("0.499 um from a.svs (mpp)", "0.25 um from pixel-size-raw.txt", "0.5 um from --pixel-size-raw"):
        assert part in str(caught.value)


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
    assert square(0.5, 0.505, "s") == pytest.approx(0.5025)
    with pytest.raises(InputError, match=r"0\.5 um wide, 0\.52 um high"):
        square(0.5, 0.52, "s")

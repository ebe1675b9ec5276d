from __future__ import annotations

import sys
from pathlib import Path

import pytest

from iscale.encoders import EncoderSpec, get_encoder
from iscale.encoders.base import RegionEncoder
from iscale.encoders.registry import encoder_names
from iscale.errors import InputError

MODULE = """
from iscale.encoders.base import FeatureGroup


class Mean:
    name = "mean"
    groups = (FeatureGroup("mean", ("red", "green", "blue")),)
    halo_px = 0

    def __init__(self, spec):
        self.device = spec.device

    def identity(self):
        return {"encoder": self.name, "version": 1}

    def task_bytes(self, core_shape_px):
        return 8 * core_shape_px[0] * core_shape_px[1]

    def encode(self, image, tissue):
        c, h, w = image.shape
        return {"mean": image.reshape(c, h // 16, 16, w // 16, 16).mean((2, 4), dtype="float32")}


class Half:
    name, groups, halo_px = "half", (), 0

    def __init__(self, spec):
        pass

    def identity(self):
        return {}


def broken(spec):
    raise ZeroDivisionError("no luck")
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers three encoders."""
    (tmp_path / "stain_means.py").write_text(MODULE)
    info = tmp_path / "stain_means-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stain-means\nVersion: 1.2\n")
    points = ("mean = stain_means:Mean", "half = stain_means:Half", "broken = stain_means:broken", "gone = nowhere:X")
    (info / "entry_points.txt").write_text("\n".join(["[iscale.encoders]", *points]) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stain_means", raising=False)
    get_encoder.cache_clear()


def test_an_encoder_of_another_package_is_made_from_the_specification() -> None:
    encoder = get_encoder(EncoderSpec("mean", device="cpu"))
    assert isinstance(encoder, RegionEncoder)
    assert vars(encoder) == {"device": "cpu"}


def test_an_encoder_is_made_once_per_process() -> None:
    assert get_encoder(EncoderSpec("mean")) is get_encoder(EncoderSpec("mean"))


def test_names_are_this_packages_and_those_offered() -> None:
    names = encoder_names()
    assert names[:4] == ("texture", "hipt", "timm:NAME", "precomputed:PATH")
    assert {"mean", "half"} <= set(names[4:])


@pytest.mark.parametrize("name", ["textures", "timm:", "timm", "precomputed:", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="no encoder has this name") as error:
        get_encoder(EncoderSpec(name))
    assert "texture, hipt, timm:NAME, precomputed:PATH" in error.value.remedy
    assert "mean" in error.value.remedy


def test_what_is_no_encoder_is_named_with_its_package_and_what_it_lacks() -> None:
    with pytest.raises(InputError) as error:
        get_encoder(EncoderSpec("half"))
    assert "stain_means:Half of stain-means 1.2" in error.value.problem
    assert "for a RegionEncoder it lacks encode, task_bytes" in error.value.problem


@pytest.mark.parametrize(("name", "cause"), [("broken", "ZeroDivisionError: no luck"), ("gone", "No module named")])
def test_an_encoder_that_cannot_be_made_names_its_package(name: str, cause: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        get_encoder(EncoderSpec(name))
    assert "stain-means 1.2" in error.value.problem


def test_two_packages_with_one_name_are_not_chosen_between(tmp_path: Path) -> None:
    info = tmp_path / "other-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 3\n")
    (info / "entry_points.txt").write_text("[iscale.encoders]\nmean = other:Mean\n")
    with pytest.raises(InputError, match=r"several packages: other 3, stain-means 1\.2"):
        get_encoder(EncoderSpec("mean"))

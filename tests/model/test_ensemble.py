from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from iscale.errors import InputError, StoreError
from iscale.model.ensemble import load_ensemble, recipe_module
from iscale.model.published import DiscScale, PublishedEnsemble, StackedNetworks


@pytest.fixture
def folder(tmp_path):
    networks = StackedNetworks(2, 6, 4, torch.device("cpu"))
    networks.initialise(0)
    ensemble = PublishedEnsemble(("A", "B", "C"), networks, DiscScale(torch.zeros(4), torch.ones(4)))
    ensemble.save(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, **changes) -> None:
    """Change the description, and make its sha256 that of the tensors as they are."""
    import hashlib

    path = folder / "ensemble.json"
    description = json.loads(path.read_text())
    description["sha256"] = hashlib.sha256((folder / "ensemble.safetensors").read_bytes()).hexdigest()
    path.write_text(json.dumps(description | changes))


def test_nothing_but_the_two_files_is_written(folder) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["ensemble.json", "ensemble.safetensors"]
    assert json.loads((folder / "ensemble.json").read_text())["recipe"] == "published"


def test_a_changed_byte_is_noticed(folder) -> None:
    path = folder / "ensemble.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"ensemble\.safetensors.*sha256 differs"):
        load_ensemble(folder)


@pytest.mark.parametrize("name", ["ensemble.json", "ensemble.safetensors"])
def test_a_missing_file_is_named(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(StoreError, match=f"{name} is missing"):
        load_ensemble(folder)


@pytest.mark.parametrize("text", ["", "not json", "[1, 2]", "{}", '{"format": 2}'])
def test_a_description_that_is_none_is_refused(folder, text) -> None:
    (folder / "ensemble.json").write_text(text)
    with pytest.raises(StoreError, match=r"cannot be read|is of format"):
        load_ensemble(folder)


def test_text_named_safetensors_is_refused(folder) -> None:
    (folder / "ensemble.safetensors").write_text("these are no tensors")
    rewrite(folder)
    with pytest.raises(StoreError, match="does not hold a whole ensemble"):
        load_ensemble(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genes": ["A", "B"]}, "layers.4.bias"),
        ({"n_states": 3}, "layers.0.weight"),
        ({"n_states": "3"}, "does not hold a whole ensemble"),
        ({"recipe": "secret"}, "no recipe 'secret'"),
        ({"settings": {"width": 3}}, "no settings"),
        ({"genes": 7}, "does not hold a whole ensemble"),
    ],
)
def test_a_description_of_other_tensors_is_refused(folder, changes, message) -> None:
    rewrite(folder, **changes)
    with pytest.raises(StoreError) as caught:
        load_ensemble(folder)
    assert str(folder) in str(caught.value)
    assert "the fit is made anew" in str(caught.value)
    assert message in str(caught.value) or message.startswith("layers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("scale.low"), "expected"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t: t.update({"scale.low": torch.zeros(3)}), "scale.low is torch.float32 of shape"),
        (lambda t: t.update({"scale.low": torch.zeros(4, dtype=torch.float64)}), "torch.float64"),
        (lambda t: t["layers.2.weight"].fill_(torch.nan), "layers.2.weight holds values that are not finite"),
    ],
)
def test_other_tensors_are_refused(folder, change, message) -> None:
    path = folder / "ensemble.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    rewrite(folder)
    with pytest.raises(StoreError) as caught:
        load_ensemble(folder)
    assert message in str(caught.value)


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(folder) -> None:
    blocked = folder / "ensemble.json" / "model"
    with pytest.raises(StoreError, match=r"cannot be written"):
        load_ensemble(folder).save(blocked)


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(InputError, match="default, published"):
        recipe_module("best")

"""A stand-in for timm, of its shape, so that the adapter is tested where timm cannot be installed."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from iscale.encoders.base import COLOUR, EncoderSpec, PatchEncoder
from iscale.encoders.timm_vit import TimmEncoder
from iscale.errors import InputError

WIDTH = 6
CONFIG = {"mean": (0.5, 0.6, 0.7), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear"}


class PatchEmbed(nn.Module):
    """Pixels of a square to a token; as many as the image size gives."""

    def __init__(self, token_px: int) -> None:
        super().__init__()
        self.patch_size = (token_px, token_px)
        self.grid_size = (14, 14)
        self.img_size = (14 * token_px, 14 * token_px)
        self.proj = nn.Conv2d(3, WIDTH, token_px, stride=token_px)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2:] == self.img_size, "as timm, it takes images of its own size alone"
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    """Prefix tokens, then a token per patch; the class token is the mean of the others."""

    def __init__(self, token_px: int = 16, n_prefix: int = 1, has_class: bool = True) -> None:
        super().__init__()
        self.num_prefix_tokens, self.embed_dim = n_prefix, WIDTH
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH)) if has_class else None
        self.pos_embed = nn.Parameter(torch.zeros(1, 14 * 14, WIDTH))
        self.patch_embed = PatchEmbed(token_px)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 1000)

    def set_input_size(self, img_size: tuple[int, int]) -> None:
        side = img_size[0] // self.patch_embed.patch_size[0]
        self.patch_embed.img_size, self.patch_embed.grid_size = img_size, (side, side)
        grid = F.interpolate(self.pos_embed.detach().view(1, 14, 14, WIDTH).permute(0, 3, 1, 2), size=(side, side))
        self.pos_embed = nn.Parameter(grid.flatten(2).transpose(1, 2))

    def forward_features(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x) + self.pos_embed
        prefix = [tokens.mean(1, keepdim=True), *[torch.full_like(tokens[:, :1], 99.0)] * self.num_prefix_tokens]
        return torch.cat([*prefix[: self.num_prefix_tokens], self.norm(tokens)], dim=1)


class Merging(Vit):
    """Halves its grid, as models with a convolutional stem do."""

    def set_input_size(self, img_size: tuple[int, int]) -> None:
        super().set_input_size((img_size[0] // 2, img_size[1] // 2))


class Square(Vit):
    """Gives its tokens as a map, as Swin does."""

    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x)[:, self.num_prefix_tokens :].unflatten(1, (16, 16))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit_16": Vit,
    "vit_14": lambda: Vit(14),
    "vit_8": lambda: Vit(8),
    "vit_registers": lambda: Vit(16, 5),
    "vit_averaged": lambda: Vit(16, 4, has_class=False),
    "vit_plain": lambda: Vit(16, 0, has_class=False),
    "hybrid": Merging,
    "square": Square,
    "convnet": lambda: nn.Sequential(nn.Conv2d(3, 8, 3)),
}


@pytest.fixture(autouse=True)
def timm(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The stand-in as ``timm``; its list ``asked`` holds what `create_model` was asked for."""
    module, data = types.ModuleType("timm"), types.ModuleType("timm.data")
    module.asked = []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        module.asked.append((name, pretrained))
        if name.startswith("local-dir:"):
            name = json.loads((Path(name.removeprefix("local-dir:")) / "config.json").read_text())["architecture"]
        if name not in MODELS:
            raise RuntimeError(f"Unknown model ({name})")
        torch.manual_seed(1 if pretrained else 2)
        return MODELS[name]()

    module.create_model = create_model
    data.resolve_model_data_config = lambda model: CONFIG
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return module


def images(n: int = 2) -> Tensor:
    return torch.randint(0, 256, (n, 3, 256, 256), dtype=torch.uint8, generator=torch.manual_seed(0))


def normalised(pixels: Tensor) -> Tensor:
    return (pixels / 255 - torch.tensor(CONFIG["mean"]).view(3, 1, 1)) / torch.tensor(CONFIG["std"]).view(3, 1, 1)


def expected_tokens(encoder: TimmEncoder, pixels: Tensor) -> Tensor:
    """Tokens (patch, y, x, width) of normalised pixels, from the stand-in's own parts."""
    model = encoder._model
    tokens = model.norm(model.patch_embed(pixels) + model.pos_embed)
    return tokens.unflatten(1, model.patch_embed.grid_size).detach()


@pytest.mark.parametrize(("shifts", "step"), [(16, 4), (4, 8), (1, 16)])
def test_a_patch_is_16_superpixels_and_steps_follow_the_shifts(shifts: int, step: int) -> None:
    encoder = TimmEncoder(EncoderSpec("timm:vit_14", shifts=shifts))
    assert isinstance(encoder, PatchEncoder)
    assert (encoder.patch, encoder.step, encoder.vector_width, encoder.token_width) == (16, step, WIDTH, WIDTH)
    context, patch, colour = encoder.groups
    assert (context.name, context.stride, context.smooth) == ("context", step, 16)
    assert (patch.name, patch.stride, patch.smooth) == ("patch", 1, 4)
    assert patch.features == tuple(f"patch{i}" for i in range(WIDTH))
    assert colour is COLOUR


def test_a_token_of_16_px_is_a_superpixel_and_the_class_token_the_vector() -> None:
    encoder = TimmEncoder(EncoderSpec("timm:vit_16"))
    tokens, vectors = encoder.encode(images())
    assert tokens.shape == (2, 16, 16, WIDTH)
    assert (tokens.dtype, vectors.dtype) == (torch.float32, torch.float32)
    pixels = normalised(images().float())
    torch.testing.assert_close(tokens, expected_tokens(encoder, pixels))
    model = encoder._model
    torch.testing.assert_close(vectors, (model.patch_embed(pixels) + model.pos_embed).mean(1))


def test_tokens_of_14_px_see_the_patch_resized_to_224_px() -> None:
    encoder = TimmEncoder(EncoderSpec("timm:vit_14"))
    small = F.interpolate(images().float(), size=(224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(encoder.encode(images())[0], expected_tokens(encoder, normalised(small)))


def test_tokens_of_8_px_keep_the_resolution_and_are_averaged() -> None:
    encoder = TimmEncoder(EncoderSpec("timm:vit_8"))
    fine = expected_tokens(encoder, normalised(images().float()))
    assert fine.shape == (2, 32, 32, WIDTH)
    coarse = fine.view(2, 16, 2, 16, 2, WIDTH).mean((2, 4))
    torch.testing.assert_close(encoder.encode(images())[0], coarse)


def test_registers_are_left_out() -> None:
    tokens, vectors = TimmEncoder(EncoderSpec("timm:vit_registers")).encode(images())
    assert tokens.abs().max() < 50
    assert vectors is not None
    assert vectors.abs().max() < 50


@pytest.mark.parametrize("name", ["vit_averaged", "vit_plain"])
def test_without_a_class_token_there_are_no_vectors(name: str) -> None:
    encoder = TimmEncoder(EncoderSpec(f"timm:{name}"))
    assert encoder.vector_width == 0
    assert [group.name for group in encoder.groups] == ["patch", "colour"]
    tokens, vectors = encoder.encode(images())
    assert vectors is None
    torch.testing.assert_close(tokens, expected_tokens(encoder, normalised(images().float())))


def test_what_is_computed_depends_neither_on_the_batch_nor_on_other_threads() -> None:
    encoder = TimmEncoder(EncoderSpec("timm:vit_14"))
    whole, vectors = encoder.encode(images(8))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(encoder.encode, images(8).split(2)))
    torch.testing.assert_close(torch.cat([tokens for tokens, _ in parts]), whole)
    torch.testing.assert_close(torch.cat([vector for _, vector in parts]), vectors)


def test_bfloat16_halves_the_weights_and_gives_float32() -> None:
    exact = TimmEncoder(EncoderSpec("timm:vit_16"))
    rough = TimmEncoder(EncoderSpec("timm:vit_16", precision="bfloat16"))
    assert rough.model_bytes * 2 == exact.model_bytes
    tokens = rough.encode(images())[0]
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, exact.encode(images())[0], atol=0.1, rtol=0.1)
    assert rough.identity() != exact.identity()


def test_the_identity_is_of_the_weights_not_of_the_device_or_the_run() -> None:
    one, same = (TimmEncoder(EncoderSpec("timm:vit_16")).identity() for _ in range(2))
    assert one == same == json.loads(json.dumps(one))
    assert TimmEncoder(EncoderSpec("timm:vit_16", shifts=4)).identity() != one
    other = TimmEncoder(EncoderSpec("timm:vit_16"))
    other._model.norm.weight.data[0] += 1
    assert other.identity()["weights_sha256"] != one["weights_sha256"]


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return {name: tensor.clone() for name, tensor in Vit().state_dict().items()}


def saved(path: Path, tensors: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: {"teacher": {f"module.backbone.{k}": v for k, v in w.items()}}]
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_weights_of_a_file_are_used_and_none_are_downloaded(
    wrap: Any, as_folder: bool, weights: dict[str, Tensor], timm: Any, tmp_path: Path
) -> None:
    file = saved(tmp_path / "vit.pth", wrap(weights))
    encoder = TimmEncoder(EncoderSpec("timm:vit_16", weights=tmp_path if as_folder else file))
    assert timm.asked == [("vit_16", False)]
    torch.testing.assert_close(encoder._model.patch_embed.proj.weight.data, weights["patch_embed.proj.weight"])


def test_safetensors_go_before_other_formats_and_the_head_is_not_needed(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    saved(tmp_path / "pytorch_model.bin", {"norm.weight": torch.zeros(1)})
    saved(tmp_path / "model.safetensors", {k: v for k, v in weights.items() if not k.startswith("head")})
    encoder = TimmEncoder(EncoderSpec("timm:vit_16", weights=tmp_path))
    torch.testing.assert_close(encoder._model.norm.bias.data, weights["norm.bias"])


def test_a_model_of_the_hub_is_made_from_the_config_beside_its_weights(
    weights: dict[str, Tensor], timm: Any, tmp_path: Path
) -> None:
    file = saved(tmp_path / "model.safetensors", weights)
    spec = EncoderSpec("timm:hf-hub:lab/model", weights=file)
    with pytest.raises(InputError, match=r"has no config\.json"):
        TimmEncoder(spec)
    (tmp_path / "config.json").write_text('{"architecture": "vit_16"}')
    assert TimmEncoder(spec).name == "timm:hf-hub:lab/model"
    assert timm.asked == [(f"local-dir:{tmp_path}", False)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("norm.weight"), "lacks 1 weights: norm.weight"),
        (lambda w: w.update({"blocks.0.w": torch.zeros(1)}), r"the model lacks, 1 weights: blocks\.0\.w"),
        (lambda w: w.update({"norm.bias": torch.zeros(7)}), r"does not fit the model: size mismatch for norm\.bias"),
    ],
)
def test_weights_of_another_model_are_refused(
    change: Any, message: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    change(weights)
    with pytest.raises(InputError, match=message):
        TimmEncoder(EncoderSpec("timm:vit_16", weights=saved(tmp_path / "w.safetensors", weights)))


def test_a_file_that_could_run_code_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w.pth", {"norm.weight": Path("x")})
    with pytest.raises(InputError, match="refused"):
        TimmEncoder(EncoderSpec("timm:vit_16", weights=tmp_path))


def test_which_file_is_meant_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no \.safetensors"):
        TimmEncoder(EncoderSpec("timm:vit_16", weights=tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        TimmEncoder(EncoderSpec("timm:vit_16", weights=tmp_path / "none"))
    for name in ("a.pth", "b.bin"):
        saved(tmp_path / name, {})
    with pytest.raises(InputError, match=r"has 2 weight files: a\.pth, b\.bin"):
        TimmEncoder(EncoderSpec("timm:vit_16", weights=tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("convnet", "Sequential lacks patch_embed, num_prefix_tokens"),
        ("hybrid", r"an image of 256 x 256 px gives 8 x 8 tokens, not 16 x 16"),
        ("square", r"its features are 1 x 16 x 16 x 6, not patch x token x width = 1 x 257 x 6"),
        ("nonsense", r"RuntimeError: Unknown model \(nonsense\)"),
    ],
)
def test_models_without_a_token_per_patch_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TimmEncoder(EncoderSpec(f"timm:{name}"))


def test_tokens_that_are_not_square_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def oblong() -> nn.Module:
        model = Vit()
        model.patch_embed.patch_size = (16, 8)
        return model

    monkeypatch.setitem(MODELS, "oblong", oblong)
    with pytest.raises(InputError, match="tokens of 16 x 8 px"):
        TimmEncoder(EncoderSpec("timm:oblong"))


def test_a_model_of_fixed_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class FixedSize(Vit):
        def set_input_size(self, img_size: tuple[int, int]) -> None:
            raise ValueError("the size is fixed")

    monkeypatch.setitem(MODELS, "fixed", FixedSize)
    with pytest.raises(InputError, match="cannot be set to images of 256 x 256 px"):
        TimmEncoder(EncoderSpec("timm:fixed"))


def test_without_a_network_the_remedy_is_a_file(monkeypatch: pytest.MonkeyPatch, timm: Any) -> None:
    def offline(name: str, pretrained: bool) -> nn.Module:
        raise OSError("cannot reach the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match="cannot reach the hub") as error:
        TimmEncoder(EncoderSpec("timm:vit_16"))
    assert "--weights FILE" in error.value.remedy


def test_without_timm_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="--encoder timm:vit_16: needs timm") as error:
        TimmEncoder(EncoderSpec("timm:vit_16"))
    assert error.value.remedy == "pip install 'iscale[timm]'"

"""Encoders ``timm:NAME``: any vision transformer of timm that has a token per patch of its image.

One rule for all of them: a patch is 16 x 16 superpixels, and a superpixel is one token. The patch's 256 px are resized
to 16 tokens a side (224 px for tokens of 14 px), and the model's position embedding to that grid. Only tokens that fit
into a superpixel more than once (8 px: twice) keep the resolution they were trained for: they are averaged.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iscale.encoders.base import ContextModel, EncoderSpec, patch_groups
from iscale.encoders.checkpoint import TRAINER_PREFIXES, is_plain_tensor, read_checkpoint, read_tensors
from iscale.errors import InputError
from iscale.geometry import PATCH_PX, SUPERPIXEL_PX
from iscale.words import by

PREFIX = "timm:"
UNUSED = ("head", "fc_norm", "fc.", "attn_pool", "mask_token")
"""Beginnings of names of weights that play no part in the tokens."""
OWN_WEIGHTS = "Give the weights of this model under timm's names, as safetensors or saved by torch: --weights FILE."
MEMBERS = ("patch_embed", "num_prefix_tokens", "embed_dim", "forward_features", "set_input_size")
"""What a model must have for its tokens to be had at any image size."""
VERSION = 1
"""Raised when the same weights give other numbers."""


class TimmEncoder:
    """A vision transformer of timm as a `iscale.encoders.base.PatchEncoder`.

    Tokens are those of ``forward_features``, the vector is the class token; other prefix tokens (registers,
    distillation) are left out. ``timm.create_model`` knows the model by what follows ``timm:`` in its name; without
    weights timm downloads its own. What has no tokens on a square grid of any size is refused.
    """

    patch = PATCH_PX // SUPERPIXEL_PX
    context: ContextModel | None = None

    def __init__(self, spec: EncoderSpec) -> None:
        self.name = spec.name
        self.device = spec.device
        self.step = spec.step
        self.precision = spec.precision
        self._dtype: torch.dtype = getattr(torch, spec.precision)
        timm = _import_timm(spec.name)
        model = _create(timm, spec)
        self._token_px = _token_px(spec.name, model)
        self._per_superpixel = max(1, SUPERPIXEL_PX // self._token_px)
        self._grid = self.patch * self._per_superpixel
        self._side_px = self._grid * self._token_px
        _resize(spec.name, model, self._side_px, self._grid)
        self._normalisation = _normalisation(model)
        self._model = model.to(device=spec.device, dtype=self._dtype).eval().requires_grad_(False)
        self._n_prefix = int(model.num_prefix_tokens)
        # Models that average their tokens may have registers, but no class token.
        has_class = self._n_prefix > 0 and getattr(model, "cls_token", True) is not None
        self.token_width = int(model.embed_dim)
        self.vector_width = self.token_width if has_class else 0
        self.groups = patch_groups(self.vector_width, self.token_width, self.step)
        self.encode(torch.zeros((1, 3, PATCH_PX, PATCH_PX), dtype=torch.uint8, device=spec.device))

    def identity(self) -> dict[str, Any]:
        """Name, hash of the weights, normalisation and settings."""
        return {
            "encoder": self.name,
            "version": VERSION,
            "weights_sha256": self._weights_sha256(),
            "side_px": self._side_px,
            **self._normalisation,
            "step": self.step,
            "precision": self.precision,
        }

    def _weights_sha256(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.named_parameters()):
            # Resized position embeddings differ in their last digit from processor to processor.
            if "pos_embed" not in name:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @property
    def model_bytes(self) -> int:
        """Bytes of the weights, as held."""
        held: list[Tensor] = [*self._model.parameters(), *self._model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def patch_bytes(self) -> int:
        """Peak bytes of `encode` per patch of a batch: its images, a block of the model, the output."""
        size: int = self._dtype.itemsize
        width, tokens = self.token_width, self._grid**2 + self._n_prefix
        given, prepared = 3 * PATCH_PX**2, 3 * self._side_px**2
        images = given * (1 + 4 + 4) + prepared * (4 + 4 + size)
        widest = max((w for name, w in self._linear_widths() if not name.startswith(UNUSED)), default=4 * width)
        block = tokens * size * (2 * widest + 7 * width)
        scores = 0
        if any(getattr(module, "fused_attn", True) is False for module in self._model.modules()):
            scores = 2 * size * tokens**2 * max(int(getattr(m, "num_heads", 1)) for m in self._model.modules())
        return images + block + scores + 2 * 4 * tokens * width

    def _linear_widths(self) -> list[tuple[str, int]]:
        modules = self._model.named_modules()
        return [(name, module.out_features) for name, module in modules if isinstance(module, torch.nn.Linear)]

    @torch.inference_mode()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens (patch, y=16, x=16, width) and class vectors (patch, width), float32, of (patch, c, y, x) uint8."""
        found: Tensor = self._model.forward_features(self._prepare(images))
        b, grid, per = len(images), self._grid, self._per_superpixel
        expected = (b, self._n_prefix + grid**2, self.token_width)
        if tuple(found.shape) != expected:
            raise InputError(
                f"--encoder {self.name}: its features are {by(found.shape)}, not patch x token x width = "
                f"{by(expected)}",
                "Choose a vision transformer with a token per patch of its image.",
            )
        tokens = found[:, self._n_prefix :].float().reshape(b, self.patch, per, self.patch, per, self.token_width)
        return tokens.mean(dim=(2, 4)), found[:, 0].float() if self.vector_width else None

    def _prepare(self, images: Tensor) -> Tensor:
        """Pixels as the model was trained on them: resized, normalised, of its type."""
        pixels = images.float()
        if images.shape[-1] != self._side_px:
            mode, size = self._normalisation["interpolation"], (self._side_px, self._side_px)
            # Bicubic kernels overshoot; the image files that models were trained on cannot.
            pixels = F.interpolate(pixels, size=size, mode=mode, antialias=True).clamp_(0, 255)
        mean, std = (
            torch.tensor(self._normalisation[key], device=pixels.device).view(3, 1, 1) for key in ("mean", "std")
        )
        return pixels.div_(255).sub_(mean).div_(std).to(self._dtype)


def _import_timm(name: str) -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise InputError(f"--encoder {name}: needs timm ({error})", "pip install 'iscale[timm]'") from error
    except Exception as error:  # torchvision beside another torch fails in many ways
        raise InputError(
            f"--encoder {name}: timm cannot be imported ({error})",
            "Install torchvision of the same release and build as torch, and timm again: pip install 'iscale[timm]'",
        ) from error


def _create(timm: ModuleType, spec: EncoderSpec) -> Any:
    """The model with its weights, at the image size it was made for."""
    source = spec.name.removeprefix(PREFIX)
    file = None if spec.weights is None else _weight_file(spec.weights)
    if file is not None and source.startswith(("hf-hub:", "hf_hub:")):
        if not (file.parent / "config.json").is_file():
            raise InputError(
                f"--encoder {spec.name}: {file.parent} has no config.json, which says what model the weights are for",
                "Fetch config.json from the same repository into the folder of the weights.",
            )
        source = f"local-dir:{file.parent}"
    try:
        model = timm.create_model(source, pretrained=file is None)
    except Exception as error:  # timm, the hub's client and the network raise all kinds
        raise InputError(
            f"--encoder {spec.name}: timm cannot make this model ({type(error).__name__}: {error})",
            "Check the name: timm.list_models('*vit*', pretrained=True) lists what timm has weights for. Without a "
            "network, or without the model's licence, fetch its weights elsewhere and name them: --weights FILE.",
        ) from error
    if file is not None:
        _load(model, file)
    return model


def _weight_file(path: Path) -> Path:
    """The one weight file that a path means; safetensors go before other formats of the same weights."""
    if path.is_file():
        return path
    for suffixes in ((".safetensors",), (".pth", ".pt", ".bin")):
        found = sorted(file for file in path.glob("*") if file.suffix in suffixes)
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{path} has {len(found)} weight files: {', '.join(file.name for file in found)}",
                "Name the one to use: --weights FILE.",
            )
    raise InputError(
        f"{path} {'has no .safetensors, .pth, .pt or .bin in it' if path.is_dir() else 'does not exist'}",
        "Name the weights' file, or a folder with one: --weights PATH.",
    )


def _tensors(file: Path) -> dict[str, Tensor]:
    """Tensors by the model's names; no code of the file is run."""
    if file.suffix == ".safetensors":
        return read_tensors(file, OWN_WEIGHTS)[0]
    found = read_checkpoint(file, OWN_WEIGHTS)
    for key in ("state_dict", "model", "teacher"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    values = found if isinstance(found, Mapping) else {}
    tensors = {str(name): value for name, value in values.items() if is_plain_tensor(value)}
    for prefix in TRAINER_PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    return tensors


def _load(model: Any, file: Path) -> None:
    """Fill a model with all the weights that its tokens depend on, and nothing else."""
    tensors = {name: tensor for name, tensor in _tensors(file).items() if not name.startswith(UNUSED)}
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        first, *wrong = (line.strip() for line in str(error).splitlines())
        raise InputError(f"{file} does not fit the model: {' '.join([*wrong, first][:1])}", OWN_WEIGHTS) from error
    for names, what in ((missing, "lacks"), (unexpected, "has, and the model lacks,")):
        wrong = [name for name in names if not name.startswith(UNUSED)]
        if wrong:
            raise InputError(f"{file} {what} {len(wrong)} weights: {', '.join(wrong[:3])} ...", OWN_WEIGHTS)


def _token_px(name: str, model: Any) -> int:
    """Side of the square of pixels that a token stands for."""
    missing = [member for member in MEMBERS if not hasattr(model, member)]
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    height, width = (size, size) if isinstance(size, int) else (size or (0, 0))
    if missing or not height or height != width:
        what = f"lacks {', '.join(missing)}" if missing else f"has tokens of {height} x {width} px"
        raise InputError(
            f"--encoder {name}: {type(model).__name__} {what}",
            "Choose a vision transformer with one square token per patch of its image, such as vit_small_patch16_224; "
            "older releases of timm cannot resize all of theirs.",
        )
    return height


def _resize(name: str, model: Any, side_px: int, grid: int) -> None:
    """Set the image size, and see that the tokens lie on the grid that follows."""
    try:
        model.set_input_size(img_size=(side_px, side_px))
        found = tuple(model.patch_embed.grid_size)
    except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"--encoder {name}: the model cannot be set to images of {side_px} x {side_px} px ({error})",
            "Choose a model whose image size is free.",
        ) from error
    if found != (grid, grid):
        raise InputError(
            f"--encoder {name}: an image of {side_px} x {side_px} px gives {found[0]} x {found[1]} tokens, "
            f"not {grid} x {grid}",
            "Choose a model without a convolutional stem or merging of tokens.",
        )


def _normalisation(model: Any) -> dict[str, Any]:
    """Mean and standard deviation per channel, of values in 0 to 1, and how images were resized in training."""
    config = importlib.import_module("timm.data").resolve_model_data_config(model)
    interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return {"mean": list(config["mean"]), "std": list(config["std"]), "interpolation": interpolation}

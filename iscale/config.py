"""Options of a run: their names, meanings and limits; flags win over ``iscale.toml``, the file over defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from iscale.encoders.spec import Context, Precision
from iscale.engine.plan import parse_bytes
from iscale.errors import InputError

SETTINGS_FILE = "iscale.toml"


class Options(BaseModel):
    """Everything that a user may set, with the published parameters' names where they exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captures: tuple[str, ...] | None = Field(None, description="Daughter captures to use; default: all aligned ones.")
    pixel_size_raw: float | None = Field(
        None, description="um per pixel of the mother image, if its file does not say."
    )
    pixel_size: float = Field(0.5, ge=0.05, le=20, description="um per pixel at which the analysis is done.")
    n_genes: int = Field(1000, ge=1, description="Genes to impute: those of highest variance over the spots.")
    n_plots: int = Field(30, ge=1, description="Genes to draw: the first of those imputed.")
    dist_st: float = Field(100.0, ge=0, description="Spots closer than this are merged, in analysis pixels; 0: none.")
    encoder: str = Field(
        "auto",
        description="How the image becomes features: auto, texture, hipt, timm:NAME, precomputed:PATH, "
        "or one that another package offers.",
    )
    weights: Path | None = Field(None, description="Folder of the encoder's weights.")
    context: Context = Field(
        "regions", description="What HIPT's context sees: regions (4096 px windows) or published (the whole slide)."
    )
    shifts: Literal[16, 4, 1] = Field(
        16, description="How often patches are laid over the slide, each time shifted: 16, 4 or 1."
    )
    precision: Precision = Field("float32", description="Of the encoder's products: float32 or bfloat16.")
    recipe: Literal["default", "published"] = Field("default", description="How the model is trained.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda.")
    out: Path | None = Field(None, description="Output folder; default: PROJECT/iSCALE_output.")
    memory: str = Field("2GB", description="Memory that a worker may use.")
    dask: str | None = Field(None, description="local, or a scheduler's address; default: in this process.")
    workers: int = Field(0, ge=0, description="Processes of --dask local; default: one per core.")
    region_shards: int | None = Field(None, ge=1, description="Side of a region in shards; default: by the memory.")

    @field_validator("memory")
    @classmethod
    def _memory_is_a_size(cls, value: str) -> str:
        try:
            parse_bytes(value)
        except ValueError:
            raise ValueError("not a size such as 2GB or 1500MB") from None
        return value

    @property
    def memory_bytes(self) -> int:
        """The budget of a worker, in bytes."""
        return parse_bytes(self.memory)


def load_options(project: Path, flags: dict[str, Any]) -> Options:
    """Options from flags (those that are not ``None``), the project's ``iscale.toml``, and defaults.

    Raises
    ------
    InputError
        If the file cannot be parsed, or a key or value is not one that exists.
    """
    path = project / SETTINGS_FILE
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not valid TOML ({error}).", "Mend the line it names.") from error
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        return Options.model_validate(values | given)
    except ValidationError as error:
        raise InputError(_explain(error, path, given), "`iscale run --help` lists the options.") from error


def _explain(error: ValidationError, path: Path, flags: dict[str, Any]) -> str:
    lines = []
    for item in error.errors():
        key = str(item["loc"][0])
        where = f"--{key.replace('_', '-')}" if key in flags else f"{path}: {key}"
        what = "no such option" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"{where} = {item['input']!r}: {what}.")
    return "\n".join(lines)

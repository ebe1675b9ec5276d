"""Options of a run: names, meanings, limits; flags win over ``iscale.toml``, that over what a run was made with."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from iscale.encoders.base import Context, Precision
from iscale.engine.plan import parse_bytes
from iscale.errors import InputError
from iscale.stages import deciding
from iscale.words import similar_names

NAMES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
SEVERAL = {"integer": "whole numbers", "number": "numbers", "string": "names"}


def wanted(model: type[BaseModel], key: str) -> str:
    """Values that a model takes for a key.

    >>> from iscale.options import Options
    >>> wanted(Options, "n_clusters"), wanted(Options, "n_genes"), wanted(Options, "pixel_size")
    ('whole numbers from 2 to 100', 'a whole number of 1 or more', 'a number from 0.05 to 20')
    >>> wanted(Options, "shifts"), wanted(Options, "recipe")
    ('16, 4 or 1', 'default or published')
    """
    return _described(_schema(model)["properties"][key])


@lru_cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _described(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_described(part) for part in schema["anyOf"] if part.get("type") != "null"))
    if "wanted" in schema:
        return str(schema["wanted"])
    if "enum" in schema:
        return listed([str(value) for value in schema["enum"]])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"{SEVERAL.get(schema['items'].get('type'), 'values')}{_range(schema['items'])}"
    if kind == "object":
        return "a table of keys and values"
    if schema.get("format") == "path":
        return "a path, as text"
    return f"{NAMES.get(kind, 'a value')}{_range(schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    low, high, below = (schema.get(key) for key in ("minimum", "maximum", "exclusiveMaximum"))
    if below is not None and schema.get("type") == "integer":
        high = int(below) - 1
    if (above := schema.get("exclusiveMinimum")) is not None:
        return f" above {above:g}" + (f", at most {high:g}" if high is not None else "")
    if low is None:
        return ""
    return f" from {low:g} to {high:,.10g}" if high is not None else f" of {low:g} or more"


def listed(values: list[str]) -> str:
    """Values as a choice.

    >>> listed(["a", "b", "c"])
    'a, b or c'
    """
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


SETTINGS_FILE = "iscale.toml"
STORED = "precomputed:"
"""What an encoder's name begins with that is a file of features."""

Platform = Literal["visium", "visium_hd", "xenium", "cosmx", "h5ad", "spatialdata", "st", "tables"]
"""What measures captures, by the names that :mod:`iscale.vendors` gives."""


def _is_a_size(value: str) -> str:
    try:
        parse_bytes(value)
    except ValueError:
        raise ValueError("write a size with its unit, such as 2GB or 1500MB") from None
    return value


MemorySize = Annotated[str, AfterValidator(_is_a_size)]
"""Memory with its unit, such as 16GB, as the user writes it."""


class CaptureOptions(BaseModel):
    """What a user may say of one capture, in the table ``[capture.NAME]`` of ``iscale.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    platform: Platform | None = Field(None, description="What measured it, if its files do not tell.")
    bin_um: float | None = Field(
        None, gt=0, le=1000, description="Side of its bins in um, of a platform that is read by bins."
    )
    pixel_size_um: float | None = Field(
        None, gt=0, le=100, description="um per full-resolution pixel of its own image, if its files do not say."
    )
    section: str | None = Field(None, description="The section to take, of a table that holds several.")
    unit: Literal["px", "um"] | None = Field(
        None, description="Unit of the positions, px of its own image or um, if its files do not say."
    )
    image: Path | None = Field(
        None, description="Its own image, from the project folder on, if it does not lie with its files."
    )


class Options(BaseModel):
    """Everything that a user may set, with the published parameters' names where they exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captures: tuple[str, ...] | None = Field(None, description="Daughter captures to use; default: all.")
    pixel_size_raw: float | None = Field(
        None, description="um per pixel of the mother image, if its file does not say."
    )
    any_stain: bool = Field(
        False, description="Take the mother image also where it is fluorescence, or shows no stain, by its colours."
    )
    pixel_size: float = Field(0.5, ge=0.05, le=20, description="um per pixel at which the analysis is done.")
    n_genes: int = Field(1000, ge=1, description="Genes to impute: those of highest variance over the spots.")
    materialize: Literal["none", "top", "all"] = Field(
        "top",
        description="Genes whose maps are written: none, top (those imputed) or all that captures measured; any other "
        "is computed when it is read.",
    )
    n_plots: int = Field(30, ge=1, description="Genes to draw: the first of those imputed.")
    n_clusters: tuple[Annotated[int, Field(ge=2, le=100)], ...] = Field(
        (10,),
        description="Clusters of superpixels, 2 to 100; several numbers: each; clusterings of other numbers are "
        "removed.",
    )
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
    platform: Platform | None = Field(
        None,
        description="What measured the captures, if their files do not tell: visium, visium_hd, xenium, cosmx, h5ad, "
        "spatialdata, st or tables; for some: [capture.NAME].",
    )
    capture: dict[str, CaptureOptions] = Field({}, description="Settings of single captures: tables [capture.NAME].")
    recipe: Literal["default", "published"] = Field(
        "default", description="How the model is trained: default or published."
    )
    hold_out: Literal["auto", "capture", "region", "spots", "none"] = Field(
        "auto",
        description="What the model is tested on, trained without it: capture (each in turn), region, spots, none; "
        "auto: capture where there are two or more, else region; none with the published recipe.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu or cuda.",
        json_schema_extra={"wanted": "auto, cpu, cuda or cuda:N"},
    )
    out: str | None = Field(
        None, description="Output folder, or s3:// or gs:// URL of the store; default: PROJECT/iSCALE_output."
    )
    memory: MemorySize = Field("2GB", description="Memory that a worker may use, such as 2GB or 1500MB.")
    dask: str | None = Field(
        None, description="local, a scheduler's address or file, or a batch system's YAML; default: in this process."
    )
    workers: int = Field(0, ge=0, description="Processes of --dask local; default: one per core.")
    region_shards: int | None = Field(
        None, ge=1, description="Side of a region in shards of 128 superpixels; default: by the memory."
    )

    @field_validator("n_clusters", mode="before")
    @classmethod
    def _one_number_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("n_clusters")
    @classmethod
    def _numbers_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("give at least one number")
        return tuple(sorted(set(value)))

    @field_validator("materialize", "context", "precision", "platform", "recipe", "hold_out", "device", mode="before")
    @classmethod
    def _letters_may_be_large(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("out", mode="before")
    @classmethod
    def _out_may_be_a_path(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @property
    def memory_bytes(self) -> int:
        """The budget of a worker, in bytes."""
        return parse_bytes(self.memory)

    def reading(self, name: str, project: Path) -> dict[str, Any]:
        """How a capture's measurement is to be read: keywords of :func:`iscale.captures.platforms.read_measured`.

        Raises
        ------
        InputError
            If the image that its settings name is not there.
        """
        own = self.capture.get(name, CaptureOptions.model_construct())
        image = None if own.image is None else project / own.image.expanduser()
        if image is not None and not image.is_file():
            raise InputError(
                f"{project / SETTINGS_FILE}: [capture.{name}] image = {str(own.image)!r}: there is no file {image}.",
                "Write its path from the project folder on, or the whole path.",
            )
        return {
            "platform": own.platform or self.platform,
            "bin_um": own.bin_um,
            "pixel_size_um": own.pixel_size_um,
            "section": own.section,
            "unit": own.unit,
            "image": image,
        }


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
    values = _placed(values, project.absolute())
    given = _placed({key: value for key, value in flags.items() if value is not None}, Path.cwd())
    if "platform" in given:  # a flag wins over all that the file says, its tables of single captures too
        tables = values.get("capture")
        for table in tables.values() if isinstance(tables, dict) else ():
            if isinstance(table, dict):
                table.pop("platform", None)
    try:
        return Options.model_validate(values | given)
    except ValidationError as error:
        raise _not_taken(error, path, given) from error


def _placed(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Values whose paths are absolute: those of the file lie from the project on, those of flags from where one is.

    >>> _placed({"out": "here", "encoder": "precomputed:f.h5", "dask": "local", "seed": 1}, Path("/base"))
    {'out': '/base/here', 'encoder': 'precomputed:/base/f.h5', 'dask': 'local', 'seed': 1}
    >>> _placed({"out": "s3://bucket/run", "dask": "slurm.yaml"}, Path("/base"))
    {'out': 's3://bucket/run', 'dask': '/base/slurm.yaml'}
    """

    def placed(key: str, value: Any) -> Any:
        head, text = "", str(value)
        if key == "encoder" and text.startswith(STORED):
            head, text = STORED, text.removeprefix(STORED)
        is_path = key in ("out", "weights") or head or (key == "dask" and text.endswith((".yaml", ".yml", ".json")))
        if not isinstance(value, str | Path) or not text or not is_path or "://" in text:
            return value
        return f"{head}{base / Path(text).expanduser()}"

    return {key: placed(key, value) for key, value in values.items()}


def settings_text(platforms: dict[str, str]) -> str:
    """An ``iscale.toml`` with every option at its default, as comments, and a table per capture.

    Parameters
    ----------
    platforms
        What measured each capture, by name.
    """
    lines = [
        "# Settings of this project. What is commented out is the default; flags win over this file.",
        "",
    ]
    for name, field in Options.model_fields.items():
        if name != "capture":
            lines += [f"# {field.description}", f"# {_toml_line(name, field.default)}", ""]
    lines += [f"# {key}: {field.description}" for key, field in CaptureOptions.model_fields.items()]
    return "\n".join(lines) + "\n" + "".join(capture_table(*named) for named in platforms.items())


def capture_table(name: str, platform: str) -> str:
    """The table of a capture in an ``iscale.toml``, after an empty line."""
    key = json.dumps(name) if "." in name else name
    lines = ["", f"[capture.{key}]", _toml_line("platform", platform)]
    lines += [f"# {_toml_line(k, f.default)}" for k, f in CaptureOptions.model_fields.items() if k != "platform"]
    return "\n".join(lines) + "\n"


def _toml_line(key: str, value: Any) -> str:
    """A setting as TOML has it, which has no null.

    >>> _toml_line("seed", 0), _toml_line("device", "auto"), _toml_line("out", None)
    ('seed = 0', 'device = "auto"', 'out =   (not set)')
    """
    return f"{key} =   (not set)" if value is None else f"{key} = {json.dumps(value)}"


def _not_taken(error: ValidationError, path: Path, flags: dict[str, Any]) -> InputError:
    """What is wrong, one line for every option: where it stands, its value, and what it may be."""
    said: dict[str, tuple[str, str]] = {}
    for item in error.errors():
        key, keys = str(item["loc"][0]), [str(part) for part in item["loc"] if not isinstance(part, int)]
        whole, place = flags.get(key), f"--{key.replace('_', '-')}"
        if key not in flags:
            whole, place = None, f"{path}: {'.'.join(keys)}"
        value = _shown(item["input"]) if whole is None else _shown(whole)
        said.setdefault(place, (f"{place} = {value}", _remedy(item, key, keys)))
    if any(item["type"] == "extra_forbidden" for item in error.errors()):
        lines = [f"{what}: {remedy}{'' if remedy.endswith('?') else '.'}" for what, remedy in said.values()]
        return InputError("\n".join(lines), "The command with --help lists its options.")
    if len(said) > 1:
        return InputError("These cannot be used:", "\n  ".join(f"{what}: {remedy}." for what, remedy in said.values()))
    ((what, remedy),) = said.values()
    return InputError(f"{what} cannot be used.", f"{remedy[0].upper()}{remedy[1:]}.")


def _remedy(item: Any, key: str, keys: list[str]) -> str:
    if item["type"] == "extra_forbidden":
        known = Options.model_fields if key != "capture" else CaptureOptions.model_fields
        close = similar_names(keys[-1], known, n=1)
        return f"no such option{f'; did you mean {close[0]}?' if close else ''}"
    if item["type"] == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    if key == "capture" and len(keys) > 2:
        return f"give {wanted(CaptureOptions, keys[2])}"
    several = " (--n-clusters 6 10; in the file n_clusters = [6, 10])" if key == "n_clusters" else ""
    return f"give {wanted(Options, key)}{several}"


def _shown(value: Any) -> str:
    """A value as its user wrote it."""
    return ", ".join(map(_shown, value)) if isinstance(value, list | tuple) and value else repr(value)


def recall_options(project: Path, flags: dict[str, Any], *, restart: bool = False) -> tuple[Options, str]:
    """Options of a command: its flags, the project's ``iscale.toml``, what the run was made with, and defaults.

    So that ``iscale cluster`` after ``iscale run --n-genes 50`` clusters that run, and does not make another of 1000
    genes first.

    Parameters
    ----------
    project
        The project folder.
    flags
        Fields of `Options`; None is not set.
    restart
        Whether what an earlier run left is forgotten, this too.

    Returns
    -------
    tuple
        The options, and a line that tells what was recalled, or forgotten; empty where nothing was.

    Raises
    ------
    InputError
        As `load_options` does.
    """
    from iscale.store.run_store import report_of, store_for  # only here: the command line's help needs no store

    options = load_options(project, flags)
    found = report_of(store_for(project, options.out)).get("options")
    former: dict[str, Any] = found if isinstance(found, dict) else {}
    known = former.keys() - options.model_fields_set - {"capture"}
    recalled = {name: former[name] for name in deciding() if name in known}
    try:
        same = Options.model_validate({**options.model_dump(exclude_unset=True), **recalled})
    except ValidationError:  # another version's report, or an edited one
        return options, ""
    changed = [name for name in recalled if getattr(same, name) != getattr(options, name)]
    if not changed:
        return options, ""
    as_flags = " ".join(_flag(name, getattr(same, name)) for name in changed)
    if restart:
        return options, f"Not as the former run was made, which had {as_flags}: --restart forgets it"
    return same, f"As this run was made: {as_flags} (give other values to change that; --restart forgets it)"


def _flag(name: str, value: Any) -> str:
    """An option as it is written on a command line.

    >>> _flag("n_clusters", (6, 10)), _flag("captures", None), _flag("any_stain", True)
    ('--n-clusters 6 10', 'all captures', '--any-stain')
    """
    if value is None:
        return "all captures" if name == "captures" else f"no --{name.replace('_', '-')}"
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{name.replace('_', '-')}"
    values = value if isinstance(value, tuple) else (value,)
    return f"--{name.replace('_', '-')} {shlex.join(map(str, values))}"

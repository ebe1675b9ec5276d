"""Flags of the command line; those that are options of a run come from :class:`iscale.options.Options`, with help."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from iscale.options import Options

Project = Annotated[Path, typer.Argument(help="The project folder.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an earlier run left, its options too.")]

SEVERAL = {"captures": "NAME ...", "n_clusters": "NUMBER ..."}
"""Flags that take several values, as the published scripts' do, and how these are called in the help."""

OPTIONS = tuple(name for name in Options.model_fields if name != "capture")
"""Options that are flags; ``capture`` is tables of ``iscale.toml``."""


def flag(name: str) -> Any:
    """The flag of an option, as an annotation for Typer; ``None`` where it is not given.

    >>> flag("seed").__metadata__[0].help
    'Seed of everything random. Default: 0.'
    """
    field = Options.model_fields[name]
    text = (field.description or "").replace("[", "\\[")  # which Rich would take for a style
    if "default:" not in text and field.default is not None:
        text = f"{text} Default: {_shown(field.default)}."
    names = (f"--{name.replace('_', '-')}",) if name in SEVERAL else ()
    return Annotated[_type(name, field), typer.Option(*names, metavar=SEVERAL.get(name), help=text)]


def _type(name: str, field: FieldInfo) -> Any:
    """What Typer reads: numbers and paths as such; choices and sizes as text, which the options judge."""
    if name in SEVERAL:
        return Optional[list[str]]
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        kind = type(get_args(kind)[0])
    return Optional[kind]


def _shown(value: Any) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of options, all where none is named; it gets them as keywords, None if not given."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**arguments: Any) -> None:
            for several in SEVERAL:
                if arguments.get(several) is not None:
                    arguments[several] = tuple(arguments[several]) or None
            command(**arguments)

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=flag(name))
            for name in names or OPTIONS
        ]
        own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        vars(called)["__signature__"] = inspect.Signature([*own, *flags])
        return called

    return decorate

"""The options that a run was made with: later commands go on with them, unless told otherwise."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iscale.options import Options, load_options
from iscale.stages import deciding
from iscale.store.run_store import report_of, store_for


def recall_options(project: Path, flags: dict[str, Any], *, restart: bool = False) -> tuple[Options, str]:
    """Options of a command: its flags, the project's ``iscale.toml``, what the run was made with, and defaults.

    So that ``iscale cluster`` after ``iscale run --n-genes 50`` clusters that run, and does not make another of 1000
    genes first.

    Parameters
    ----------
    project
        The project folder.
    flags
        Fields of :class:`iscale.options.Options`; None is not set.
    restart
        Whether what an earlier run left is forgotten, this too.

    Returns
    -------
    tuple
        The options, and a line that tells what was recalled, or forgotten; empty where nothing was.

    Raises
    ------
    InputError
        As :func:`iscale.options.load_options` does.
    """
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

    >>> _flag("n_clusters", (6, 10)), _flag("captures", None)
    ('--n-clusters 6 10', 'all captures')
    """
    if value is None:
        return "all captures" if name == "captures" else f"no --{name.replace('_', '-')}"
    values = value if isinstance(value, tuple) else (value,)
    return f"--{name.replace('_', '-')} {shlex.join(map(str, values))}"

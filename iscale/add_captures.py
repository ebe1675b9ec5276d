"""``iscale init`` on a project that is there: captures added to it, by links and tables of its settings file."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from iscale.config import SETTINGS_FILE, capture_table, load_options
from iscale.errors import InputError
from iscale.init_project import link, parse_captures, place_of_capture, platforms_of
from iscale.project_layout import ALIGNED_FOLDERS, CAPTURES_FOLDER, MOTHER_FOLDER, UNALIGNED_FOLDERS


def add_captures(project: Path, captures: Sequence[str], *, platform: str | None = None) -> str:
    """Add captures to a project; what is in it stays as it is.

    Parameters
    ----------
    project
        The project folder.
    captures
        ``NAME=FOLDER`` each, as for :func:`iscale.init_project.init_project`.
    platform
        What measured them, if their files do not tell.

    Returns
    -------
    str
        What was found, and what to do next.

    Raises
    ------
    InputError
        If there is no project, it has a capture of that name, a capture cannot be used, or links cannot be made;
        nothing is written then.
    """
    project = project.expanduser().resolve()
    if not (project / MOTHER_FOLDER).is_dir():
        raise InputError(
            f"{project} is no project: it has no {MOTHER_FOLDER}.", "Name the slide too: --mother SLIDE lays one out."
        )
    sources = parse_captures(captures)
    for name in sources:
        _check_free(project, name)
    load_options(project, {})  # a settings file that is wrong is not added to
    platforms = platforms_of(sources, platform)
    links = {project / place_of_capture(name, source): source for name, source in sources.items()}
    _write(project / SETTINGS_FILE, _settings(project / SETTINGS_FILE, platforms), links)
    lines = [f"{project}: added", *(f"capture {name}: {platforms[name]}, {source}" for name, source in sources.items())]
    lines += ["", "Next:", *(f"  iscale {verb} {shlex.quote(str(project))}" for verb in ("check", "align", "run"))]
    return "\n".join(lines)


def _check_free(project: Path, name: str) -> None:
    for folder in (*ALIGNED_FOLDERS, *UNALIGNED_FOLDERS):
        place = project / CAPTURES_FOLDER / folder / name
        if place.exists() or place.is_symlink():
            raise InputError(
                f"--capture {name}: {place} is there already.", "Choose another name, or remove that first."
            )


def _settings(path: Path, platforms: dict[str, str]) -> str:
    """The settings file with a table for each new capture."""
    before = path.read_text() if path.is_file() else ""
    text = before + ("\n" if before and not before.endswith("\n") else "")
    text += "".join(capture_table(*named) for named in platforms.items())
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{path} cannot be added to: {error}.", "Has it a table of that name, or captures in one line? Remove that."
        ) from error
    return text


def _write(settings: Path, text: str, links: dict[Path, Path]) -> None:
    """Make the links, then replace the settings file; where one fails, all is as before."""
    made: list[Path] = []
    part = settings.with_name(f"{settings.name}.part")
    try:
        part.write_text(text)
        for path, source in links.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            link(path, source)
            made.append(path)
        part.replace(settings)
    except (OSError, InputError) as error:
        for path in links:
            if path in made:
                path.unlink()
            with suppress(OSError):
                path.parent.rmdir()  # that of a single file; others hold more
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{error.filename or settings} cannot be written: {error.strerror or error}.",
            "The project must be a folder that you may write to.",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)

"""``iscale init``: a project folder laid out of files where they are, by links, with its settings; captures added."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from iscale.errors import InputError
from iscale.options import SETTINGS_FILE, Platform, capture_table, load_options, settings_text
from iscale.project.layout import (
    ALIGNED_FOLDERS,
    CAPTURES_FOLDER,
    IMAGE_SUFFIXES,
    MOTHER_FOLDER,
    SINGLE_SUFFIXES,
    UNALIGNED_FOLDERS,
)

CAPTURE_REMEDY = "Write --capture NAME=FOLDER, once for every capture."


@dataclass
class Layout:
    """What a project is to hold, by path in it.

    Attributes
    ----------
    links
        Links, and what they lead to.
    texts
        Text files, and what they hold.
    folders
        Folders that are empty.
    """

    links: dict[Path, Path] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)


def init_project(
    project: Path,
    mother: Path,
    captures: Sequence[str],
    *,
    pixel_size_raw: float | None = None,
    platform: str | None = None,
) -> str:
    """Lay out a project by links to a slide and to captures.

    Parameters
    ----------
    project
        The project folder to make; it may be there if it is empty, or what would be made is there already.
    mother
        The slide.
    captures
        ``NAME=FOLDER`` each: what an instrument's software wrote, or one ``.h5ad`` file or ``.zarr`` store.
    pixel_size_raw
        um per pixel of the slide, if its file does not say.
    platform
        What measured the captures, if their files do not tell.

    Returns
    -------
    str
        What was found, and what to do next.

    Raises
    ------
    InputError
        If the slide or a capture cannot be used, names are unfit, the folder holds something else, or links cannot be
        made; nothing is written then.
    """
    project, mother = project.expanduser().resolve(), _absolute(mother)
    sources = parse_captures(captures)
    slide = _describe_slide(mother, pixel_size_raw)
    platforms = platforms_of(sources, platform)
    layout = _layout(mother, sources, platforms, pixel_size_raw)
    made = _is_new(project, layout)
    if made:
        _write(project, layout)
    lines = [f"{project}: {'made' if made else 'is there already, as it would be made'}", f"mother image: {slide}"]
    lines += _captures_text(sources, platforms)
    lines += ["", "Next:", *(f"  iscale {verb} {shlex.quote(str(project))}" for verb in ("check", "align", "run"))]
    return "\n".join(lines)


def _captures_text(sources: dict[str, Path], platforms: dict[str, str]) -> list[str]:
    """A line for each capture, and one for each choice that its reader makes."""
    from iscale.captures.platforms import told

    lines = []
    for name, source in sources.items():
        lines.append(f"capture {name}: {platforms[name]}, {source}")
        try:
            lines += [f"  {notice}" for notice in told(source, platforms[name])]
        except InputError as error:  # what a setting may mend is no reason not to lay out
            lines += [f"  Warning: {line.strip()}" for line in str(error).splitlines()[:1]]
            lines += [f"  {line.strip()}" for line in str(error).splitlines()[1:]]
    return lines


def _absolute(path: Path) -> Path:
    """An absolute path whose last part may be a link still: a slide's companions lie beside the name that is given."""
    path = path.expanduser().absolute()
    return path.parent.resolve() / path.name if path.name != ".." else path.resolve()


def parse_captures(captures: Sequence[str]) -> dict[str, Path]:
    """Captures of ``NAME=FOLDER`` by name; names are words that a folder, a table of TOML and a shell take."""
    sources: dict[str, Path] = {}
    for text in captures:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise InputError(f"--capture {text}: not NAME=FOLDER.", CAPTURE_REMEDY)
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or ".." in name:
            raise InputError(
                f"--capture {text}: {name!r} is no name for a capture.",
                "Use letters, digits, and _ - . within; such as D1.",
            )
        if name in sources:
            raise InputError(f"--capture {text}: there is a capture {name} already, {sources[name]}.", CAPTURE_REMEDY)
        sources[name] = _absolute(Path(folder))
    if not sources:
        raise InputError("No capture is given.", CAPTURE_REMEDY)
    return sources


def _describe_slide(mother: Path, pixel_size_raw: float | None) -> str:
    """Size and pixel size of the slide, which must be one that opens and whose pixel size is known."""
    from iscale.slide.pixel_size import overruled, resolve_pixel_size
    from iscale.slide.reader import open_slide

    reader = open_slide(mother)
    try:
        height, width = reader.levels[0]
        stated = (reader.pixel_size_um, reader.pixel_size_source)
        notices = list(reader.notices)
    finally:
        reader.close()
    pixel_size, source = resolve_pixel_size(stated, flag=(pixel_size_raw, "--pixel-size-raw"))
    if against := overruled(stated, (pixel_size, source)):
        notices.append(f"Warning: {against}")
    return "\n  ".join([f"{width} x {height} px of {pixel_size:g} um ({source}), {mother}", *notices])


def platforms_of(sources: dict[str, Path], platform: str | None) -> dict[str, str]:
    """What measured each capture: what the user says, else what its files tell.

    Raises
    ------
    InputError
        A capture is not there, or no platform is known that it could be of.
    """
    if platform is not None and platform not in get_args(Platform):
        raise InputError(f"--platform {platform}: not known.", f"Known are: {', '.join(get_args(Platform))}.")
    return {name: _detect(name, source, platform) for name, source in sources.items()}


def _detect(name: str, source: Path, platform: str | None) -> str:
    if not source.exists():
        what = f"is a link to {source.readlink()}, which is not there" if source.is_symlink() else "does not exist"
        raise InputError(f"--capture {name}: {source} {what}.", "Check the path and its spelling.")
    if source.is_file() and source.suffix.lower() not in SINGLE_SUFFIXES:
        raise InputError(
            f"--capture {name}: {source} is a file.",
            "Give the folder that the instrument's software wrote; single files may be .h5ad.",
        )
    if platform is not None:
        return platform
    from iscale.captures.platforms import detect_platform

    return str(detect_platform(source))


def _layout(mother: Path, sources: dict[str, Path], platforms: dict[str, str], pixel_size_raw: float | None) -> Layout:
    layout = Layout()
    image = Path(MOTHER_FOLDER)
    suffix = _image_suffix(mother)
    layout.links[image / f"he-raw{suffix}"] = mother
    if suffix.lower() == ".mrxs":  # the tiles lie in a folder of the slide's name
        layout.links[image / "he-raw"] = mother.with_suffix("")
    if pixel_size_raw is not None:
        layout.texts[image / "pixel-size-raw.txt"] = f"{pixel_size_raw}\n"
    for name, source in sources.items():
        layout.links[place_of_capture(name, source)] = source
    layout.folders.append(Path(CAPTURES_FOLDER) / ALIGNED_FOLDERS[0])
    layout.texts[Path(SETTINGS_FILE)] = settings_text(platforms)
    return layout


def place_of_capture(name: str, source: Path) -> Path:
    """Where in a project the link to what an instrument wrote lies; a single file lies in the capture's folder."""
    place = Path(CAPTURES_FOLDER) / UNALIGNED_FOLDERS[0] / name
    return place / source.name if source.suffix.lower() in SINGLE_SUFFIXES else place


def _image_suffix(mother: Path) -> str:
    """The suffix of a slide as it is written, ``.ome.tif`` as a whole."""
    longest = max((s for s in IMAGE_SUFFIXES if mother.name.lower().endswith(s)), key=len)
    return mother.name[-len(longest) :]


def _is_new(project: Path, layout: Layout) -> bool:
    """Whether the project is to be made; refused where the folder holds anything else than what would be made."""
    if project.exists() and not project.is_dir():
        raise InputError(f"{project} is a file.", "Name a folder that is not there yet.")
    if not project.exists() or not any(project.iterdir()):
        return True
    differ = sorted(str(path) for path in _differences(project, layout))
    if not differ:
        return False
    found = ", ".join(sorted(p.name for p in project.iterdir())[:8])
    raise InputError(
        f"{project} is not empty (there is: {found}), and is not this project: {', '.join(differ[:5])} "
        f"{'are' if len(differ) > 1 else 'is'} missing or different.",
        "Name a folder that is not there yet, or change the files of this one by hand.",
    )


def _differences(project: Path, layout: Layout) -> Iterator[Path]:
    for path, target in layout.links.items():
        if not (project / path).is_symlink() or (project / path).readlink() != target:
            yield path
    for path, text in layout.texts.items():
        if not (project / path).is_file() or (project / path).read_bytes() != text.encode():
            yield path
    yield from (path for path in layout.folders if not (project / path).is_dir())


def _write(project: Path, layout: Layout) -> None:
    """Make the project beside its place, and put it there when it is whole.

    A folder that is there, and empty, is kept: someone may stand in it, or a disk be mounted there.
    """
    there = project.is_dir()
    part = (project if there else project.parent) / f".iscale-init-{os.getpid()}"
    try:
        for folder in layout.folders:
            (part / folder).mkdir(parents=True)
        for path, text in layout.texts.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).write_bytes(text.encode())
        for path, target in layout.links.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            link(part / path, target)
        if there:
            for entry in sorted(part.iterdir()):
                entry.rename(project / entry.name)
        else:
            part.rename(project)
    except OSError as error:
        raise InputError(
            f"{project} cannot be made: {error.strerror or error}.", "Choose a folder that you may write to."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Make a link, refused with what to do where the file system has none."""
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:
        raise InputError(
            f"{path.name} cannot be made a link to {target}: {error.strerror or error}.",
            "A project is links to files where they are; choose a folder on a file system that has symbolic links.",
        ) from error


def add_captures(project: Path, captures: Sequence[str], *, platform: str | None = None) -> str:
    """Add captures to a project; what is in it stays as it is.

    Parameters
    ----------
    project
        The project folder.
    captures
        ``NAME=FOLDER`` each, as for :func:`iscale.cli.init.init_project`.
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
    _add(project / SETTINGS_FILE, _settings(project / SETTINGS_FILE, platforms), links)
    lines = [f"{project}: added", *_captures_text(sources, platforms)]
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


def _add(settings: Path, text: str, links: dict[Path, Path]) -> None:
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

"""What ``iscale weights`` does: report on HIPT's two weight files, and convert them to files a tenth of their size."""

from __future__ import annotations

from pathlib import Path

from iscale import __version__
from iscale.encoders.checkpoint import file_bytes, write_tensors
from iscale.encoders.weights import (
    CONVERTED_SUFFIX,
    NETWORKS,
    PUBLISHED_SUFFIX,
    SOURCE_KEY,
    WEIGHT_FILES,
    WeightFile,
    Which,
    digest,
    load_weights,
    notice,
    read_weights,
)
from iscale.errors import InputError


def verify_weights(folder: Path) -> str:
    """Read both files as a run would, and say what they are.

    Returns
    -------
    str
        For people: size, sha256, whether published, and number of parameters of each file.

    Raises
    ------
    InputError
        If a file is missing or cannot be used.
    """
    return "\n".join(_described(load_weights(folder, which)) for which in WEIGHT_FILES)


def convert_weights(folder: Path, out: Path | None = None) -> str:
    """Write what is used of the two ``.pth`` files, the teacher's weights, as safetensors files.

    Both files are read and checked before the first is written, and a file is there whole or not at all.

    Parameters
    ----------
    folder
        Folder of the ``.pth`` files, which stay.
    out
        Folder to write to, made if need be; by default ``folder``.

    Returns
    -------
    str
        For people: sizes before and after.

    Raises
    ------
    InputError
        If a file cannot be used or written, or another is there already; one that holds the same weights is kept.
    """
    out = folder if out is None else out
    files = {which: _source(folder, which) for which in WEIGHT_FILES}
    targets = {which: out / f"{which}{CONVERTED_SUFFIX}" for which in WEIGHT_FILES}
    kept = {which for which, file in files.items() if _holds_already(targets[which], file, which)}
    lines = []
    for which, file in files.items():
        target = targets[which]
        if which not in kept:
            metadata = {"source_file": file.path.name, SOURCE_KEY: file.sha256, "made_by": f"iscale {__version__}"}
            write_tensors(target, file.tensors, metadata)
        before, after = file_bytes(file.path), file_bytes(target)
        how = ", there already with the same weights" if which in kept else ""
        lines.append(f"{file.path} ({before:,} bytes) -> {target} ({after:,} bytes{how})")
        lines += [line for line in [notice(file)] if line]
    before = sum(file_bytes(file.path) for file in files.values())
    after = sum(file_bytes(target) for target in targets.values())
    return "\n".join([*lines, f"Together {before / 1e6:,.1f} MB -> {after / 1e6:,.1f} MB."])


def _described(file: WeightFile) -> str:
    parameters = sum(tensor.numel() for tensor in file.tensors.values())
    return "\n".join(
        [
            f"{file.path}: {NETWORKS[file.which].title}, usable",
            f"  size         {file_bytes(file.path):,} bytes",
            f"  sha256       {file.sha256}",
            f"  origin       {_origin(file)}",
            f"  parameters   {parameters:,} in {len(file.tensors)} tensors; names and shapes are those of the network",
        ]
    )


def _origin(file: WeightFile) -> str:
    network = NETWORKS[file.which]
    if file.path.suffix != CONVERTED_SUFFIX:
        expected = f"{network.published_bytes:,} bytes, sha256 {network.published_sha256}"
        return "the published file" if file.published else f"not the published file, which has {expected}"
    if not file.source_sha256:
        return "converted; it does not say from which file"
    which = "the published file" if file.published else "a file that is not the published one"
    return f"by its own word converted from {which} (sha256 {file.source_sha256})"


def _source(folder: Path, which: Which) -> WeightFile:
    path = folder / f"{which}{PUBLISHED_SUFFIX}"
    if not path.is_file():
        converted = (folder / f"{which}{CONVERTED_SUFFIX}").is_file()
        raise InputError(
            f"{path} is not there, so there is nothing to convert",
            f"{which}{CONVERTED_SUFFIX} is there, which is all that a run needs."
            if converted
            else "Name the folder that holds HIPT's two .pth files.",
        )
    return read_weights(path, which)


def _holds_already(target: Path, file: WeightFile, which: Which) -> bool:
    """Whether the weights are in the file that would be written; any other file in its place is an error."""
    if not target.exists():
        return False
    try:
        same = digest(read_weights(target, which).tensors) == digest(file.tensors)
    except InputError:
        same = False
    if not same:
        raise InputError(
            f"{target} is there already and does not hold the weights of {file.path}",
            "Remove it, or choose another folder to write to.",
        )
    return True

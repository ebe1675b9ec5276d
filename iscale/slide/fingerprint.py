"""Which slide file this is, told in milliseconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from iscale.errors import InputError

BLOCK_BYTES = 64 << 10
BLOCKS = 64


def file_fingerprint(path: Path | str) -> str:
    """Identity of a file for reuse of what was computed from it: a sha256 over samples of it.

    Sampled: the size, the first and the last 64 KiB, and 64 blocks of 64 KiB evenly spaced between. Any change of
    size or metadata, and a re-encoding, change it; a change of a few bytes between the blocks of a file above 4 MiB
    may not. Of a MIRAX slide the sizes of the files in its companion folder count too.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        digest.update(f"{size}".encode())
        last = max(0, size - BLOCK_BYTES)
        offsets = sorted({last * i // (BLOCKS + 1) for i in range(BLOCKS + 2)})
        with path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                digest.update(file.read(BLOCK_BYTES))
        if path.suffix.lower() == ".mrxs":
            for part in sorted(path.with_suffix("").glob("*")):
                digest.update(f"{part.name} {part.stat().st_size}".encode())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from error
    return digest.hexdigest()

"""``python -m iscale.slide.decode SLIDE OUT.npy``: decode a slide without random access, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from iscale.errors import IscaleError
from iscale.slide.reader import open_slide


def main(slide: str, out: str) -> int:
    """Decode; on bad input the error goes to standard error."""
    try:
        open_slide(Path(slide)).decode_to(Path(out))
    except IscaleError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""iscale: gene expression in every 8 um superpixel of a whole slide, out of core.

``iscale.run(project)`` runs the pipeline, ``iscale.open_run(path)`` reads what it made, and
``iscale.on_mother(adata)`` says where the spots of one of its captures lie. ``iscale.read_capture(path)`` reads what an
instrument measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "on_mother", "open_run", "read_capture", "run"]

if TYPE_CHECKING:
    from iscale.captures.stage import on_mother
    from iscale.pipeline import run
    from iscale.results import open_run
    from iscale.vendors.read import read_capture


def __getattr__(name: str) -> Any:
    """Import the functions when they are first used, so that ``iscale --help`` is quick."""
    if name == "run":
        from iscale.pipeline import run

        return run
    if name == "open_run":
        from iscale.results import open_run

        return open_run
    if name == "on_mother":
        from iscale.captures.stage import on_mother

        return on_mother
    if name == "read_capture":
        from iscale.vendors.read import read_capture

        return read_capture
    raise AttributeError(name)

"""iscale: gene expression in every 8 um superpixel of a whole slide, out of core.

``iscale.run(project)`` runs the pipeline, ``iscale.open_run(path)`` reads what it made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "open_run", "run"]

if TYPE_CHECKING:
    from iscale.pipeline import run
    from iscale.results import open_run


def __getattr__(name: str) -> Any:
    """Import the two functions when they are first used, so that ``iscale --help`` is quick."""
    if name == "run":
        from iscale.pipeline import run

        return run
    if name == "open_run":
        from iscale.results import open_run

        return open_run
    raise AttributeError(name)

"""iscale: gene expression in every 8 um superpixel of a whole slide, out of core.

``iscale.run(project)`` runs the pipeline, ``iscale.open_run(path)`` reads what it made, and
``iscale.on_mother(adata)`` says where the spots of one of its captures lie. ``iscale.read_capture(path)`` reads what an
instrument measured; ``iscale.run_check(project)`` says what would go wrong. ``iscale.aggregate_run(run, over)`` and
``iscale.export_run(run, to)`` write a run per cell, and for other tools.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from iscale.captures.platforms import read_capture
    from iscale.captures.stage import on_mother
    from iscale.check.project import run_check
    from iscale.export.areas.aggregate import aggregate_run
    from iscale.export.command import export_run
    from iscale.pipeline.run import run
    from iscale.results import open_run

_HOMES = {
    "aggregate_run": "iscale.export.areas.aggregate",
    "export_run": "iscale.export.command",
    "on_mother": "iscale.captures.stage",
    "open_run": "iscale.results",
    "read_capture": "iscale.captures.platforms",
    "run": "iscale.pipeline.run",
    "run_check": "iscale.check.project",
}

__all__ = [
    "__version__",
    "aggregate_run",
    "export_run",
    "on_mother",
    "open_run",
    "read_capture",
    "run",
    "run_check",
]


def __getattr__(name: str) -> Any:
    """Import the functions when they are first used, so that ``iscale --help`` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'iscale' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Forwarded, as documentation once gave this path: it is `iscale.aggregate_run` now."""

from iscale.export.areas.aggregate import aggregate_run

__all__ = ["aggregate_run"]

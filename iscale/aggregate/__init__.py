"""Where command ``aggregate`` was: what scripts import of here is :mod:`iscale.export.areas` now."""

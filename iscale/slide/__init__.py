"""Slides: read by region, rescaled to the analysis image, and told from glass; stages ``ingest`` and ``tissue``."""

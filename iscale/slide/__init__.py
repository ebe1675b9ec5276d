"""Slides: files read by region, their pixel size, and anti-aliased rescaling to the analysis image."""

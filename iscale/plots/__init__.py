"""Plots: spots over the image and predicted maps, drawn from overviews, never from the whole slide."""

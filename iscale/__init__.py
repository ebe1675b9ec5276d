"""iscale: gene expression in every 8 um superpixel of a whole slide, out of core."""

__version__ = "0.1.0"

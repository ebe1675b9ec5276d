"""Which superpixels hold nuclei, by the stains of the image: stage ``refine``."""

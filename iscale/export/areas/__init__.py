"""Expression summed over areas (cells, spots, bins), one row each, as AnnData on disk; command ``aggregate``."""

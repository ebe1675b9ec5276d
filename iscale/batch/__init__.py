"""Batch systems: workers that are jobs of SLURM or LSF, as a site's YAML file describes them."""

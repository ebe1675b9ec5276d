"""What superpixels are: where nuclei are likely, clusters, labels; stages ``refine``, ``cluster`` and ``annotate``."""

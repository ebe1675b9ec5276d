"""What each superpixel is, by marker genes that the user names: stage ``annotate``."""

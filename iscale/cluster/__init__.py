"""Clusters of superpixels by their gene embedding, and the genes that mark them; stage ``cluster``."""

"""Data to try iscale on: a synthetic tissue, and the layout of a public data set."""

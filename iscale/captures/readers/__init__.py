"""Captures as instruments and vendors write them, one module per platform, each to the same `Measured`."""

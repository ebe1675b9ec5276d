"""The store: how every array of a run is laid out, made, and opened."""

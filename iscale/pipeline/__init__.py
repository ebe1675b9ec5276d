"""A run: inputs checked, captures aligned, every step executed that is missing, what came of it recorded."""

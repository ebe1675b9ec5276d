"""A run held against what was measured and the model did not see."""

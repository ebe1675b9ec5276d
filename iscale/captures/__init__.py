"""Daughter captures: read, checked, and integrated into training spots."""

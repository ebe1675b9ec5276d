"""Daughter captures: read from what instruments write, checked, integrated into training spots; stage ``integrate``."""

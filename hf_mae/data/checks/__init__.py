"""Checks of data: invalid images, duplicates, contamination, label corrections."""

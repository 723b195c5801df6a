"""Data sources: what a URI contains, and its samples with split, label and group."""

"""Figures: one module per subject, and their common style."""

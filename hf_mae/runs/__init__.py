"""The record of a run, its folder, and reading finished ones."""

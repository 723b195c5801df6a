"""Metrics, statistics, calibration, probes: numbers of predictions, without files."""

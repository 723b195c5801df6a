"""Evaluation: metrics, intervals, significance tests, calibration, uncertainty, features and probes."""

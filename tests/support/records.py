"""Values of run records that tests write."""

from hf_mae.runs.record import Environment, Hardware

ENVIRONMENT = Environment(Hardware(2, "x86_64"), {"torch": "2"})

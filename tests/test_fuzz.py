"""Damaged files of every type give a result or one error message, within limits of time and memory.

`python scripts/fuzz.py` tries ten thousand files.
"""

import os
import signal
import time

import pytest
from support.paths import load_script

COUNT, SEED = 340, 20


@pytest.mark.slow
@pytest.mark.run
def test_damaged_files():
    """Runs in forks of this process, so that a crash counts as a failure."""
    fuzz = load_script("fuzz")
    names, faults = list(fuzz.FUZZ_TARGETS), []
    fuzz.warm_up(names)
    for number in range(COUNT):
        name = names[number % len(names)]
        outcome, message = fuzz.try_case(name, SEED, number)
        if outcome == "failure":
            faults.append(f"{name}, case {number}: {message}")
    assert not faults, "\n".join(faults)


def test_tracebacks_time_memory_and_crashes_count_as_failures(monkeypatch):
    fuzz = load_script("fuzz")
    for read, expected in (
        (lambda folder, path: 1 / 0, "ZeroDivisionError"),
        (lambda folder, path: time.sleep(300), "out of time"),
        (lambda folder, path: os.kill(os.getpid(), signal.SIGKILL), "a crash"),
        (lambda folder, path: bytearray(900_000_000), "MB more memory"),
    ):
        kind = fuzz.FuzzTarget(fuzz.make_labels, fuzz.damage_bytes, read)
        monkeypatch.setattr(fuzz, "FUZZ_TARGETS", {"labels": kind})
        monkeypatch.setattr(fuzz, "MAX_SECONDS", 1 if expected == "out of time" else 60)
        outcome, message = fuzz.try_case("labels", 0, 0)
        assert outcome == "failure" and expected in message

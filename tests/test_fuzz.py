"""Damaged files of every kind end in a result or in one sentence, within bounds, and leave nothing behind.

Ten thousand of them: `python scripts/fuzz.py`.
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
    """In forks of this process, so that a crash is a fault too."""
    fuzz = load_script("fuzz")
    fuzz.warm_up()
    names, faults = list(fuzz.FUZZ_TARGETS), []
    for number in range(COUNT):
        name = names[number % len(names)]
        outcome, said = fuzz.try_case(name, SEED, number)
        if outcome == "fault":
            faults.append(f"{name}, case {number}: {said}")
    assert not faults, "\n".join(faults)


def test_a_fault_is_found(monkeypatch):
    """What is no sentence, takes too long, holds too much or crashes is a fault."""
    fuzz = load_script("fuzz")
    for read, message in (
        (lambda folder, path: 1 / 0, "ZeroDivisionError"),
        (lambda folder, path: time.sleep(300), "out of time"),
        (lambda folder, path: os.kill(os.getpid(), signal.SIGKILL), "a crash"),
        (lambda folder, path: bytearray(900_000_000), "MB more were held"),
    ):
        kind = fuzz.FuzzTarget(fuzz.make_labels, fuzz.damage_bytes, read)
        monkeypatch.setattr(fuzz, "FUZZ_TARGETS", {"labels": kind})
        monkeypatch.setattr(fuzz, "MAX_SECONDS", 1 if message == "out of time" else 60)
        outcome, said = fuzz.try_case("labels", 0, 0)
        assert outcome == "fault" and message in said

"""Limits of a command: they take precedence over the environment, and reach spawned workers."""

import multiprocessing
import os
import pickle

import pytest

from hf_mae.settings import limits
from hf_mae.workflows.cache import cache


class Items(limits.CarriesLimits):
    def __init__(self):
        self.name = "items"


def read_limits(data: bytes) -> tuple[str, int, str]:
    return pickle.loads(data).name, limits.max_pixels(), limits.cache_limit()


@pytest.fixture(autouse=True)
def restored_limits(monkeypatch):
    monkeypatch.setattr(limits, "_limits", dict(limits._limits))


def test_a_spawned_worker_has_the_limits_of_its_dataset():
    limits.apply_limits(max_pixels=99, cache_limit="3GB")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_limits, [pickle.dumps(Items())]) == ("items", 99, "3GB")


def test_each_command_has_its_own_limits(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv(limits.MAX_PIXELS_ENV, "1000")
    monkeypatch.setenv(limits.CACHE_LIMIT_ENV, "1GB")
    limits.apply_limits(max_pixels=99, cache_limit="3GB")
    environment = dict(os.environ)
    cache()
    assert (limits.max_pixels(), limits.cache_limit()) == (1000, "1GB") and dict(os.environ) == environment


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_the_cores_of_a_job_are_counted():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert limits.count_usable_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)

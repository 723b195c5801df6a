"""A model of an untrusted configuration is built without memory first, and stopped at a bound."""

import signal
import threading
import time

import pytest
import torch
from support.messages import raises
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import AutoConfig, AutoModelForImageClassification, TimmWrapperConfig

from hf_mae.conversion import ConversionError, bounds
from hf_mae.conversion.bounds import build_within_bounds
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.conversion.stock_models import check_model_size


def build_deep():
    return nn.ModuleList(nn.Linear(2, 2) for _ in range(10**9))


def build_wide():
    return nn.Linear(10**6, 10**6)


def build_buffer():
    nn.Module().register_buffer("table", torch.empty(10**6, 10**6), persistent=False)


def build_nothing():
    while True:
        pass


@pytest.mark.parametrize("build", [build_deep, build_wide, build_buffer, build_nothing])
def test_a_model_without_end_is_stopped(monkeypatch, build):
    monkeypatch.setattr(bounds, "MAX_SECONDS", 1)
    before = signal.getsignal(signal.SIGVTALRM)
    with raises(ConversionMessage.MODEL_TOO_LARGE, ConversionError, source="x"):
        build_within_bounds(build, "x")
    assert signal.getsignal(signal.SIGVTALRM) == before and signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    for kind in ("module", "parameter", "buffer"):
        assert not getattr(torch_module, f"_global_{kind}_registration_hooks")


def test_the_clean_up_is_not_interrupted(monkeypatch):
    """A timer that fires after the error of a count raises no second one."""
    monkeypatch.setattr(bounds, "TICK", 0.01)

    def build():
        try:
            build_wide()
        finally:
            end = time.thread_time() + 0.1
            while time.thread_time() < end:
                pass
            cleaned.append(True)

    cleaned = []
    with raises(ConversionMessage.MODEL_TOO_LARGE, ConversionError):
        build_within_bounds(build, "x")
    assert cleaned


def test_models_of_other_threads_are_not_counted(monkeypatch):
    monkeypatch.setattr(bounds, "MAX_PARTS", 5)

    def build():
        other = threading.Thread(target=lambda: found.append(nn.Sequential(*[nn.ReLU() for _ in range(9)])))
        other.start()
        other.join()
        return nn.Sequential(nn.Linear(2, 2))

    found = []
    assert build_within_bounds(build, "x")[0].weight.is_meta and len(found[0]) == 9


def test_a_thread_is_stopped_by_its_modules():
    errors = []

    def run():
        with pytest.raises(ConversionError) as caught:
            build_within_bounds(build_deep, "x")
        errors.append(caught.value.code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == [ConversionMessage.MODEL_TOO_LARGE]


def test_the_error_of_a_model_is_the_cause():
    with raises(ConversionMessage.CANNOT_BUILD_MODEL, reason="unsupported") as caught:
        build_within_bounds(lambda: (_ for _ in ()).throw(TypeError("unsupported")), "x")
    assert isinstance(caught.value.__cause__, TypeError)


# Fields of many names, in networks of transformers and timm.
NETWORKS = [
    ("cvt", {"depth": [60_000, 2, 10]}),
    ("focalnet", {"focal_levels": [2, 2, 2, 60_000]}),
    ("hgnet_v2", {"stage_num_blocks": [1, 60_000, 3, 1]}),
    ("levit", {"image_size": 4096}),
    ("swin", {"depths": [60_000] * 4}),
    ("vit", {"hidden_size": 60_000 * 12}),
    ("efficientnet", {"num_block_repeats": [1, 2, 2, 3, 3, 4, 60_000]}),
    ("resnet", {"depths": [3, 4, 6, 10**6]}),
    ("timm/vit_tiny_patch16_224", {"depth": 60_000}),
    ("timm/hgnet_tiny", {"stem_chs": [10**6] * 3}),
    ("timm/densenet121", {"block_config": [60_000] * 4}),
    ("timm/dpn68", {"k_sec": [60_000] * 4}),
    ("timm/efficientformer_l1", {"depths": [3, 60_000]}),
]


@pytest.mark.parametrize(("network", "change"), NETWORKS)
def test_configurations_without_end(monkeypatch, network, change):
    monkeypatch.setattr(bounds, "MAX_SECONDS", 1.5)
    monkeypatch.setattr(bounds, "MAX_PARTS", 3_000)
    if network.startswith("timm/"):
        config = TimmWrapperConfig(architecture=network.removeprefix("timm/"), model_args=change)
    else:
        config = AutoConfig.for_model(network, **change)
    begin = time.thread_time()
    with pytest.raises(ConversionError) as caught:
        check_model_size(config, "x", AutoModelForImageClassification)
    assert caught.value.code in (ConversionMessage.MODEL_TOO_LARGE, ConversionMessage.CANNOT_BUILD_MODEL)
    assert time.thread_time() - begin < 6

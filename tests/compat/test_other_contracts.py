"""What `compat` relies on of accelerate, DeepSpeed's coupling, datasets, timm and torch."""

import configparser
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
from accelerate import Accelerator, DistributedType, PartialState, skip_first_batches
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from accelerate.utils import other
from datasets import Dataset, Features, IterableDataset, Value
from packaging.requirements import Requirement
from PIL import Image
from support.models import tiny_pretrainer
from support.paths import ROOT

from hf_mae.compat.accelerate import (
    enable_fsdp_on_cpu,
    skip_deepspeed_import,
    unwrap_optimizer,
    unwrap_without_deepspeed_import,
    use_low_memory_sampler,
)
from hf_mae.compat.datasets import (
    ArrowWriter,
    get_fingerprint,
    get_stream_features,
    has_no_indices_mapping,
    patch_s3fs_streaming,
)
from hf_mae.compat.deepspeed import disable_zero3_init, get_params_with_groups, repartition, zero3_shard
from hf_mae.compat.timm import patch_posterize, posterize
from hf_mae.compat.torch import get_cpu_generator


@pytest.fixture
def cpus(monkeypatch):
    """accelerate's state as of several processes on CPUs."""
    state = PartialState(cpu=True)
    before = state.distributed_type
    state.distributed_type = DistributedType.MULTI_CPU
    yield state
    state.distributed_type = before


def test_fsdp_is_found_on_cpus_within_the_block_alone(cpus, monkeypatch):
    with enable_fsdp_on_cpu():  # nobody asked
        assert PartialState().distributed_type == DistributedType.MULTI_CPU
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with enable_fsdp_on_cpu():
        assert PartialState().distributed_type == DistributedType.MULTI_GPU
    assert PartialState().distributed_type == DistributedType.MULTI_CPU
    with pytest.raises(RuntimeError), enable_fsdp_on_cpu():
        raise RuntimeError
    assert PartialState().distributed_type == DistributedType.MULTI_CPU
    with enable_fsdp_on_cpu():
        cpus.distributed_type = DistributedType.FSDP  # as accelerate does when it finds it
    assert PartialState().distributed_type == DistributedType.FSDP


def test_accelerate_asks_for_deepspeed_where_it_is_hidden(monkeypatch):
    assert "is_deepspeed_available()" in inspect.getsource(other.extract_model_from_parallel)
    asked = []
    monkeypatch.setattr(other, "is_deepspeed_available", lambda: asked.append(1) or False)
    accelerator, model = Accelerator(cpu=True), torch.nn.Linear(1, 1)
    assert accelerator.unwrap_model(model) is model and asked
    asked.clear()
    unwrap_without_deepspeed_import(accelerator)
    assert accelerator.unwrap_model(model) is model and not asked
    assert Accelerator(cpu=True).unwrap_model(model) is model and asked  # another accelerator is as it was


def test_weights_are_saved_without_looking_for_deepspeed(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(other, "is_deepspeed_available", lambda: asked.append(1) or False)
    model = tiny_pretrainer()
    model.save_pretrained(tmp_path)
    assert asked
    asked.clear()
    with skip_deepspeed_import():
        model.save_pretrained(tmp_path)
    assert not asked and other.is_deepspeed_available() is False and asked  # it is back


@pytest.mark.parametrize("processes", [1, 2])
def test_the_order_of_images_is_accelerates_own(processes):
    """Epoch by epoch, and by a loader that skips what was trained on."""

    def loader():
        images = torch.utils.data.TensorDataset(torch.arange(100_003))
        plain = torch.utils.data.DataLoader(images, batch_size=1000, shuffle=True)
        return prepare_data_loader(
            plain,
            num_processes=processes,
            process_index=processes - 1,
            use_seedable_sampler=True,
            data_seed=7,
            put_on_device=False,
        )

    def orders(prepared):
        return [torch.cat([batch for (batch,) in prepared]) for _ in range(2)]

    stock, ours = loader(), use_low_memory_sampler(loader())
    for theirs, order in zip(orders(stock), orders(ours)):
        assert torch.equal(theirs, order)
    assert not torch.equal(*orders(use_low_memory_sampler(loader())))
    skipping = skip_first_batches(use_low_memory_sampler(loader()), 3)
    assert torch.equal(torch.cat([batch for (batch,) in skipping]), orders(loader())[0][3000:])
    sampler = ours.batch_sampler.sampler if processes == 1 else ours.batch_sampler.batch_sampler.sampler
    assert type(sampler) is not SeedableRandomSampler and isinstance(sampler, SeedableRandomSampler)


def test_the_optimizer_beneath_accelerates_wrapper():
    plain = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    assert unwrap_optimizer(Accelerator(cpu=True).prepare(plain)) is plain and unwrap_optimizer(plain) is plain
    ((parameters, group),) = get_params_with_groups(plain)
    assert group is plain.param_groups[0] and parameters is group["params"]


def test_the_groups_of_zeros_optimizers():
    """ZeRO itself runs in tests/training/test_engines.py; here is what is read of it."""
    inner = SimpleNamespace(param_groups=[{"lr": 1}, {"lr": 2}])
    two = SimpleNamespace(bit16_groups=[["a"], ["b"]], optimizer=inner)
    assert get_params_with_groups(two) == [(["a"], {"lr": 1}), (["b"], {"lr": 2})]
    three = SimpleNamespace(sub_group_to_group_id={0: 1, 1: 0}, fp16_groups=[["a"], ["b"]], optimizer=inner)
    assert get_params_with_groups(three) == [(["a"], {"lr": 2}), (["b"], {"lr": 1})]


def test_what_zero_3_makes_of_a_parameter():
    """By its names in DeepSpeed's source, which is not imported; tests/training/test_engines.py has the behaviour."""
    if (found := importlib.util.find_spec("deepspeed")) is None:
        pytest.skip("DeepSpeed is not installed")
    zero = Path(found.submodule_search_locations[0]) / "runtime" / "zero"
    source = (zero / "partition_parameters.py").read_text()
    for words in ("param.ds_tensor = ", "param.ds_status = ", "param.partition = partition", "AVAILABLE = 1"):
        assert words in source, words
    parameter = torch.nn.Parameter(torch.zeros(2))
    assert zero3_shard(parameter) is None
    repartition(parameter)
    parameter.ds_tensor, parameter.ds_status = torch.ones(1), SimpleNamespace(name="AVAILABLE")
    parameter.partition = lambda: setattr(parameter, "ds_status", SimpleNamespace(name="NOT_AVAILABLE"))
    repartition(parameter)
    repartition(parameter)
    zero3_shard(parameter).add_(1)
    assert parameter.ds_status.name == "NOT_AVAILABLE" and parameter.ds_tensor.item() == 2


def test_whole_weights_hides_the_configuration_of_deepspeed_for_a_block():
    integration = importlib.import_module("transformers.integrations.deepspeed")
    assert integration._hf_deepspeed_config_weak_ref is None
    integration._hf_deepspeed_config_weak_ref = held = object()
    try:
        with pytest.raises(RuntimeError), disable_zero3_init():
            assert integration._hf_deepspeed_config_weak_ref is None
            raise RuntimeError
        assert integration._hf_deepspeed_config_weak_ref is held
    finally:
        integration._hf_deepspeed_config_weak_ref = None


def test_a_fingerprint_changes_with_the_data():
    one, two = Dataset.from_dict({"a": [1, 2]}), Dataset.from_dict({"a": [1, 3]})
    assert get_fingerprint(one) != get_fingerprint(two) != get_fingerprint(two.select([0]))


def test_the_columns_of_a_stream_that_does_not_tell_them():
    def rows():
        yield {"text": "a", "number": 1}

    untold = IterableDataset.from_generator(rows)
    assert untold.features is None and get_stream_features(untold) == Features(
        {"text": Value("string"), "number": Value("int64")}
    )
    assert list(untold) == list(rows())  # and it is read from its beginning
    told = Features({"number": Value("int32")})
    assert get_stream_features(IterableDataset.from_generator(rows, features=told)) == told


def test_rows_that_were_chosen_are_not_as_stored():
    rows = Dataset.from_dict({"a": [1, 2, 3]})
    assert has_no_indices_mapping(rows) and has_no_indices_mapping(rows.select_columns(["a"]))
    assert not has_no_indices_mapping(rows.select([2, 0])) and not has_no_indices_mapping(rows.shuffle(seed=0))


def test_s3_takes_the_word_that_datasets_hands_to_every_store():
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed here")
    patch_s3fs_streaming()
    opened = fsspec.filesystem("s3", block_size=0, anon=True)
    assert isinstance(opened, s3fs.S3FileSystem) and "block_size" not in opened.kwargs
    assert "block_size=0" in inspect.getsource(importlib.import_module("datasets.utils.file_utils"))  # else: not needed


def test_the_arrow_writer_writes_what_datasets_reads(tmp_path):
    path = str(tmp_path / "x.arrow")
    with ArrowWriter(features=Features({"b": Value("binary")}), path=path, writer_batch_size=2) as writer:
        writer.write_batch({"b": [b"one", b"two", b"three"]})
        count, _ = writer.finalize()
    assert count == 3 and Dataset.from_file(path)["b"][:] == [b"one", b"two", b"three"]


def test_posterize_of_timm_is_replaced_and_nothing_else():
    from timm.data import auto_augment, create_transform

    transform = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", color_jitter=None)
    ops = [op for step in transform.transforms for op in getattr(step, "ops", [])]
    before = [op.aug_fn for op in ops]
    assert before.count(auto_augment.posterize) == 1
    patch_posterize(transform)
    after = [op.aug_fn for op in ops]
    assert [new for old, new in zip(before, after) if old is not new] == [posterize]
    image = Image.effect_noise((8, 8), 50).convert("RGB")
    assert posterize(image, 0).getextrema() == ((0, 0),) * 3
    assert posterize(image, 3).tobytes() == auto_augment.posterize(image, 3).tobytes()
    assert posterize(image, 8) is image


def test_the_generator_of_torch():
    get_cpu_generator().manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)


def test_a_program_leaves_by_what_was_registered_for_exit(tmp_path):
    """One process of a gloo group: it waits, runs what is registered, and ends with its own status."""
    code = f"""
import atexit, sys
import torch.distributed as distributed
from hf_mae.compat.torch import exit_all_ranks
exit_all_ranks(3)  # there is no group yet: it goes on
atexit.register(lambda: open({str(tmp_path / "left")!r}, "w").write("yes"))
distributed.init_process_group("gloo", init_method="file://{tmp_path / "group"}", rank=0, world_size=1)
print("last words")
exit_all_ranks(5)
print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "last words\n"), done.stderr
    assert (tmp_path / "left").read_text() == "yes"


def test_setup_cfg_says_the_versions_that_are_tested():
    """The oldest of scripts/test_versions.sh are the floors of setup.cfg; what has a contract here has a ceiling."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = {
        (found := Requirement(line)).name.lower(): found.specifier
        for line in settings["options"]["install_requires"].split()
    }
    script = (ROOT / "scripts" / "test_versions.sh").read_text()
    pinned = dict(re.findall(r"([\w-]+)==([\d.]+)", re.search(r"oldest=\((.*?)\)", script, flags=re.DOTALL).group(1)))
    floors = {name: str(item.version) for name, spec in required.items() for item in spec if item.operator == ">="}
    for name, version in pinned.items():
        assert floors.get(name, version).rstrip(".0") == version.rstrip(".0"), name
    assert {"torch", "transformers", "accelerate", "datasets", "timm"} <= set(pinned)
    for name in ("transformers", "accelerate", "datasets", "timm"):
        assert any(item.operator == "<" for item in required[name]), f"{name} needs a ceiling"

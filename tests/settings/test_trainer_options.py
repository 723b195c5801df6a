"""Every field of `transformers.TrainingArguments` works, or is rejected before the first step."""

import copy
import dataclasses
import hashlib
import json
from functools import cache

import numpy as np
import pytest
import torch
import transformers
from support.messages import raises
from support.models import TINY, TensorItems
from transformers import TrainerCallback, TrainingArguments

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.compat.messages import CompatMessage
from hf_mae.errors import CommandLineError
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.parse import read_values
from hf_mae.settings.trainer_options import SET_BY_TRANSFORMERS, UNSUPPORTED_OPTIONS
from hf_mae.training.messages import TrainingMessage

pytestmark = pytest.mark.run  # most tests train
FIELDS = [item.name for item in dataclasses.fields(TrainingArguments) if item.init]
# Field that is rejected -> a value other than its default.
REJECTED_VALUES = {
    "label_smoothing_factor": 0.5,
    "optim_target_modules": "all-linear",
    "average_tokens_across_devices": False,
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "use_cache": True,
    "neftune_noise_alpha": 0.1,
    "include_num_input_tokens_seen": "all",
    "length_column_name": "size",
    "auto_find_batch_size": True,
    "prediction_loss_only": True,
    "eval_do_concat_batches": False,
    "batch_eval_metrics": True,
    "include_for_metrics": ["inputs"],
    "remove_unused_columns": True,
    "label_names": ["classes"],
    "parallelism_config": "anything",
    "enable_jit_checkpoint": True,
    "local_rank": 0,
}
# Field that works -> a value that changes what is observed of a short run (`observe`).
CHANGED_VALUES = {
    "per_device_train_batch_size": 2,
    "num_train_epochs": 3.0,
    "max_steps": 1,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "lr_scheduler_kwargs": {"num_cycles": 0.25},
    "warmup_steps": 1,
    "optim": "sgd",
    "optim_args": "amsgrad=True",
    "weight_decay": 0.5,
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "adam_epsilon": 1e-2,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 1e-3,
    "bf16": True,
    "bf16_full_eval": True,
    "activation_checkpointing": True,
    "activation_checkpointing_kwargs": {"use_reentrant": True},
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
    "logging_strategy": "epoch",
    "logging_steps": 1,
    "logging_first_step": True,
    "log_level": "error",
    "report_to": "tensorboard",
    "eval_strategy": "epoch",
    "eval_steps": 2,
    "eval_delay": 2,
    "per_device_eval_batch_size": 3,
    "eval_on_start": True,
    "eval_use_gather_object": True,
    "save_only_model": True,
    "save_strategy": "epoch",
    "save_steps": 1,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "accuracy",
    "seed": 5,
    "data_seed": 7,
    "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}},
    "dataloader_drop_last": True,
    "train_sampling_strategy": "sequential",
    "ddp_find_unused_parameters": True,
    "ddp_bucket_cap_mb": 10,
    "ddp_broadcast_buffers": False,
    "ddp_static_graph": True,
    "debug": "underflow_overflow",
    "min_learning_rate": 5e-3,
    "base_learning_rate": 10.0,
    "warmup_epochs": 1.0,
    "effective_batch_size": 8,
}
# Field -> the fields that both runs have.
SHARED_VALUES = {
    "warmup_epochs": {"num_train_epochs": 2},
    "eval_steps": {"eval_strategy": "steps", "logging_steps": 1},
    "eval_delay": {"eval_strategy": "epoch"},
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_min_lr"},
    "load_best_model_at_end": {
        **{"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "loss"},
        **{"learning_rate": 0.3, "num_train_epochs": 2},
    },
    "metric_for_best_model": {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
    "save_steps": {"save_strategy": "steps"},
    "save_only_model": {"save_strategy": "epoch"},
    "save_total_limit": {"save_strategy": "steps", "save_steps": 1},
    "dataloader_drop_last": {"per_device_train_batch_size": 3},
    "base_learning_rate": {"learning_rate": None},
    "activation_checkpointing_kwargs": {"activation_checkpointing": True},
    "gradient_checkpointing_kwargs": {"gradient_checkpointing": True},
}
# Fields of data loader workers, tested together because workers start slowly.
WORKER_VALUES = {
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 3,
    "dataloader_multiprocessing_context": "fork",
    "dataloader_in_order": False,
}
# Field -> the test that covers it, or why its effect cannot be seen in one process on a CPU.
OBSERVED_ELSEWHERE = {
    "output_dir": "set in every run",
    "resume_from_checkpoint": "test_output_dir.py, test_finetune.py",
    **dict.fromkeys(("ignore_data_skip", "restore_callback_states_from_checkpoint"), "test_resume.py"),
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), "test_speed.py"),
    **dict.fromkeys(("fp16", "fp16_full_eval", "tf32", "dataloader_pin_memory", "torch_empty_cache_steps"), "a GPU"),
    **dict.fromkeys(("ddp_backend", "ddp_timeout", "log_level_replica"), "several processes"),
    **dict.fromkeys(("log_on_each_node", "save_on_each_node"), "several nodes"),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed"), "test_engines.py, through accelerate's config"),
    **dict.fromkeys(("run_name", "project"), "test_trackers.py"),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), "trackio on the Hub"),
    **dict.fromkeys(
        ("hub_model_id", "hub_token", "hub_private_repo", "hub_strategy", "hub_always_push"), "test_hub.py"
    ),
    **dict.fromkeys(("push_to_hub", "hub_revision"), "test_hub.py"),
    "use_cpu": "set in every run",
    "disable_tqdm": "test_progress.py (a terminal)",
    "eval_accumulation_steps": "saves memory only",
    "skip_memory_metrics": "collects garbage for seconds",
    "full_determinism": "changes the process permanently",
    "greater_is_better": "follows from the metric; a contradiction is rejected",
    "logging_nan_inf_filter": "training stops at such a loss in any case",
}


def test_every_field_is_tested_or_rejected():
    """Fails if transformers has a new field."""
    known = {*UNSUPPORTED_OPTIONS, *SET_BY_TRANSFORMERS, *CHANGED_VALUES, *WORKER_VALUES, *OBSERVED_ELSEWHERE}
    assert not set(FIELDS) - known, "add them to settings/trainer_options.py or test them"
    assert set(REJECTED_VALUES) == set(UNSUPPORTED_OPTIONS)
    assert not (set(UNSUPPORTED_OPTIONS) & set(CHANGED_VALUES))


@pytest.mark.parametrize("name", [name for name in REJECTED_VALUES if name in FIELDS])
def test_fields_without_effect_are_rejected(tmp_path, name):
    with raises(UNSUPPORTED_OPTIONS[name]) as caught:
        FinetuningArguments(output_dir=str(tmp_path), use_cpu=True, **{name: REJECTED_VALUES[name]})
    assert f"--{name} " in str(caught.value)


def test_the_command_line_rejects_fields_without_effect():
    paths = {"model_name_or_path": "x", "data_dir": "y", "output_dir": "z"}
    for flags, message in (
        ({"label_smoothing_factor": "0.5"}, SettingsMessage.LABEL_SMOOTHING_FACTOR),
        ({"do_train": "true"}, SettingsMessage.SET_BY_COMMAND),
        ({"train_sampling_strategy": "group_by_length"}, SettingsMessage.SAMPLING_STRATEGY),
        ({"batch_eval_metrics": "true"}, SettingsMessage.SCORES_NEED_ALL_PREDICTIONS),
    ):
        with raises(message, CommandLineError):
            read_values("finetune", None, paths | flags)
    assert read_values("finetune", None, paths | {"smoothing": "0.2", "seed": "3"})["seed"] == 3


@pytest.fixture(scope="module")
def checkpoint(tiny_pth):
    """A classifier, which each run copies."""
    torch.manual_seed(0)
    return build_classifier(tiny_pth, num_labels=3, **TINY)


@pytest.fixture(scope="module")
def items():
    generator = torch.Generator().manual_seed(0)
    return TensorItems(pixel_values=torch.randn(8, 3, 32, 32, generator=generator), labels=torch.arange(8) % 3)


def build_trainer(checkpoint, items, folder, **options):
    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "num_train_epochs": 1,
        "warmup_epochs": 0,
    }
    defaults |= {"per_device_train_batch_size": 4, "save_strategy": "no", "disable_tqdm": True, "learning_rate": 1e-2}
    args = FinetuningArguments(**(defaults | options))
    transformers.logging.set_verbosity_warning()  # `log_level` may leave it unchanged
    return MaeFinetuner(model=copy.deepcopy(checkpoint), args=args, train_dataset=items, eval_dataset=items)


class Events(TrainerCallback):
    """The events of a training, with the update before each."""

    def __init__(self):
        self.events = []

    def on_evaluate(self, args, state, control, **kwargs):
        self.events.append(("evaluate", state.global_step))

    def on_substep_end(self, args, state, control, **kwargs):
        self.events.append(("micro-batch", state.global_step))

    def on_train_begin(self, args, state, control, **kwargs):
        self.events.append(("checkpointing", kwargs["model"].is_gradient_checkpointing))
        layers = [m for m in kwargs["model"].modules() if getattr(m, "_gradient_checkpointing_func", None)]
        self.events += [("arguments", str(m._gradient_checkpointing_func.keywords)) for m in layers[:1]]


def digest(tensors):
    return hashlib.sha256(b"".join(np.ascontiguousarray(tensor).tobytes() for tensor in tensors)).hexdigest()


def observe(trainer, items):
    """Trains, evaluates and predicts; returns what another setting can change."""
    recorder, loader, accelerator = Events(), trainer.get_train_dataloader(), trainer.accelerator
    trainer.add_callback(recorder)
    gather = dict(trainer.gather_function.keywords)
    result = trainer.train()
    logs = [
        {key: value for key, value in entry.items() if "runtime" not in key and "per_second" not in key}
        for entry in trainer.state.log_history
        if "train_loss" not in entry
    ]
    trained = digest(value.detach().float() for value in trainer.model.state_dict().values())
    predicted = trainer.predict(items)
    assert predicted.predictions.shape == (8, 3)
    folder = trainer.args.folder
    return {
        "weights": trained,
        "logits": digest([predicted.predictions]),
        "log": json.dumps(logs),
        "best": [trainer.state.best_metric, trainer.state.best_global_step],
        "metrics": sorted(result.metrics),
        "files": sorted(str(path.relative_to(folder)).split(".")[0] for path in folder.rglob("*")),
        "events": recorder.events,
        "loader": [getattr(loader, name, None) for name in ("num_workers", "prefetch_factor", "in_order")]
        + [
            getattr(loader, name, None) for name in ("persistent_workers", "multiprocessing_context")
        ].__repr__().split(),
        "evaluation batch": trainer.get_eval_dataloader().total_batch_size,
        "gather": gather,
        "ddp": str(accelerator.ddp_handler),
        "callbacks": [type(callback).__name__ for callback in trainer.callback_handler.callbacks],
        "verbosity": transformers.logging.get_verbosity(),
        "hooks": sum(len(module._forward_hooks) for module in trainer.model.modules()),
    }


@pytest.fixture(scope="module")
def observations(checkpoint, items, tmp_path_factory):
    """Returns a function that observes a run; runs with the same options are made once."""

    @cache
    def run(options: str):
        trainer = build_trainer(checkpoint, items, tmp_path_factory.mktemp("run"), **json.loads(options))
        return observe(trainer, items)

    return lambda **options: run(json.dumps(options, sort_keys=True))


def test_two_runs_with_the_same_settings_are_observed_as_equal(checkpoint, items, tmp_path, observations):
    assert observe(build_trainer(checkpoint, items, tmp_path), items) == observations()


@pytest.mark.parametrize(
    "name", [name for name in CHANGED_VALUES if name in {item.name for item in dataclasses.fields(FinetuningArguments)}]
)
def test_every_field_has_its_effect(observations, name):
    shared = SHARED_VALUES.get(name, {})
    assert observations(**shared | {name: CHANGED_VALUES[name]}) != observations(**shared)


def test_workers_have_the_settings_of_the_loader(checkpoint, items, tmp_path):
    trainer = build_trainer(checkpoint, items, tmp_path, **WORKER_VALUES)
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.persistent_workers, loader.prefetch_factor, loader.in_order) == (
        1,
        True,
        3,
        False,
    )
    assert loader.multiprocessing_context.get_start_method() == "fork"
    assert trainer.train().global_step == 2


CONTRADICTING_DEEPSPEED = {"deepspeed": {"train_micro_batch_size_per_gpu": 3, "zero_optimization": {"stage": 1}}}


@pytest.mark.parametrize(
    "options, message, attributes",
    [
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            TrainingMessage.SCHEDULER_UNAVAILABLE,
            {"name": "warmup_stable_decay"},
        ),
        ({"lr_scheduler_kwargs": {"nonsense": 1}}, TrainingMessage.SCHEDULER_UNAVAILABLE, {}),
        ({"metric_for_best_model": "f1"}, SettingsMessage.UNKNOWN_METRIC, {"metric": "f1"}),
        (
            {"metric_for_best_model": "test_macro_f1"},
            SettingsMessage.UNKNOWN_METRIC,
            {"suggestion": " (did you mean macro_f1?)"},
        ),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, SettingsMessage.SMALLEST_IS_BEST, {}),
        ({"metric_for_best_model": "mcc", "greater_is_better": False}, SettingsMessage.GREATEST_IS_BEST, {}),
        ({"optim": "adamw_bnb_8bit"}, TrainingMessage.OPTIMIZER_UNAVAILABLE, {"name": "adamw_bnb_8bit"}),
        ({"optim_args": "nonsense"}, TrainingMessage.OPTIMIZER_UNAVAILABLE, {}),
        ({"seed": -1}, SettingsMessage.OUT_OF_BOUNDS, {"value": -1}),
        ({"ddp_backend": "gloo"}, SettingsMessage.BACKEND_WITHOUT_PROCESSES, {}),
        ({"dataloader_prefetch_factor": 2}, SettingsMessage.NO_LOADER_WORKERS, {}),
        ({"dataloader_persistent_workers": True}, SettingsMessage.NO_LOADER_WORKERS, {}),
        ({"dataloader_multiprocessing_context": "fork"}, SettingsMessage.NO_LOADER_WORKERS, {}),
        (
            {"dataloader_multiprocessing_context": "thread", "dataloader_num_workers": 1},
            SettingsMessage.INVALID_CHOICE,
            {},
        ),
        ({"debug": "overflow"}, SettingsMessage.INVALID_CHOICE, {"name": "debug"}),
        ({"debug": ["overflow"]}, SettingsMessage.INVALID_CHOICE, {"name": "debug"}),
        ({"optim": "adam"}, SettingsMessage.INVALID_CHOICE, {"name": "optim"}),
        ({"eval_strategy": "epochs"}, SettingsMessage.INVALID_CHOICE, {"name": "eval_strategy"}),
        ({"optim_args": "nonsense=3"}, TrainingMessage.OPTIMIZER_UNAVAILABLE, {}),
        ({"optim_args": "lr=3"}, TrainingMessage.OPTIMIZER_UNAVAILABLE, {}),
        ({"optim_args": "foreach=True,fused=True"}, TrainingMessage.OPTIMIZER_UNAVAILABLE, {}),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 1}}, TrainingMessage.SCHEDULER_UNAVAILABLE, {}),
        ({"torch_compile_backend": "nonsense"}, TrainingMessage.SETUP_REJECTED, {}),
        ({"fsdp": "full_shard"}, SettingsMessage.ENGINE_WITHOUT_LAUNCHER, {"name": "fsdp"}),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, SettingsMessage.ENGINE_WITHOUT_LAUNCHER, {}),
        (CONTRADICTING_DEEPSPEED, TrainingMessage.DEEPSPEED_CONTRADICTS, {}),
        ({"max_steps": 0}, SettingsMessage.OUT_OF_BOUNDS, {"name": "max_steps"}),
        ({"log_level": "nonsense"}, SettingsMessage.INVALID_CHOICE, {"name": "log_level"}),
        ({"log_level_replica": "nonsense"}, SettingsMessage.INVALID_CHOICE, {"name": "log_level_replica"}),
        ({"report_to": "tensorbord"}, SettingsMessage.INVALID_CHOICE, {"name": "report_to"}),
        ({"debug": "tpu_metrics_debug"}, SettingsMessage.INVALID_CHOICE, {"name": "debug"}),
        ({"lr_scheduler_kwargs": "nonsense"}, SettingsMessage.INVALID_JSON, {"name": "lr_scheduler_kwargs"}),
        ({"accelerator_config": {"split_batches": True}}, SettingsMessage.SPLIT_BATCHES, {}),
        ({"accelerator_config": '{"split_batches": true}'}, SettingsMessage.SPLIT_BATCHES, {}),
        (
            {"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 0}},
            TrainingMessage.SCHEDULER_UNAVAILABLE,
            {},
        ),
        ({"fsdp": "nonsense"}, SettingsMessage.REJECTED_BY_TRANSFORMERS, {}),
        ({"fsdp": "full_shard", "fsdp_config": "/nowhere.json"}, SettingsMessage.REJECTED_BY_TRANSFORMERS, {}),
        ({"deepspeed": "/nowhere.json"}, SettingsMessage.REJECTED_BY_TRANSFORMERS, {}),
        ({"accelerator_config": {"nonsense": 1}}, SettingsMessage.REJECTED_BY_TRANSFORMERS, {}),
        ({"accelerator_config": "/nowhere.json"}, SettingsMessage.REJECTED_BY_TRANSFORMERS, {}),
        (
            {
                "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 2}},
                "gradient_accumulation_steps": 4,
            },
            SettingsMessage.TWO_ACCUMULATIONS,
            {"config": 2, "given": 4},
        ),
        (
            {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"nonsense": True}},
            SettingsMessage.REJECTED_BY_TRANSFORMERS,
            {},
        ),
        (
            {
                "gradient_checkpointing": True,
                "gradient_checkpointing_kwargs": {"determinism_check": "x", "use_reentrant": False},
            },
            SettingsMessage.REJECTED_BY_TRANSFORMERS,
            {},
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch"},
            SettingsMessage.REJECTED_BY_TRANSFORMERS,
            {},
        ),
        ({"class_weights": [1, 2]}, TrainingMessage.CLASS_WEIGHTS_DO_NOT_MATCH, {"found": 2, "expected": 3}),
    ],
)
def test_unsupported_values_are_rejected_before_the_first_step(
    checkpoint, items, tmp_path, options, message, attributes
):
    with raises(message, **attributes):
        build_trainer(checkpoint, items, tmp_path, **options).train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_greater_is_better_follows_the_metric(checkpoint, items, tmp_path):
    for metric, greater in (("loss", False), ("eval_loss", False), ("macro_f1", True), ("eval_mcc", True)):
        assert (
            build_trainer(checkpoint, items, tmp_path, metric_for_best_model=metric).args.greater_is_better is greater
        )


def test_zero_warmup_steps_overrides_warmup_epochs(checkpoint, items, tmp_path):
    trainer = build_trainer(checkpoint, items, tmp_path, warmup_epochs=5, warmup_steps=0)
    trainer.train()
    assert trainer.warmup_updates(100) == 0
    assert build_trainer(checkpoint, items, tmp_path, warmup_epochs=5).warmup_updates(100) == 10
    copied = dataclasses.replace(trainer.args, seed=1)  # like a cross-validation
    assert copied.warmup_steps == 0 and dataclasses.replace(copied).warmup_steps == 0


@pytest.mark.parametrize("weights", [[0, 1, 1], [0, 0, 1]])
def test_a_class_with_zero_weight_has_no_loss(checkpoint, items, tmp_path, weights):
    """Batches of one image contain a single class."""
    trainer = build_trainer(
        checkpoint, items, tmp_path, class_weights=weights, per_device_train_batch_size=1, smoothing=0
    )
    losses = [
        trainer.compute_loss(
            trainer.model.train(),
            {"pixel_values": items[i]["pixel_values"][None], "labels": torch.tensor([items[i]["labels"]])},
        )
        for i in range(3)
    ]
    assert [loss.item() > 0 for loss in losses] == [weight > 0 for weight in weights]
    trainer.train()


def test_an_incomplete_launcher_environment_is_rejected(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with raises(CompatMessage.LAUNCHER_ENVIRONMENT_INCOMPLETE):
        FinetuningArguments(output_dir=str(tmp_path), use_cpu=True)


def test_saved_arguments_do_not_contain_the_token_of_the_hub(tmp_path):
    args = FinetuningArguments(output_dir=str(tmp_path), use_cpu=True, hub_token="hf_secret")
    torch.save(args, tmp_path / "training_args.bin")
    assert b"hf_secret" not in (tmp_path / "training_args.bin").read_bytes()
    saved = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert saved.hub_token is None and saved.learning_rate == args.learning_rate and saved.seed == args.seed
    assert copy.copy(args).hub_token == args.hub_token == "hf_secret"

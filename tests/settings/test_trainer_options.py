"""Every field of `transformers.TrainingArguments` works, or is rejected before the first step."""

import dataclasses

import pytest
import torch
from support.messages import raises
from support.models import TINY, TensorItems, tiny_pretrainer
from transformers import TrainingArguments

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.compat.messages import CompatMessage
from hf_mae.conversion import export_model
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
# Field that works -> a value for a short run.
TESTED_VALUES = {
    "output_dir": None,  # set in every run
    "per_device_train_batch_size": 2,
    "num_train_epochs": 2.0,
    "max_steps": 1,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
    "warmup_steps": 0,
    "optim": "sgd",
    "optim_args": "foreach=False",
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.99,
    "adam_epsilon": 1e-7,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 1.0,
    "bf16": True,
    "bf16_full_eval": True,
    "activation_checkpointing": True,
    "gradient_checkpointing": True,
    "torch_empty_cache_steps": 1,
    "logging_strategy": "epoch",
    "logging_steps": 1,
    "logging_first_step": True,
    "log_on_each_node": True,
    "logging_nan_inf_filter": True,
    "log_level": "error",
    "log_level_replica": "error",
    "disable_tqdm": True,
    "report_to": "none",
    "run_name": "x",
    "project": "x",
    "eval_strategy": "epoch",
    "eval_steps": 1,
    "eval_delay": 1,
    "per_device_eval_batch_size": 3,
    "eval_on_start": True,
    "eval_use_gather_object": True,
    "eval_accumulation_steps": 1,
    "save_only_model": True,
    "save_strategy": "epoch",
    "save_steps": 1,
    "save_on_each_node": True,
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "mcc",
    "greater_is_better": True,
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "full_determinism": False,  # changes the process permanently; tested elsewhere
    "seed": 5,
    "data_seed": 7,
    "use_cpu": True,
    "accelerator_config": {"even_batches": True},
    "dataloader_drop_last": True,
    "dataloader_pin_memory": False,
    "train_sampling_strategy": "sequential",
    "ddp_find_unused_parameters": True,
    "ddp_bucket_cap_mb": 10,
    "ddp_broadcast_buffers": True,
    "ddp_static_graph": True,
    "ddp_timeout": 60,
    "skip_memory_metrics": False,
    "debug": "underflow_overflow",
    "resume_from_checkpoint": None,  # test_folder.py, test_finetune.py
}
# Field -> other fields that it requires.
REQUIRED_FIELDS = {
    "eval_steps": {"eval_strategy": "steps"},
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_min_lr"},
    "load_best_model_at_end": {"eval_strategy": "epoch", "save_strategy": "epoch"},
    "greater_is_better": {"metric_for_best_model": "mcc"},
    "save_steps": {"save_strategy": "steps"},
    "save_only_model": {"save_strategy": "steps", "save_steps": 1},
    "gradient_checkpointing": {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "activation_checkpointing": {"activation_checkpointing_kwargs": {"use_reentrant": False}},
}
# Fields of data loader workers, tested together because workers start slowly.
WORKER_VALUES = {
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 3,
    "dataloader_multiprocessing_context": "fork",
    "dataloader_in_order": False,
}
# Field -> the test that covers it.
TESTED_ELSEWHERE = {
    **dict.fromkeys(("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"), "tested with their own flag"),
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), "test_speed.py"),
    **dict.fromkeys(("fp16", "fp16_full_eval", "tf32"), "test_gpu.py"),
    "ddp_backend": "several processes",
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed"), "test_engines.py, through accelerate's config"),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), "trackio on the Hub"),
    **dict.fromkeys(
        (
            "push_to_hub",
            "hub_token",
            "hub_private_repo",
            "hub_model_id",
            "hub_strategy",
            "hub_always_push",
            "hub_revision",
        ),
        "test_hub.py",
    ),
}


def test_every_field_is_tested_or_rejected():
    """Fails if transformers has a new field."""
    known = {*UNSUPPORTED_OPTIONS, *SET_BY_TRANSFORMERS, *TESTED_VALUES, *WORKER_VALUES, *TESTED_ELSEWHERE}
    assert not set(FIELDS) - known, "add them to settings/trainer_options.py or test them"
    assert set(REJECTED_VALUES) == set(UNSUPPORTED_OPTIONS)
    assert not (set(UNSUPPORTED_OPTIONS) & set(TESTED_VALUES))


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
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("options") / "tiny.pth"
    torch.save({"model": export_model(tiny_pretrainer(), "pretraining")}, path)
    return path


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
    defaults |= {"per_device_train_batch_size": 4, "save_strategy": "no", "disable_tqdm": True}
    args = FinetuningArguments(**(defaults | options))
    model = build_classifier(checkpoint, num_labels=3, **TINY)
    return MaeFinetuner(model=model, args=args, train_dataset=items, eval_dataset=items)


TESTED_FIELDS = [name for name, value in TESTED_VALUES.items() if value is not None and name in FIELDS]


@pytest.mark.parametrize("name", [*TESTED_FIELDS, "workers"])
def test_supported_fields_work(checkpoint, items, tmp_path, name):
    options = WORKER_VALUES if name == "workers" else REQUIRED_FIELDS.get(name, {}) | {name: TESTED_VALUES[name]}
    trainer = build_trainer(checkpoint, items, tmp_path, **options)
    result = trainer.train()
    assert result.global_step >= 1
    scores = trainer.evaluate()
    assert 0 <= scores["eval_macro_f1"] <= 1
    assert trainer.predict(items).predictions.shape == (8, 3)


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
        ({"dataloader_prefetch_factor": 2}, SettingsMessage.REJECTED_BY_TRANSFORMERS, {}),
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

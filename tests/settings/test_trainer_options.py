"""Every option of `transformers.TrainingArguments` works, or is refused with its reason before the first step."""

import dataclasses

import pytest
import torch
from support.models import TINY, TensorItems, tiny_pretrainer
from transformers import TrainingArguments

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.conversion import export_model
from hf_mae.errors import CommandLineError, UsageError
from hf_mae.settings.parse import read_values
from hf_mae.settings.trainer_options import SET_BY_TRANSFORMERS, UNSUPPORTED_OPTIONS

pytestmark = pytest.mark.run  # most of them train
FIELDS = [item.name for item in dataclasses.fields(TrainingArguments) if item.init]
# Another value than the default for each that is refused.
OTHER = {
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
# A value that a run of two updates is tried with, for each that works.
TRIED = {
    "output_dir": None,  # every run has one
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
    "full_determinism": False,  # it changes the process for good: tried under its own name elsewhere
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
TOGETHER = {
    "eval_steps": {"eval_strategy": "steps"},
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_min_lr"},
    "load_best_model_at_end": {"eval_strategy": "epoch", "save_strategy": "epoch"},
    "greater_is_better": {"metric_for_best_model": "mcc"},
    "save_steps": {"save_strategy": "steps"},
    "save_only_model": {"save_strategy": "steps", "save_steps": 1},
    "gradient_checkpointing": {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "activation_checkpointing": {"activation_checkpointing_kwargs": {"use_reentrant": False}},
}
# Options of the loader's workers, tried together: starting them is what takes time.
OF_WORKERS = {
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 3,
    "dataloader_multiprocessing_context": "fork",
    "dataloader_in_order": False,
}
# What another test, or another machine, is for.
ELSEWHERE = {
    **dict.fromkeys(("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"), "tried with their own flag"),
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


def test_every_field_has_its_place():
    """Of the newest transformers that is supported, and of the oldest: a new field is a decision."""
    placed = [*UNSUPPORTED_OPTIONS, *SET_BY_TRANSFORMERS, *TRIED, *OF_WORKERS, *ELSEWHERE, "train_sampling_strategy"]
    assert not set(FIELDS) - set(placed), "decide on them in settings/trainer_options.py"
    assert set(OTHER) == set(UNSUPPORTED_OPTIONS)
    assert not (set(UNSUPPORTED_OPTIONS) & set(TRIED))


@pytest.mark.parametrize("name", [name for name in OTHER if name in FIELDS])
def test_what_would_have_no_effect_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=f"--{name} .*{UNSUPPORTED_OPTIONS[name][:20]}"):
        FinetuningArguments(output_dir=str(tmp_path), use_cpu=True, **{name: OTHER[name]})


def test_the_command_line_refuses_before_anything_is_imported():
    paths = {"model_name_or_path": "x", "data_dir": "y", "output_dir": "z"}
    for flags, message in (
        ({"label_smoothing_factor": "0.5"}, "--smoothing is what smooths the labels"),
        ({"do_train": "true"}, "the verb says what is done"),
        ({"train_sampling_strategy": "group_by_length"}, "takes random or sequential"),
        ({"batch_eval_metrics": "true"}, "macro scores are of all images together"),
    ):
        with pytest.raises(CommandLineError, match=message):
            read_values("finetune", None, paths | flags)
    assert read_values("finetune", None, paths | {"smoothing": "0.2", "seed": "3"})["seed"] == 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("options") / "tiny.pth"
    torch.save({"model": export_model(tiny_pretrainer(), "pretraining")}, path)
    return path


@pytest.fixture(scope="module")
def items():
    draw = torch.Generator().manual_seed(0)
    return TensorItems(pixel_values=torch.randn(8, 3, 32, 32, generator=draw), labels=torch.arange(8) % 3)


def trainer(checkpoint, items, folder, **options):
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


@pytest.mark.parametrize("name", [*(name for name in TRIED if TRIED[name] is not None and name in FIELDS), "workers"])
def test_what_is_offered_works(checkpoint, items, tmp_path, name):
    options = OF_WORKERS if name == "workers" else TOGETHER.get(name, {}) | {name: TRIED[name]}
    made = trainer(checkpoint, items, tmp_path, **options)
    result = made.train()
    assert result.global_step >= 1
    scores = made.evaluate()
    assert 0 <= scores["eval_macro_f1"] <= 1
    assert made.predict(items).predictions.shape == (8, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr_scheduler_type": "warmup_stable_decay"}, "--lr_scheduler_type warmup_stable_decay cannot be used"),
        ({"lr_scheduler_kwargs": {"nonsense": 1}}, "cannot be used with --lr_scheduler_kwargs"),
        ({"metric_for_best_model": "f1"}, r"takes one of accuracy, .*, loss .*not f1"),
        ({"metric_for_best_model": "test_macro_f1"}, r"not test_macro_f1 \(did you mean macro_f1\?\)"),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, "of which the smallest is the best"),
        ({"metric_for_best_model": "mcc", "greater_is_better": False}, "of which the greatest is the best"),
        ({"optim": "adamw_bnb_8bit"}, "--optim adamw_bnb_8bit cannot be used"),
        ({"optim_args": "nonsense"}, "cannot be used"),
        ({"seed": -1}, "seed must lie between 0"),
        ({"load_best_model_at_end": True, "eval_strategy": "no"}, "load_best_model_at_end"),
        ({"ddp_backend": "gloo"}, "is for several processes"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor"),
        ({"class_weights": [1, 2]}, "class_weights has 2 numbers, but the model has 3 classes"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_the_first_step(checkpoint, items, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        trainer(checkpoint, items, tmp_path, **options).train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_direction_of_every_metric_is_known(checkpoint, items, tmp_path):
    for metric, greater in (("loss", False), ("eval_loss", False), ("macro_f1", True), ("eval_mcc", True)):
        assert trainer(checkpoint, items, tmp_path, metric_for_best_model=metric).args.greater_is_better is greater


def test_no_warm_up_is_none(checkpoint, items, tmp_path):
    """0 that is asked for is not "not given"."""
    made = trainer(checkpoint, items, tmp_path, warmup_epochs=5, warmup_steps=0)
    made.train()
    assert made._warmup_updates(100) == 0
    assert trainer(checkpoint, items, tmp_path, warmup_epochs=5)._warmup_updates(100) == 10
    again = dataclasses.replace(made.args, seed=1)  # as a cross-validation does
    assert again.warmup_steps == 0 and dataclasses.replace(again).warmup_steps == 0


@pytest.mark.parametrize("weights", [[0, 1, 1], [0, 0, 1]])
def test_a_class_of_weight_zero_is_left_out_of_the_loss(checkpoint, items, tmp_path, weights):
    """Also where a batch holds no other."""
    made = trainer(checkpoint, items, tmp_path, class_weights=weights, per_device_train_batch_size=1, smoothing=0)
    losses = [
        made.compute_loss(
            made.model.train(),
            {"pixel_values": items[i]["pixel_values"][None], "labels": torch.tensor([items[i]["labels"]])},
        )
        for i in range(3)
    ]
    assert [loss.item() > 0 for loss in losses] == [weight > 0 for weight in weights]
    made.train()


def test_a_rank_that_a_launcher_left_behind(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UsageError, match="has LOCAL_RANK.* and no RANK, WORLD_SIZE"):
        FinetuningArguments(output_dir=str(tmp_path), use_cpu=True)

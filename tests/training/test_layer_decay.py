"""Parameter groups and the schedule."""

import pytest
import torch
from support.models import TINY, TensorItems

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, parameter_groups


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_parameter_is_in_one_group(tiny_pth, pooling):
    model = build_classifier(tiny_pth, pooling=pooling, num_labels=3)
    groups = parameter_groups(model, 1e-3, 0.05, 0.5)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert {group["lr_scale"] for group in groups} == {0.5**k for k in range(5)}
    assert all(group["lr"] == 1e-3 * group["lr_scale"] for group in groups)


def test_frozen_parameters_are_not_in_a_group(tiny_pth):
    model = build_classifier(tiny_pth, num_labels=3)
    model.beit.requires_grad_(False)
    groups = parameter_groups(model, 1e-3, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == 2
    assert all(group["lr_scale"] == 1.0 for group in groups)


def describe_groups(model):
    groups = parameter_groups(model, 1e-3, 0.05, 0.5)
    return [(group["lr"], group["weight_decay"], [p.shape for p in group["params"]]) for group in groups]


@pytest.mark.parametrize("wrap", ["checkpoint_wrapper", "fully_shard", "compile"])
def test_the_groups_of_a_wrapped_model_are_those_of_the_model(tiny_pth, wrap):
    """The Trainer creates the optimizer after FSDP2 and activation checkpointing have wrapped the blocks."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = build_classifier(tiny_pth, num_labels=3)
    expected, layers = describe_groups(model), model.beit.layers
    sharded_class = type("FSDPLayer", (type(layers[0]),), {"__module__": "torch.distributed.fsdp"})
    if wrap == "compile":
        model = torch.compile(model)
    for number, layer in enumerate(layers):
        if wrap == "checkpoint_wrapper":
            layers[number] = checkpoint_wrapper(layer)
        elif wrap == "fully_shard":  # FSDP2 changes the class, which then belongs to torch.distributed
            layer.__class__ = sharded_class
    assert describe_groups(model) == expected


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.3])
def test_the_schedule_equals_that_of_the_original_code(tiny_pth, tmp_path, warmup):
    """util/lr_sched.py: linear warm-up, then half a cosine to min_lr, at every update, scaled by layer."""
    import math

    data = TensorItems(pixel_values=torch.randn(14, 3, 32, 32), labels=torch.zeros(14, dtype=torch.long))
    rate, minimum, epochs, per_epoch = 1e-3, 1e-5, 3, 7
    rates = []

    class Recording(MaeFinetuner):
        def compute_loss(self, *args, **kwargs):
            rates.append({group["lr_scale"]: group["lr"] for group in self.optimizer.param_groups})
            return super().compute_loss(*args, **kwargs)

    args = FinetuningArguments(
        output_dir=tmp_path,
        num_train_epochs=epochs,
        per_device_train_batch_size=2,
        learning_rate=rate,
        min_learning_rate=minimum,
        warmup_epochs=warmup,
        layer_decay=0.5,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    model = build_classifier(tiny_pth, num_labels=3)
    Recording(model=model, args=args, train_dataset=data).train()
    assert len(rates) == epochs * per_epoch
    for update, groups in enumerate(rates):
        epoch = update / per_epoch
        if epoch < warmup:
            expected = rate * epoch / warmup
        else:
            progress = (epoch - warmup) / (epochs - warmup)
            expected = minimum + (rate - minimum) * 0.5 * (1 + math.cos(math.pi * progress))
        for scale, value in groups.items():
            # transformers divides by at least one update, so a shorter warm-up differs in the first value only
            assert value == pytest.approx(expected * scale, rel=1e-9, abs=1e-12)


def test_linear_scaling(tmp_path):
    args = FinetuningArguments(
        output_dir=tmp_path,
        base_learning_rate=5e-4,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=4,
        use_cpu=True,
    )
    assert args.images_per_update == 128
    assert args.absolute_learning_rate == pytest.approx(5e-4 * 128 / 256)
    args.learning_rate = 0.1
    assert args.absolute_learning_rate == 0.1


def test_defaults_are_those_of_the_original_code(tmp_path):
    args = FinetuningArguments(output_dir=tmp_path)
    expected = {
        "num_train_epochs": 50,
        "base_learning_rate": 1e-3,
        "learning_rate": None,
        "layer_decay": 0.75,
        "weight_decay": 0.05,
        "drop_path": 0.1,
        "warmup_epochs": 5,
        "min_learning_rate": 1e-6,
        "smoothing": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "gradient_accumulation_steps": 1,
        "max_grad_norm": 0,
        "mixup": 0,
        "cutmix": 0,
        "mixup_prob": 1.0,
        "mixup_switch_prob": 0.5,
        "mixup_mode": "batch",
        "class_weights": "none",
    }
    assert {name: getattr(args, name) for name in expected} == expected


def test_pretraining_defaults_are_those_of_the_original_code(tmp_path):
    from hf_mae import PretrainingArguments

    args = PretrainingArguments(output_dir=tmp_path)
    assert (args.base_learning_rate, args.min_learning_rate, args.warmup_epochs) == (1.5e-4, 0.0, 40)
    assert (args.adam_beta1, args.adam_beta2, args.weight_decay) == (0.9, 0.95, 0.05)


def test_heads_flag_reaches_the_converter(golden):
    model = build_classifier(golden / "gap_smoothing_initial.pth", num_labels=5, **TINY)
    assert model.config.num_attention_heads == 3

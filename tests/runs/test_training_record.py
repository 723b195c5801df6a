"""The facts of a training are those of the trainer that ran it: length, optimizer, schedule, trained parameters."""

import pytest
import torch
from support.models import TensorItems

from hf_mae import FinetuningArguments, MaeFinetuner
from hf_mae.models.stochastic_depth import set_drop_path
from hf_mae.runs.training_facts import TrainedPart
from hf_mae.runs.training_record import describe_finetuning
from hf_mae.settings.data import DataArguments

pytestmark = pytest.mark.unit
IMAGES, BATCH = 12, 4  # 3 updates per epoch


def build_model(drop_path=0.0):
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**sizes, intermediate_size=16, num_labels=2))
    set_drop_path(model, drop_path)
    return model


def build_trainer(folder, drop_path=0.0, **settings):
    """A trainer of a tiny model that classifies 12 random images."""
    torch.manual_seed(0)
    data = TensorItems(pixel_values=torch.rand(IMAGES, 3, 8, 8), labels=torch.arange(IMAGES) % 2)
    defaults = {"num_train_epochs": 2, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3}
    defaults |= {"warmup_epochs": 0, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    defaults |= {"save_strategy": "no"}
    args = FinetuningArguments(output_dir=str(folder), **defaults | settings)
    return MaeFinetuner(model=build_model(drop_path), args=args, train_dataset=data, eval_dataset=data)


def train(folder, checkpoint=None, options=None, **settings):
    trainer = build_trainer(folder, **settings)
    output = trainer.train(resume_from_checkpoint=checkpoint)
    return describe_finetuning(trainer, output, options or DataArguments())


ONE_UPDATE = {"num_train_epochs": 1, "per_device_train_batch_size": IMAGES}


def test_a_plain_training_has_its_length_optimizer_and_schedule(tmp_path):
    facts = train(tmp_path, drop_path=0.1, warmup_epochs=0.5, layer_decay=0.5)
    assert (facts.epochs, facts.updates, facts.planned_updates, facts.planned_epochs) == (2, 6, 6, 2)
    assert not facts.stopped_early and facts.resumes == 0 and facts.precision == "float32"
    optimizer, schedule = facts.optimizer, facts.schedule
    assert (optimizer.name, optimizer.betas, optimizer.layer_decay) == ("AdamW", [0.9, 0.999], 0.5)
    assert optimizer.base_learning_rate is None and optimizer.weight_decay == 0.05
    assert (schedule.name, schedule.warmup_updates) == ("cosine_with_min_lr", 1.5)
    assert schedule.final_learning_rate == pytest.approx(1e-6)
    assert facts.trained_part is TrainedPart.ALL and facts.parameters == facts.trained_parameters > 1000
    assert facts.augmentation.drop_path == pytest.approx(0.1) and facts.objective.smoothing == 0.1


@pytest.mark.parametrize(
    "settings, epochs, updates",
    [
        ({"max_steps": 4}, 4 / 3, 4),
        ({"max_steps": 3, "gradient_accumulation_steps": 3}, 3, 3),
        ({"max_steps": 2, "gradient_accumulation_steps": 2}, 1, 2),
        ({"num_train_epochs": 1.5}, 1.5, 5),
    ],
)
def test_the_length_is_that_of_the_updates_that_were_done(tmp_path, settings, epochs, updates):
    facts = train(tmp_path, **settings)
    assert facts.updates == facts.planned_updates == updates
    assert facts.epochs == pytest.approx(epochs, abs=0.2) and facts.planned_epochs == (
        None if "max_steps" in settings else settings["num_train_epochs"]
    )


def test_early_stopping_ends_before_the_planned_updates(tmp_path):
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    settings |= {"learning_rate": 0.0, "early_stopping_patience": 1, "metric_for_best_model": "macro_f1"}
    facts = train(tmp_path, num_train_epochs=9, **settings)
    assert facts.stopped_early and (facts.epochs, facts.updates, facts.planned_updates) == (2, 6, 27)
    assert facts.early_stopping_patience == 1 and facts.planned_epochs == 9


@pytest.mark.parametrize(
    "settings, name, momentum, schedule, final",
    [
        ({"optim": "sgd", "lr_scheduler_type": "linear"}, "SGD", 0.0, "linear", 1e-6),
        (
            {"optim": "adafactor", "lr_scheduler_type": "constant", "warmup_epochs": 0},
            "Adafactor",
            None,
            "constant",
            1e-3,
        ),
        ({"optim": "adamw_torch_fused", "lr_scheduler_type": "cosine"}, "AdamW", None, "cosine", 1e-6),
    ],
)
def test_optimizer_and_schedule_are_those_that_were_used(tmp_path, settings, name, momentum, schedule, final):
    facts = train(tmp_path, **ONE_UPDATE | settings)
    assert (facts.optimizer.name, facts.optimizer.momentum, facts.schedule.name) == (name, momentum, schedule)
    assert facts.schedule.final_learning_rate == pytest.approx(final) and facts.schedule.warmup_updates == 0


@pytest.mark.parametrize(
    "settings, part",
    [({"freeze_backbone": True}, TrainedPart.HEAD), ({"layer_decay": 0.0}, TrainedPart.PART), ({}, TrainedPart.ALL)],
)
def test_frozen_parameters_are_not_counted_as_trained(tmp_path, settings, part):
    facts = train(tmp_path, **ONE_UPDATE | settings)
    assert facts.trained_part is part
    head, norm = 2 * 12 + 2, 2 * 12  # the norm after the last block has the rate of the head
    expected = {TrainedPart.HEAD: head, TrainedPart.PART: head + norm, TrainedPart.ALL: facts.parameters}
    assert facts.trained_parameters == expected[part]


def test_blocks_that_the_caller_froze_are_not_counted(tmp_path):
    trainer = build_trainer(tmp_path, **ONE_UPDATE)
    for parameter in trainer.model.vit.layers[0].parameters():
        parameter.requires_grad_(False)
    facts = describe_finetuning(trainer, trainer.train(), DataArguments())
    assert facts.trained_part is TrainedPart.PART and 0 < facts.trained_parameters < facts.parameters


def test_precision_loss_and_augmentation_are_those_in_effect(tmp_path):
    options = DataArguments(transforms="imagenet", auto_augment="none", random_erasing=0.0)
    settings = {"bf16": True, "mixup": 0.8, "mixup_prob": 0.5, "class_weights": ["1", "3"], "smoothing": 0.0}
    facts = train(tmp_path, options=options, **ONE_UPDATE | settings)
    assert facts.precision == "bf16" and facts.objective.class_weights == {"LABEL_0": 1, "LABEL_1": 3}
    assert not facts.objective.balanced and facts.objective.smoothing == 0
    assert (facts.augmentation.auto_augment, facts.augmentation.random_erasing) == (None, 0)
    assert (facts.augmentation.mixup, facts.augmentation.cutmix, facts.augmentation.mixup_prob) == (0.8, 0, 0.5)
    facts = train(tmp_path, learning_rate=None, **ONE_UPDATE)
    assert facts.augmentation.random_erasing == facts.augmentation.mixup_prob == 0, "the endoscopy transforms have none"
    assert facts.optimizer.base_learning_rate == 1e-3


def test_a_training_that_was_resumed_twice_has_its_total_time(tmp_path):
    settings = {"num_train_epochs": 3, "save_strategy": "epoch", "save_total_limit": 9}
    full = train(tmp_path, **settings)
    first = train(tmp_path, str(tmp_path / "checkpoint-6"), **settings)
    second = train(tmp_path, str(tmp_path / "checkpoint-9"), **settings)
    assert (full.resumes, first.resumes, second.resumes) == (0, 1, 2)
    assert full.updates == first.updates == second.updates == 9
    assert second.seconds >= first.seconds >= full.seconds / 3
    assert second.metrics["train_runtime"] == second.seconds

"""`MaeFinetuner`: mixup, incomplete batches, class imbalance, data sets of images."""

import pytest
import torch
from support.messages import raises
from support.models import TensorItems

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, load_image_folder
from hf_mae.data import TrainDataset, image_processor, training_transform
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training.messages import TrainingMessage


def test_mixup_is_reproducible_and_gives_soft_labels(tiny_pth, tmp_path):
    data = TensorItems(pixel_values=torch.randn(8, 3, 32, 32), labels=torch.arange(8) % 3)

    def batches():
        args = FinetuningArguments(
            output_dir=tmp_path, per_device_train_batch_size=8, mixup=0.8, cutmix=1.0, use_cpu=True, learning_rate=0.1
        )
        trainer = MaeFinetuner(model=build_classifier(tiny_pth, num_labels=3), args=args, train_dataset=data)
        return trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)[0][0]

    first, second = batches(), batches()
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert first["labels"].shape == (8, 3)
    torch.testing.assert_close(first["labels"].sum(-1), torch.ones(8))
    assert not torch.equal(first["pixel_values"].sort(0).values, data.columns["pixel_values"].sort(0).values)


def test_an_incomplete_batch_is_dropped_in_training_only(tiny_pth, tmp_path):
    """The stock Trainer applies `dataloader_drop_last` to evaluation too."""
    data = TensorItems(pixel_values=torch.randn(11, 3, 32, 32), labels=torch.arange(11) % 3)
    for more in ({"mixup": 0.8}, {"dataloader_drop_last": True}):
        args = FinetuningArguments(
            output_dir=tmp_path, per_device_train_batch_size=4, per_device_eval_batch_size=4, use_cpu=True, **more
        )
        trainer = MaeFinetuner(model=build_classifier(tiny_pth, num_labels=3), args=args, train_dataset=data)
        assert len(trainer.get_train_dataloader()) == 2
        assert len(trainer.predict(data).predictions) == 11
        trainer.train_dataset = torch.utils.data.Subset(data, range(3))
        with raises(TrainingMessage.FEWER_IMAGES_THAN_A_BATCH, images=3, batch_size=4):
            trainer.get_train_dataloader()


@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
def test_a_dataset_of_images_is_preprocessed_by_the_processor(tiny_pth, toy, tmp_path, family):
    splits = load_image_folder(toy / "labelled")
    processor = image_processor(family, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    args = FinetuningArguments(output_dir=tmp_path, max_steps=1, per_device_train_batch_size=8, use_cpu=True)
    model = build_classifier(tiny_pth, num_labels=3)
    trainer = MaeFinetuner(
        model=model,
        args=args,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=processor,
    )
    ours = TrainDataset(splits["train"], training_transform(family, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    assert torch.equal(trainer.train_dataset[3]["pixel_values"], ours[3]["pixel_values"])
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    logits = trainer.predict(splits["test"]).predictions
    first = processor(splits["test"][0]["image"], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.eval()(pixel_values=first).logits[0]
    torch.testing.assert_close(torch.tensor(logits[0]), expected, atol=1e-5, rtol=0)
    with raises(TrainingMessage.PROCESSING_CLASS_MISSING):
        MaeFinetuner(model=model, args=args, train_dataset=splits["train"])


def test_a_negative_warmup_is_rejected(tmp_path):
    with raises(SettingsMessage.OUT_OF_BOUNDS, name="warmup_epochs"):
        FinetuningArguments(output_dir=tmp_path, warmup_epochs=-1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"class_weights": "balanced", "logit_adjustment": 1.0}, SettingsMessage.SEVERAL_REBALANCINGS),
        ({"sampling": "class_balanced", "class_weights": "balanced"}, SettingsMessage.SEVERAL_REBALANCINGS),
        ({"sampling": "sometimes"}, SettingsMessage.INVALID_CHOICE),
        ({"logit_adjustment": -1.0}, SettingsMessage.OUT_OF_BOUNDS),
        ({"logit_adjustment": 1.0, "loss": "emd"}, SettingsMessage.OPTION_NOT_SUPPORTED_BY_LOSS),
        ({"logit_adjustment": 1.0, "teacher": "there"}, SettingsMessage.TEACHER_WITH_LOSS),
        ({"loss": "focal", "focal_gamma": -2.0}, SettingsMessage.OUT_OF_BOUNDS),
    ],
)
def test_invalid_rebalancing_is_rejected(tmp_path, settings, message):
    with raises(message):
        FinetuningArguments(output_dir=tmp_path, **settings)


def imbalanced_items(count=24):
    return TensorItems(pixel_values=torch.randn(count, 3, 32, 32), labels=(torch.arange(count) % 6 == 5).long())


def test_logit_adjusted_and_focal_loss_apply_to_training_only(tiny_pth, tmp_path):
    data = imbalanced_items()
    batch = {name: column[:8] for name, column in data.columns.items()}
    for settings in ({"logit_adjustment": 1.5}, {"loss": "focal"}, {"loss": "focal", "logit_adjustment": 1.5}):
        args = FinetuningArguments(output_dir=tmp_path, use_cpu=True, drop_path=0.0, **settings)
        trainer = MaeFinetuner(model=build_classifier(tiny_pth, num_labels=2), args=args, train_dataset=data)
        model = trainer.model.train()
        logits = model(pixel_values=batch["pixel_values"]).logits
        if "logit_adjustment" in settings:
            logits = logits + 1.5 * torch.tensor([20 / 24, 4 / 24]).log()
        targets = torch.nn.functional.one_hot(batch["labels"], 2) * 0.9 + 0.05
        losses = -targets * logits.log_softmax(-1)
        expected = losses if "loss" not in settings else losses * (1 - logits.softmax(-1)) ** 2
        torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), expected.sum() / 8)
        plain = torch.nn.functional.cross_entropy(
            model.eval()(pixel_values=batch["pixel_values"]).logits, batch["labels"]
        )
        torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), plain)


def test_a_dataset_with_other_sampling_is_rejected(tiny_pth, toy, tmp_path):
    model = build_classifier(tiny_pth, num_labels=3)
    args = FinetuningArguments(output_dir=tmp_path, use_cpu=True, sampling="square_root")
    with raises(TrainingMessage.SAMPLING_OF_OTHER_DATASET, sampling="square_root"):
        MaeFinetuner(model=model, args=args, train_dataset=imbalanced_items())
    train = load_image_folder(toy / "labelled")["train"]
    processor = image_processor("endoscopy", 32)
    trainer = MaeFinetuner(model=model, args=args, train_dataset=train, processing_class=processor)
    assert trainer.train_dataset.sampling.exponent == 0.5
    plain = FinetuningArguments(output_dir=tmp_path, use_cpu=True)
    with raises(TrainingMessage.SAMPLING_OF_OTHER_DATASET):
        MaeFinetuner(model=model, args=plain, train_dataset=trainer.train_dataset)

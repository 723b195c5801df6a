"""`MaeFinetuner` by itself: mixing, smaller batches, data sets of images."""

import pytest
import torch
from support.models import TensorItems

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, load_image_folder
from hf_mae.data import TrainDataset, image_processor, training_transform
from hf_mae.errors import UsageError


def test_mixup_draws_are_reproducible_and_soft(tiny_pth, tmp_path):
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


def test_a_last_smaller_batch_is_dropped_in_training_only(tiny_pth, tmp_path):
    """The stock Trainer's `dataloader_drop_last` takes the last images of an evaluation away too."""
    data = TensorItems(pixel_values=torch.randn(11, 3, 32, 32), labels=torch.arange(11) % 3)
    for more in ({"mixup": 0.8}, {"dataloader_drop_last": True}):
        args = FinetuningArguments(
            output_dir=tmp_path, per_device_train_batch_size=4, per_device_eval_batch_size=4, use_cpu=True, **more
        )
        trainer = MaeFinetuner(model=build_classifier(tiny_pth, num_labels=3), args=args, train_dataset=data)
        assert len(trainer.get_train_dataloader()) == 2
        assert len(trainer.predict(data).predictions) == 11
        trainer.train_dataset = torch.utils.data.Subset(data, range(3))
        with pytest.raises(UsageError, match="3 training images, fewer than a batch"):
            trainer.get_train_dataloader()


@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
def test_a_data_set_of_images_is_prepared_by_the_processor(tiny_pth, toy, tmp_path, family):
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
    with pytest.raises(UsageError, match="needs processing_class"):
        MaeFinetuner(model=model, args=args, train_dataset=splits["train"])


def test_arguments_reject_nonsense(tmp_path):
    with pytest.raises(UsageError, match="warmup_epochs"):
        FinetuningArguments(output_dir=tmp_path, warmup_epochs=-1)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"class_weights": "balanced", "logit_adjustment": 1.0}, "rare classes count twice: choose one"),
        (
            {"sampling": "class_balanced", "class_weights": "balanced"},
            "--class_weights balanced and --sampling class_b",
        ),
        ({"sampling": "sometimes"}, "sampling is one of instance_balanced, square_root"),
        ({"logit_adjustment": -1.0}, "logit_adjustment must be at least 0"),
        ({"logit_adjustment": 1.0, "loss": "emd"}, "goes with --loss cross_entropy or focal, not emd"),
        ({"logit_adjustment": 1.0, "teacher": "there"}, "A teacher's scores go with --loss cross_entropy, without"),
        ({"loss": "focal", "focal_gamma": -2.0}, "focal_gamma must be at least 0"),
    ],
)
def test_classes_are_balanced_once(tmp_path, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        FinetuningArguments(output_dir=tmp_path, **settings)


def uneven(count=24):
    return TensorItems(pixel_values=torch.randn(count, 3, 32, 32), labels=(torch.arange(count) % 6 == 5).long())


def test_the_adjusted_and_the_focal_loss_are_trained_on(tiny_pth, tmp_path):
    data = uneven()
    batch = {name: column[:8] for name, column in data.columns.items()}
    for settings in ({"logit_adjustment": 1.5}, {"loss": "focal"}, {"loss": "focal", "logit_adjustment": 1.5}):
        args = FinetuningArguments(output_dir=tmp_path, use_cpu=True, drop_path=0.0, **settings)
        trainer = MaeFinetuner(model=build_classifier(tiny_pth, num_labels=2), args=args, train_dataset=data)
        model = trainer.model.train()
        logits = model(pixel_values=batch["pixel_values"]).logits
        if "logit_adjustment" in settings:
            logits = logits + 1.5 * torch.tensor([20 / 24, 4 / 24]).log()
        targets = torch.nn.functional.one_hot(batch["labels"], 2) * 0.9 + 0.05
        each = -targets * logits.log_softmax(-1)
        expected = each if "loss" not in settings else each * (1 - logits.softmax(-1)) ** 2
        torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), expected.sum() / 8)
        plain = torch.nn.functional.cross_entropy(
            model.eval()(pixel_values=batch["pixel_values"]).logits, batch["labels"]
        )
        torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), plain)  # what is judged is not adjusted


def test_a_data_set_that_cannot_be_sampled_so_is_refused(tiny_pth, toy, tmp_path):
    model = build_classifier(tiny_pth, num_labels=3)
    args = FinetuningArguments(output_dir=tmp_path, use_cpu=True, sampling="square_root")
    with pytest.raises(UsageError, match="--sampling square_root is of training images"):
        MaeFinetuner(model=model, args=args, train_dataset=uneven())
    train = load_image_folder(toy / "labelled")["train"]
    processor = image_processor("endoscopy", 32)
    trainer = MaeFinetuner(model=model, args=args, train_dataset=train, processing_class=processor)
    assert trainer.train_dataset.sampling.exponent == 0.5
    plain = FinetuningArguments(output_dir=tmp_path, use_cpu=True)
    with pytest.raises(UsageError, match="this data set draws others"):
        MaeFinetuner(model=model, args=plain, train_dataset=trainer.train_dataset)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"eval_strategy": "no"}, "needs evaluations to choose by"),
        (
            {"eval_strategy": "epoch", "save_strategy": "no"},
            "with --save_strategy no .no checkpoint is kept to load.: pass",
        ),
        (
            {"eval_strategy": "epoch", "save_strategy": "steps"},
            "saved is by steps, judged by epoch.: pass --save_strategy",
        ),
    ],
)
def test_a_best_epoch_that_nothing_judges_or_keeps_is_one_sentence(tmp_path, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        FinetuningArguments(output_dir=tmp_path, load_best_model_at_end=True, **settings)

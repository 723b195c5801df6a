"""The Trainer subclasses respect their caller: arguments, model, optimizers, and stock data sets."""

import copy
import dataclasses
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from support.messages import raises
from support.models import TINY, TensorItems, tiny_pretrainer
from transformers import ViTMAEForPreTraining

from hf_mae import FinetuningArguments, MaeFinetuner, MaePretrainer, PretrainingArguments, build_classifier
from hf_mae.compat.transformers import get_attn_implementation
from hf_mae.data import image_processor
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.pretrainer import FIXED_POSITION_EMBEDDINGS

QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "warmup_epochs": 0}


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    return TensorItems(pixel_values=torch.randn(8, 3, 32, 32, generator=generator), labels=torch.arange(8) % 3)


def arguments(out, **more):
    settings = QUIET | {"num_train_epochs": 1, "per_device_train_batch_size": 4}
    return FinetuningArguments(output_dir=str(out), **settings | more)


def classifier(tiny_pth, pooling="mean"):
    return build_classifier(tiny_pth, pooling=pooling, num_labels=3, **TINY)


def get_state(model) -> dict:
    """Everything except the weights: configuration, attention, trainable parameters, modules, attributes."""
    return {
        "config": model.config.to_dict() | {"use_cache": None},  # the stock Trainer sets it
        "attention": get_attn_implementation(model),
        "trained": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "modules": {name: type(module) for name, module in model.named_modules()},
        "attributes": sorted(key for key in vars(model) if not key.startswith("_")),
        "split": getattr(model, "_no_split_modules", None),
    }


@pytest.mark.parametrize(
    "more", [{}, {"freeze_backbone": True}, {"patch_dropout": 0.5}, {"mixup": 0.8, "layer_decay": 0.5}]
)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_arguments_and_model_are_not_changed(tiny_pth, data, tmp_path, more, pooling):
    model, args = classifier(tiny_pth, pooling), arguments(tmp_path, **more)
    before, args_before = copy.deepcopy(get_state(model)), args.to_dict()
    trainer = MaeFinetuner(model=model, args=args, train_dataset=data, eval_dataset=data)
    assert get_state(model) == before and args.to_dict() == args_before and args.learning_rate is None
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    assert get_state(model) == before and args.to_dict() == args_before
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, weights[name])}
    if more.get("freeze_backbone"):
        assert moved == {"classifier.weight", "classifier.bias"}
    else:
        assert len(moved) > 30
    trainer.evaluate()
    assert get_state(model) == before


def test_a_failed_training_does_not_change_the_model(tiny_pth, data, tmp_path):
    class Failing(MaeFinetuner):
        def training_step(self, *args, **kwargs):
            raise RuntimeError("here")

    model = classifier(tiny_pth)
    before = copy.deepcopy(get_state(model))
    trainer = Failing(model=model, args=arguments(tmp_path, patch_dropout=0.5), train_dataset=data)
    with pytest.raises(RuntimeError, match="here"):
        trainer.train()
    assert get_state(model) == before


def test_a_model_saved_during_training_has_a_stock_configuration(tiny_pth, data, tmp_path):
    class Saving(MaeFinetuner):
        def training_step(self, *args, **kwargs):
            assert self.model.config._attn_implementation == "hf_mae_plain"
            self.save_model(str(tmp_path / "meanwhile"))
            return super().training_step(*args, **kwargs)

    Saving(model=classifier(tiny_pth), args=arguments(tmp_path), train_dataset=data).train()
    assert "hf_mae" not in (tmp_path / "meanwhile" / "config.json").read_text()


def test_arguments_can_be_reused_by_another_trainer(tiny_pth, data, tmp_path):
    args = arguments(tmp_path, base_learning_rate=1e-3, layer_decay=1.0)
    rates = []
    for trainer_args in (args, dataclasses.replace(args, base_learning_rate=8e-3), args):
        trainer = MaeFinetuner(model=classifier(tiny_pth), args=trainer_args, train_dataset=data)
        rates.append(max(group["lr"] for group in trainer.create_optimizer().param_groups))
    assert rates == pytest.approx([1e-3 * 4 / 256, 8e-3 * 4 / 256, 1e-3 * 4 / 256])


def test_the_callers_optimizer_is_used(tiny_pth, data, tmp_path):
    model = classifier(tiny_pth)
    optimizer = torch.optim.SGD([model.classifier.weight], lr=0.5)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = MaeFinetuner(model=model, args=arguments(tmp_path), train_dataset=data, optimizers=(optimizer, schedule))
    trainer.train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight"} and trainer.lr_scheduler is schedule


def test_the_callers_optimizer_class_is_used_with_layer_decay(tiny_pth, data, tmp_path):
    requested = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5})
    args = arguments(tmp_path, layer_decay=0.5)
    trainer = MaeFinetuner(
        model=classifier(tiny_pth), args=args, train_dataset=data, optimizer_cls_and_kwargs=requested
    )
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0.5
    assert sorted({group["initial_lr"] for group in optimizer.param_groups}) == [0.1 * 0.5**i for i in (4, 3, 2, 1, 0)]
    assert requested == (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5})


def test_unsuitable_optimizers_are_rejected(tiny_pth, data, tmp_path):
    with raises(TrainingMessage.OPTIMIZER_UNAVAILABLE) as caught:
        args = arguments(tmp_path, optim="adamw_bnb_8bit")
        MaeFinetuner(model=classifier(tiny_pth), args=args, train_dataset=data).create_optimizer()
    assert "bitsandbytes" in caught.value.attributes["error"]
    with raises(TrainingMessage.OPTIMIZER_DEFINES_GROUPS, name="SGD", arguments=["params"]):
        requested = (torch.optim.SGD, {"params": [], "lr": 0.1})
        MaeFinetuner(
            model=classifier(tiny_pth),
            args=arguments(tmp_path),
            train_dataset=data,
            optimizer_cls_and_kwargs=requested,
        )


def pretraining(out, **more):
    settings = QUIET | {"max_steps": 2, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    return PretrainingArguments(output_dir=str(out), **settings | more)


def test_position_embeddings_stay_frozen_even_if_trainable(data, tmp_path):
    tiny_pretrainer().save_pretrained(tmp_path / "source")
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "source")
    for name in FIXED_POSITION_EMBEDDINGS:  # as from_pretrained of transformers 5.24 does
        model.get_parameter(name).requires_grad_(True)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, copy.deepcopy(get_state(model))
    trainer = MaePretrainer(model=model, args=pretraining(tmp_path), train_dataset=data)
    assert get_state(model) == state
    trainer.train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not moved & set(FIXED_POSITION_EMBEDDINGS) and "decoder.decoder_pred.weight" in moved
    assert get_state(model)["trained"] == state["trained"]


def test_mask_ratio_and_target_are_in_the_saved_configuration(data, tmp_path):
    model = tiny_pretrainer()
    trainer = MaePretrainer(
        model=model, args=pretraining(tmp_path, mask_ratio=0.25, norm_pix_loss=False), train_dataset=data
    )
    assert (model.config.mask_ratio, model.config.norm_pix_loss) == (0.75, True)
    trainer.train()
    trainer.save_model()
    saved = ViTMAEForPreTraining.from_pretrained(tmp_path).config
    assert (saved.mask_ratio, saved.norm_pix_loss) == (0.25, False)


def test_a_stock_imagefolder_dataset_can_be_trained_on(tiny_pth, toy, tmp_path, caplog):
    """`load_dataset("imagefolder")` has the columns image and label, but neither labels nor file_name."""
    splits = load_dataset("imagefolder", data_dir=str(toy / "labelled"))
    model = classifier(tiny_pth)
    columns = dict(splits["train"].features)
    trainer = MaeFinetuner(
        model=model,
        args=arguments(tmp_path, per_device_train_batch_size=20, class_weights="balanced"),
        train_dataset=splits["train"],
        eval_dataset={"validation": splits["validation"], "test": splits["test"]},
        processing_class=image_processor("endoscopy", 32),
    )
    with caplog.at_level(logging.INFO):
        trainer.train()
    scores = trainer.evaluate()
    assert trainer.state.global_step == 3 and "eval_test_macro_f1" in scores
    assert dict(splits["train"].features) == columns
    predicted = trainer.predict(splits["test"])
    assert predicted.predictions.shape == (len(splits["test"]), 3)


def test_a_dataset_with_its_own_transform_is_not_changed(tiny_pth, toy, tmp_path):
    splits = load_dataset("imagefolder", data_dir=str(toy / "labelled"))
    processor = image_processor("endoscopy", 32)

    def preprocess(batch):
        tensors = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")
        return {"pixel_values": list(tensors["pixel_values"]), "labels": batch["label"]}

    trainer = MaeFinetuner(
        model=classifier(tiny_pth),
        args=arguments(tmp_path, per_device_train_batch_size=20),
        train_dataset=splits["train"].with_transform(preprocess),
        eval_dataset=splits["validation"].with_transform(preprocess),
    )
    trainer.train()
    assert trainer.state.global_step == 3 and "eval_accuracy" in trainer.evaluate()
    assert isinstance(trainer.train_dataset, Dataset)


def test_an_iterable_dataset_is_predicted(tiny_pth, toy, tmp_path):
    processor = image_processor("endoscopy", 32)

    def preprocess(batch):
        tensors = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")
        return {"pixel_values": tensors["pixel_values"], "labels": batch["label"]}

    dataset = load_dataset("imagefolder", data_dir=str(toy / "labelled"), split="test")
    stream = load_dataset("imagefolder", data_dir=str(toy / "labelled"), split="test", streaming=True)
    trainer = MaeFinetuner(model=classifier(tiny_pth), args=arguments(tmp_path), processing_class=processor)
    torch.nn.init.normal_(trainer.model.classifier.weight, generator=torch.Generator().manual_seed(0))
    expected = trainer.predict(dataset)
    predicted = trainer.predict(stream.map(preprocess, batched=True, batch_size=5, remove_columns=["image", "label"]))
    np.testing.assert_allclose(predicted.predictions, expected.predictions, atol=1e-5)
    assert predicted.label_ids.tolist() == expected.label_ids.tolist()
    dataset.set_transform(preprocess)
    np.testing.assert_allclose(trainer.predict(dataset).predictions, expected.predictions, atol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_epoch_line_shows_the_mean_training_loss_of_that_epoch(tiny_pth, data, tmp_path, caplog, accumulation):
    """The same value as the Trainer logs with `logging_strategy="epoch"`, also if nothing is logged."""
    lines = {}
    for strategy in ("epoch", "no"):
        caplog.clear()
        args = arguments(
            tmp_path / strategy,
            num_train_epochs=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=accumulation,
            logging_strategy=strategy,
            class_weights=[1.0, 2.0, 3.0],
        )
        trainer = MaeFinetuner(model=classifier(tiny_pth), args=args, train_dataset=data)
        with caplog.at_level(logging.INFO, "hf_mae"):
            trainer.train()
        lines[strategy] = [line.split("  ")[:2] for line in caplog.messages if line.startswith("epoch ")]
        if strategy == "epoch":
            logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    shown = [float(parts[1].removeprefix("train loss ")) for parts in lines["epoch"]]
    assert shown == pytest.approx(logged, abs=6e-5) and lines["no"] == lines["epoch"]

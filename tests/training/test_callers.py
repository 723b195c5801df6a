"""The Trainer subclasses respect their caller: arguments, model, optimizers, and ordinary data sets."""

import copy
import dataclasses
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from support.models import TINY, TensorItems, tiny_pretrainer
from transformers import ViTMAEForPreTraining

from hf_mae import FinetuningArguments, MaeFinetuner, MaePretrainer, PretrainingArguments, build_classifier
from hf_mae.compat.transformers import get_attn_implementation
from hf_mae.data import image_processor
from hf_mae.errors import UsageError
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


def state_of(model) -> dict:
    """Everything of a model but its weights: configuration, modules, what is trained, attention."""
    return {
        "config": model.config.to_dict() | {"use_cache": None},  # which the stock Trainer sets
        "attention": get_attn_implementation(model),
        "trained": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "modules": {name: type(module) for name, module in model.named_modules()},
        "own": sorted(key for key in vars(model) if not key.startswith("_")),
        "split": getattr(model, "_no_split_modules", None),
    }


@pytest.mark.parametrize(
    "more", [{}, {"freeze_backbone": True}, {"patch_dropout": 0.5}, {"mixup": 0.8, "layer_decay": 0.5}]
)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_arguments_and_model_stay_as_they_were(tiny_pth, data, tmp_path, more, pooling):
    model, args = classifier(tiny_pth, pooling), arguments(tmp_path, **more)
    before, given = copy.deepcopy(state_of(model)), args.to_dict()
    trainer = MaeFinetuner(model=model, args=args, train_dataset=data, eval_dataset=data)
    assert state_of(model) == before and args.to_dict() == given and args.learning_rate is None
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    assert state_of(model) == before and args.to_dict() == given
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, weights[name])}
    if more.get("freeze_backbone"):
        assert moved == {"classifier.weight", "classifier.bias"}
    else:
        assert len(moved) > 30
    trainer.evaluate()
    assert state_of(model) == before


def test_an_interrupted_training_leaves_the_model_as_it_was(tiny_pth, data, tmp_path):
    class Failing(MaeFinetuner):
        def training_step(self, *args, **kwargs):
            raise RuntimeError("here")

    model = classifier(tiny_pth)
    before = copy.deepcopy(state_of(model))
    trainer = Failing(model=model, args=arguments(tmp_path, patch_dropout=0.5), train_dataset=data)
    with pytest.raises(RuntimeError, match="here"):
        trainer.train()
    assert state_of(model) == before


def test_what_is_saved_in_training_does_not_say_how_a_cpu_trains(tiny_pth, data, tmp_path):
    class Saving(MaeFinetuner):
        def training_step(self, *args, **kwargs):
            assert self.model.config._attn_implementation == "hf_mae_plain"
            self.save_model(str(tmp_path / "meanwhile"))
            return super().training_step(*args, **kwargs)

    Saving(model=classifier(tiny_pth), args=arguments(tmp_path), train_dataset=data).train()
    assert "hf_mae" not in (tmp_path / "meanwhile" / "config.json").read_text()


def test_arguments_serve_another_trainer(tiny_pth, data, tmp_path):
    args = arguments(tmp_path, base_learning_rate=1e-3, layer_decay=1.0)
    rates = []
    for given in (args, dataclasses.replace(args, base_learning_rate=8e-3), args):
        trainer = MaeFinetuner(model=classifier(tiny_pth), args=given, train_dataset=data)
        rates.append(max(group["lr"] for group in trainer.create_optimizer().param_groups))
    assert rates == pytest.approx([1e-3 * 4 / 256, 8e-3 * 4 / 256, 1e-3 * 4 / 256])


def test_the_callers_optimizer_trains(tiny_pth, data, tmp_path):
    model = classifier(tiny_pth)
    optimizer = torch.optim.SGD([model.classifier.weight], lr=0.5)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = MaeFinetuner(model=model, args=arguments(tmp_path), train_dataset=data, optimizers=(optimizer, schedule))
    trainer.train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"classifier.weight"} and trainer.lr_scheduler is schedule


def test_the_callers_class_of_optimizer_trains_with_layer_decay(tiny_pth, data, tmp_path):
    chosen = (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5})
    args = arguments(tmp_path, layer_decay=0.5)
    trainer = MaeFinetuner(model=classifier(tiny_pth), args=args, train_dataset=data, optimizer_cls_and_kwargs=chosen)
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0.5
    assert sorted({group["initial_lr"] for group in optimizer.param_groups}) == [0.1 * 0.5**i for i in (4, 3, 2, 1, 0)]
    assert chosen == (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5})


def test_optimizers_that_cannot_serve_are_one_sentence(tiny_pth, data, tmp_path):
    with pytest.raises(UsageError, match="--optim adamw_(bnb_)?8bit cannot be used: .*bitsandbytes"):
        args = arguments(tmp_path, optim="adamw_bnb_8bit")
        MaeFinetuner(model=classifier(tiny_pth), args=args, train_dataset=data).create_optimizer()
    with pytest.raises(UsageError, match="makes its own parameter groups"):
        chosen = (torch.optim.SGD, {"params": [], "lr": 0.1})
        MaeFinetuner(
            model=classifier(tiny_pth), args=arguments(tmp_path), train_dataset=data, optimizer_cls_and_kwargs=chosen
        )


def pretraining(out, **more):
    settings = QUIET | {"max_steps": 2, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    return PretrainingArguments(output_dir=str(out), **settings | more)


def test_fixed_positions_stay_fixed_whatever_made_them_trainable(data, tmp_path):
    tiny_pretrainer().save_pretrained(tmp_path / "source")
    model = ViTMAEForPreTraining.from_pretrained(tmp_path / "source")
    for name in FIXED_POSITION_EMBEDDINGS:  # as from_pretrained of transformers 5.24 leaves them
        model.get_parameter(name).requires_grad_(True)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, copy.deepcopy(state_of(model))
    trainer = MaePretrainer(model=model, args=pretraining(tmp_path), train_dataset=data)
    assert state_of(model) == state
    trainer.train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not moved & set(FIXED_POSITION_EMBEDDINGS) and "decoder.decoder_pred.weight" in moved
    assert state_of(model)["trained"] == state["trained"]


def test_what_a_pretraining_was_told_is_in_the_configuration_when_it_is_done(data, tmp_path):
    model = tiny_pretrainer()
    trainer = MaePretrainer(
        model=model, args=pretraining(tmp_path, mask_ratio=0.25, norm_pix_loss=False), train_dataset=data
    )
    assert (model.config.mask_ratio, model.config.norm_pix_loss) == (0.75, True)
    trainer.train()
    trainer.save_model()
    saved = ViTMAEForPreTraining.from_pretrained(tmp_path).config
    assert (saved.mask_ratio, saved.norm_pix_loss) == (0.25, False)


def test_an_ordinary_imagefolder_trains_as_ours_does(tiny_pth, toy, tmp_path, caplog):
    """`load_dataset("imagefolder")` has the columns image and label, and neither labels nor file_name."""
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


def test_a_data_set_with_a_transform_of_its_own_is_taken_as_it_is(tiny_pth, toy, tmp_path):
    splits = load_dataset("imagefolder", data_dir=str(toy / "labelled"))
    processor = image_processor("endoscopy", 32)

    def prepared(batch):
        tensors = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")
        return {"pixel_values": list(tensors["pixel_values"]), "labels": batch["label"]}

    trainer = MaeFinetuner(
        model=classifier(tiny_pth),
        args=arguments(tmp_path, per_device_train_batch_size=20),
        train_dataset=splits["train"].with_transform(prepared),
        eval_dataset=splits["validation"].with_transform(prepared),
    )
    trainer.train()
    assert trainer.state.global_step == 3 and "eval_accuracy" in trainer.evaluate()
    assert isinstance(trainer.train_dataset, Dataset)


def test_a_stream_is_predicted(tiny_pth, toy, tmp_path):
    """As the stock Trainer takes it: an iterable data set, prepared as it comes."""
    processor = image_processor("endoscopy", 32)

    def prepared(batch):
        tensors = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")
        return {"pixel_values": tensors["pixel_values"], "labels": batch["label"]}

    whole = load_dataset("imagefolder", data_dir=str(toy / "labelled"), split="test")
    stream = load_dataset("imagefolder", data_dir=str(toy / "labelled"), split="test", streaming=True)
    trainer = MaeFinetuner(model=classifier(tiny_pth), args=arguments(tmp_path), processing_class=processor)
    torch.nn.init.normal_(trainer.model.classifier.weight, generator=torch.Generator().manual_seed(0))
    expected = trainer.predict(whole)
    found = trainer.predict(stream.map(prepared, batched=True, batch_size=5, remove_columns=["image", "label"]))
    np.testing.assert_allclose(found.predictions, expected.predictions, atol=1e-5)
    assert found.label_ids.tolist() == expected.label_ids.tolist()
    whole.set_transform(prepared)
    np.testing.assert_allclose(trainer.predict(whole).predictions, expected.predictions, atol=1e-5)

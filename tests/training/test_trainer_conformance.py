"""`MaeFinetuner` and `MaePretrainer` are used as `transformers.Trainer` is (its own tests are the list of usages)."""

import copy

import numpy as np
import pytest
import torch
from support.messages import raises
from support.models import TINY, TensorItems, tiny_pretrainer
from torch.nn import functional as F
from transformers import TrainerCallback, TrainingArguments, default_data_collator

from hf_mae import FinetuningArguments, MaeFinetuner, MaePretrainer, PretrainingArguments, build_classifier
from hf_mae.training.messages import TrainingMessage

pytestmark = pytest.mark.run
QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "warmup_epochs": 0}
LABELS = torch.arange(8) % 3


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def items(pixels):
    return TensorItems(pixel_values=pixels, labels=LABELS)


@pytest.fixture(scope="module")
def model(tiny_pth):
    torch.manual_seed(0)
    return build_classifier(tiny_pth, num_labels=3, **TINY)


@pytest.fixture
def build(model, items, tmp_path):
    """Builds a trainer of a copy of the model; keywords are those of the trainer, `options` those of its arguments."""

    def build_trainer(trainer_class=MaeFinetuner, options=None, **kwargs):
        settings = QUIET | {"num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
        kwargs.setdefault("args", FinetuningArguments(output_dir=str(tmp_path), **settings | (options or {})))
        if "model_init" not in kwargs:
            kwargs.setdefault("model", copy.deepcopy(model))
        return trainer_class(**{"train_dataset": items, "eval_dataset": items} | kwargs)

    return build_trainer


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def test_a_loss_function_of_the_caller_replaces_the_loss(build):
    called = []

    def loss(outputs, labels, num_items_in_batch=None):
        called.append(None if num_items_in_batch is None else float(num_items_in_batch))
        return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    own = build(compute_loss_func=loss, options={"class_weights": [1, 2, 3]})
    own.train()
    assert called[:2] == [4.0, 4.0]
    plain, split = (
        build(options={"smoothing": 0}),
        build(compute_loss_func=loss, options={"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
    )
    plain.train()
    split.train()
    for trainer in (own, split):
        torch.testing.assert_close(weights(trainer), weights(plain), atol=1e-5, rtol=0)
    evaluated = build(compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs.logits.sum() * 0 + 7)
    assert evaluated.evaluate()["eval_loss"] == pytest.approx(7)


def test_a_model_is_built_by_model_init(build, model):
    for model_init in (lambda: copy.deepcopy(model), lambda trial: copy.deepcopy(model)):
        trainer = build(model_init=model_init)
        assert trainer.train().global_step == 2
        first = weights(trainer)
        trainer.train()  # starts again
        torch.testing.assert_close(weights(trainer), first, atol=0, rtol=0)
    given = build()
    given.train()
    torch.testing.assert_close(weights(given), first, atol=0, rtol=0)
    assert trainer.model.config._attn_implementation == given.model.config._attn_implementation
    with raises(TrainingMessage.SETUP_REJECTED):
        build(model_init=lambda: None)
    with raises(TrainingMessage.SETUP_REJECTED):
        build(model=None)


SEARCHED = {
    "base_learning_rate": [1e-4, 1.0],
    "per_device_train_batch_size": [2, 4],
    "class_weights": ["none", "balanced"],
    "mixup": [0.0, 0.8],
    "logit_adjustment": [0.0, 1.0],
    "freeze_backbone": [False, True],
    "seed": [0, 1],
}


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_trains_each_trial_with_its_own_settings(build, model, pixels, name):
    import optuna

    trained = {}

    class Recorder(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            trained[getattr(args, name)] = torch.cat([p.detach().flatten() for p in kwargs["model"].parameters()])

    values = SEARCHED[name]
    items = TensorItems(pixel_values=pixels, labels=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    options = {"learning_rate": None, "base_learning_rate": 0.5}
    trainer = build(model_init=lambda: copy.deepcopy(model), train_dataset=items, options=options)
    trainer.add_callback(Recorder())
    best = trainer.hyperparameter_search(
        lambda trial: {name: trial.suggest_categorical(name, values)},
        n_trials=2,
        backend="optuna",
        sampler=optuna.samplers.GridSampler({name: values}),
    )
    assert set(trained) == set(values) and best.hyperparameters[name] in values
    assert not torch.equal(trained[values[0]], trained[values[1]])
    for value in values:
        alone = build(train_dataset=items, options=options | {name: value})
        alone.train()
        torch.testing.assert_close(trained[value], weights(alone), atol=1e-6, rtol=0)


def test_a_search_over_no_setting_is_rejected(build, model):
    trainer = build(model_init=lambda: copy.deepcopy(model))
    with raises(TrainingMessage.UNKNOWN_TRIAL_SETTINGS, names=["rate"]):
        trainer.hyperparameter_search(lambda trial: {"rate": trial.suggest_float("rate", 0, 1)}, n_trials=1)


def test_an_iterable_dataset_is_trained_on(build, items):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from (items[index] for index in range(8))

    trainer = build(train_dataset=Stream(), options={"max_steps": 2, "train_sampling_strategy": "sequential"})
    assert trainer.train().global_step == 2
    mapped = build(options={"max_steps": 2, "train_sampling_strategy": "sequential"})
    mapped.train()
    torch.testing.assert_close(weights(trainer), weights(mapped), atol=0, rtol=0)
    assert trainer.evaluate(Stream())["eval_loss"] == pytest.approx(mapped.evaluate()["eval_loss"], abs=1e-6)
    with raises(TrainingMessage.SETUP_REJECTED):
        build(train_dataset=Stream())


def test_metrics_and_predictions_are_those_of_the_caller(build, items):
    seen = []

    def compute(prediction):
        seen.append(prediction.predictions.shape)
        return {"share": float((prediction.predictions == prediction.label_ids).mean())}

    trainer = build(compute_metrics=compute, preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1))
    scores = trainer.evaluate({"first": items, "second": items})
    assert seen == [(8,), (8,)] and scores["eval_first_share"] == scores["eval_second_share"]
    assert scores["eval_first_loss"] > 0
    own = build(preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1))
    assert own.evaluate()["eval_accuracy"] == pytest.approx(scores["eval_first_share"])
    unlabelled = [{"pixel_values": item["pixel_values"]} for item in (items[index] for index in range(8))]
    assert build().predict(unlabelled).predictions.shape == (8, 3)
    assert build(compute_metrics=None).evaluate()["eval_accuracy"] >= 0


@pytest.mark.parametrize("name", ["label", "labels", "label_ids"])
@pytest.mark.parametrize("collator", [None, default_data_collator])
def test_labels_have_any_name_that_the_stock_trainer_knows(build, pixels, name, collator):
    data = [{"pixel_values": image, name: label} for image, label in zip(pixels, LABELS)]
    trainer = build(train_dataset=data, eval_dataset=data, data_collator=collator)
    assert trainer.train().global_step == 2 and "eval_accuracy" in trainer.evaluate()


def test_arguments_are_those_of_the_trainer(model, items, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stock = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for trainer_class in (MaeFinetuner, MaePretrainer):
        with raises(TrainingMessage.ARGUMENTS_OF_OTHER_CLASS, found="TrainingArguments"):
            trainer_class(model=copy.deepcopy(model), args=stock, train_dataset=items)
    args = FinetuningArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    positional = MaeFinetuner(copy.deepcopy(model), args, default_data_collator, items, items)
    assert positional.train_dataset is items and positional.data_collator is default_data_collator
    assert MaeFinetuner(copy.deepcopy(model)).args.output_dir == "tmp_trainer"


def test_callbacks_see_the_events_of_a_training(build):
    events = []

    class Recorder(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            events.append("epoch")

        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = True

    trainer = build(callbacks=[Recorder], options={"num_train_epochs": 3})
    trainer.train()
    assert events == ["epoch"] and trainer.state.global_step == 1


def test_a_model_card_and_a_saved_model_are_written(build, tmp_path):
    trainer = build()
    trainer.train()
    trainer.create_model_card(model_name="polyps", tags="endoscopy")
    trainer.save_model(str(tmp_path / "saved"))
    assert "polyps" in (tmp_path / "README.md").read_text()
    loaded = type(trainer.model).from_pretrained(tmp_path / "saved")
    batch = torch.stack([trainer.eval_dataset[index]["pixel_values"] for index in range(8)])
    with torch.no_grad():
        expected = loaded.eval()(pixel_values=batch).logits
    np.testing.assert_allclose(trainer.predict(trainer.eval_dataset).predictions, expected, atol=1e-5)


def test_a_pretrainer_is_evaluated_and_built_by_model_init(items, tmp_path):
    args = PretrainingArguments(
        output_dir=str(tmp_path),
        **QUIET | {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "mask_ratio": 0.5},
    )
    trainer = MaePretrainer(model_init=lambda: tiny_pretrainer(), args=args, train_dataset=items, eval_dataset=items)
    trainer.train()
    assert trainer.model.config.mask_ratio == 0.5
    assert [entry["eval_loss"] > 0 for entry in trainer.state.log_history if "eval_loss" in entry] == [True, True]


@pytest.mark.parametrize("options", [{}, {"bf16": True}, {"bf16": True, "ema_decay": 0.5}, {"bf16_full_eval": True}])
def test_final_scores_are_those_of_the_saved_model(build, items, tmp_path, options):
    """In float32, unless `bf16_full_eval` requests otherwise."""
    trainer = build(options=options | {"learning_rate": 0.3, "eval_strategy": "epoch"})
    trainer.train()
    trainer.save_model()
    logits = trainer.predict_logits(items)
    saved = type(trainer.model).from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = saved(pixel_values=torch.stack([items[index]["pixel_values"] for index in range(8)])).logits.numpy()
    difference = np.abs(logits - expected).max()
    assert difference > 1e-4 if options.get("bf16_full_eval") else difference < 5e-6

"""Averages of the weights, over the updates and over the last epochs: what is judged, saved and gone on with. (Under
the engines: test_engines.py.)"""

import numpy as np
import pytest
import torch
from support.models import TINY, TensorItems
from transformers import TrainerCallback

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.errors import UsageError
from hf_mae.training.weight_averaging import WeightAverage


def test_the_arithmetic():
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    expected, steps = model.weight.detach().clone(), []
    for update in range(1, 12):
        with torch.no_grad():
            model.weight += torch.randn(2, 3, generator=torch.Generator().manual_seed(update))
        average.update()
        steps.append(min(0.5, (1 + update) / (10 + update)))
        expected = steps[-1] * expected + (1 - steps[-1]) * model.weight.detach()
    assert steps[0] == 2 / 11 and steps[-1] == 0.5
    trained = model.weight.detach().clone()
    with average.swap_in():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert torch.equal(model.weight, trained)
    average.copy_to_model()
    torch.testing.assert_close(model.weight.detach(), expected)


@pytest.fixture
def trainer_of(tiny_pth, tmp_path):
    def made(folder="run", **more):
        torch.manual_seed(0)
        pixels = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        items = TensorItems(pixel_values=pixels, labels=torch.arange(24) % 3)
        options = {"num_train_epochs": 3, "per_device_train_batch_size": 6, "learning_rate": 3e-3, "use_cpu": True}
        options |= {"warmup_epochs": 0.5, "report_to": "none", "disable_tqdm": True, "eval_strategy": "epoch"}
        options |= {"save_strategy": "steps", "save_steps": 3, "ema": 0.7, "metric_for_best_model": "loss"}
        args = FinetuningArguments(output_dir=str(tmp_path / folder), **(options | more))
        model = build_classifier(tiny_pth, num_labels=3, drop_path=0.1, **TINY)
        return MaeFinetuner(model=model, args=args, train_dataset=items, eval_dataset=items)

    return made


class Followed(TrainerCallback):
    """The average as a loop would keep it, and the loss of each evaluation."""

    def __init__(self):
        self.updates, self.losses = 0, []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.updates += 1
        decay = min(args.ema_decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            self.average[name] = decay * self.average[name] + (1 - decay) * parameter.detach()

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.losses.append(metrics["eval_loss"])


def test_the_average_is_judged_and_saved(trainer_of, tmp_path):
    trainer = trainer_of()
    trainer.add_callback(followed := Followed())
    trainer.train()
    assert followed.updates == 12 and trainer.average is None
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), followed.average[name], atol=1e-6, rtol=1e-5)
    # The last evaluation within the training was of these weights, not of those that were trained.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(followed.losses[-1], abs=1e-6)
    plain = trainer_of("plain", ema=None)
    plain.train()
    assert abs(plain.evaluate()["eval_loss"] - followed.losses[-1]) > 1e-3
    # The training itself is the same: the checkpoints hold its weights.
    ours, theirs = (
        type(plain.model).from_pretrained(tmp_path / run / "checkpoint-12").state_dict() for run in ("run", "plain")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_going_on_from_any_checkpoint_is_bit_equal(trainer_of, tmp_path):
    whole = trainer_of()
    whole.train()
    for checkpoint in (tmp_path / "run" / "checkpoint-6", True):
        again = trainer_of()
        again.train(resume_from_checkpoint=checkpoint if checkpoint is True else str(checkpoint))
        for one, two in zip(whole.model.parameters(), again.model.parameters()):
            assert torch.equal(one, two)
    with pytest.raises(UsageError, match="was saved with --ema_decay: a run goes on as it began"):
        trainer_of(ema=None).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    (tmp_path / "run" / "checkpoint-6" / "average.safetensors").unlink()
    with pytest.raises(UsageError, match="was saved without --ema_decay"):
        trainer_of().train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))


def test_the_best_average_is_loaded(trainer_of):
    trainer = trainer_of(load_best_model_at_end=True, save_strategy="epoch", learning_rate=0.03, num_train_epochs=4)
    trainer.add_callback(followed := Followed())
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(followed.losses), abs=1e-6)
    assert np.argmin(followed.losses) + 1 == int(trainer.state.best_model_checkpoint.split("-")[-1]) // 4


class Last(TrainerCallback):
    """The weights at the end of each epoch."""

    def __init__(self):
        self.weights = []

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.weights.append([p.detach().clone() for p in model.parameters()])


def mean_of(weights):
    return [torch.stack(same).mean(0) for same in zip(*weights)]


LAST = {"ema": None, "average_last": 3, "num_train_epochs": 5, "save_strategy": "epoch"}


def test_the_mean_of_the_last_epochs_is_judged_saved_and_gone_on_with(trainer_of, tmp_path):
    trainer = trainer_of(**LAST)
    trainer.add_callback(last := Last())
    trainer.add_callback(followed := Followed())
    followed.on_step_end = lambda *args, **kwargs: None
    trainer.train()
    for parameter, expected in zip(trainer.model.parameters(), mean_of(last.weights[2:]), strict=True):
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-7, rtol=1e-5)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(followed.losses[-1], abs=1e-6)
    plain = trainer_of("plain", **LAST | {"average_last": None})
    plain.add_callback(unmoved := Last())
    plain.train()
    assert all(torch.equal(one, other) for one, other in zip(unmoved.weights[-1], last.weights[-1], strict=True))
    for checkpoint in (4, 16):  # before the epochs that count, and among them
        again = trainer_of(**LAST)
        again.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{checkpoint}"))
        for one, two in zip(trainer.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(one, two)
    with pytest.raises(UsageError, match="was saved with --average_last: a run goes on as it began"):
        trainer_of(ema=None).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-16"))
    with pytest.raises(UsageError, match="was saved with --average_last: a run goes on as it began"):
        trainer_of(num_train_epochs=5).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-16"))


def test_the_mean_of_one_epoch_is_its_weights(trainer_of):
    (ones := trainer_of(**LAST | {"average_last": 1})).train()
    (plain := trainer_of("plain", ema=None, num_train_epochs=5)).train()
    for one, two in zip(ones.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "options, message",
    [({"ema": 1.0}, "between 0 and 1"), ({"save_only_model": True}, "leave out")]
    + [
        ({"average_last": 0, "ema": None}, "1 at least"),
        ({"average_last": 2}, "two averages"),
        ({"average_last": 2, "ema": None, "early_stopping_patience": 1}, "needs the last epoch to be known"),
        (LAST | {"load_best_model_at_end": True}, "choose one"),
    ],
)
def test_mistakes_are_one_sentence(trainer_of, options, message):
    with pytest.raises(UsageError, match=message):
        trainer_of(**options)


def test_a_run_says_that_its_weights_are_averages(tiny_pth, toy, tmp_path):
    from hf_mae import finetune

    flags = {
        "model_name_or_path": str(tiny_pth),
        "data_dir": str(toy / "labelled"),
        "output_dir": str(tmp_path / "run"),
    }
    record = finetune(**flags, num_train_epochs=1, ema=0.99, per_device_train_batch_size=20, disable_tqdm=True)
    assert record.selection.sentence.endswith("They are averages over the updates (--ema_decay 0.99).")
    assert "ema: 0.99" in (tmp_path / "run" / "recipe.yaml").read_text()
    flags |= {"output_dir": str(tmp_path / "last")}
    record = finetune(**flags, num_train_epochs=2, average_last=2, per_device_train_batch_size=20, disable_tqdm=True)
    assert record.selection.sentence.endswith("the mean of those at the end of the last 2 epochs (--average_last 2).")
    assert record.selection.selection_split is None

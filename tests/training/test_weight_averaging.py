"""Weight averaging (EMA): evaluation, saving, resuming. test_engines.py has the engines."""

import numpy as np
import pytest
import torch
from support.messages import raises
from support.models import TINY, TensorItems
from transformers import TrainerCallback

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.reporting.run_sentences import describe_selection
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.weight_averaging import WeightAverage


def test_ema_follows_its_formula():
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
def build_trainer(tiny_pth, tmp_path):
    def build(folder="run", **more):
        torch.manual_seed(0)
        pixels = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        items = TensorItems(pixel_values=pixels, labels=torch.arange(24) % 3)
        options = {"num_train_epochs": 3, "per_device_train_batch_size": 6, "learning_rate": 3e-3, "use_cpu": True}
        options |= {"warmup_epochs": 0.5, "report_to": "none", "disable_tqdm": True, "eval_strategy": "epoch"}
        options |= {"save_strategy": "steps", "save_steps": 3, "ema_decay": 0.7, "metric_for_best_model": "loss"}
        args = FinetuningArguments(output_dir=str(tmp_path / folder), **(options | more))
        model = build_classifier(tiny_pth, num_labels=3, drop_path=0.1, **TINY)
        return MaeFinetuner(model=model, args=args, train_dataset=items, eval_dataset=items)

    return build


class ReferenceAverage(TrainerCallback):
    """Average computed by a plain loop, and the loss of each evaluation."""

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


def test_average_is_evaluated_and_saved(build_trainer, tmp_path):
    trainer = build_trainer()
    trainer.add_callback(reference := ReferenceAverage())
    trainer.train()
    assert reference.updates == 12 and trainer.average is None
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), reference.average[name], atol=1e-6, rtol=1e-5)
    # The last evaluation during training used the average.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(reference.losses[-1], abs=1e-6)
    plain = build_trainer("plain", ema_decay=None)
    plain.train()
    assert abs(plain.evaluate()["eval_loss"] - reference.losses[-1]) > 1e-3
    # Averaging does not change the training: the checkpoints contain the same weights.
    ours, theirs = (
        type(plain.model).from_pretrained(tmp_path / run / "checkpoint-12").state_dict() for run in ("run", "plain")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resuming_from_any_checkpoint_is_bit_exact(build_trainer, tmp_path):
    uninterrupted = build_trainer()
    uninterrupted.train()
    for checkpoint in (tmp_path / "run" / "checkpoint-6", True):
        again = build_trainer()
        again.train(resume_from_checkpoint=checkpoint if checkpoint is True else str(checkpoint))
        for one, two in zip(uninterrupted.model.parameters(), again.model.parameters()):
            assert torch.equal(one, two)
    with raises(TrainingMessage.CHECKPOINT_WITH_AVERAGE):
        build_trainer(ema_decay=None).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
    (tmp_path / "run" / "checkpoint-6" / "average.safetensors").unlink()
    with raises(TrainingMessage.CHECKPOINT_WITHOUT_AVERAGE):
        build_trainer().train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))


def test_best_average_is_loaded(build_trainer):
    trainer = build_trainer(load_best_model_at_end=True, save_strategy="epoch", learning_rate=0.03, num_train_epochs=4)
    trainer.add_callback(reference := ReferenceAverage())
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(reference.losses), abs=1e-6)
    assert np.argmin(reference.losses) + 1 == int(trainer.state.best_model_checkpoint.split("-")[-1]) // 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ema_decay": 1.0}, SettingsMessage.OUT_OF_BOUNDS),
        ({"save_only_model": True}, SettingsMessage.AVERAGE_NOT_SAVED),
    ],
)
def test_incompatible_options_are_rejected(build_trainer, options, message):
    with raises(message):
        build_trainer(**options)


def test_record_describes_averaged_weights(tiny_pth, toy, tmp_path):
    from hf_mae import finetune

    flags = {
        "model_name_or_path": str(tiny_pth),
        "data_dir": str(toy / "labelled"),
        "output_dir": str(tmp_path / "run"),
    }
    record = finetune(**flags, num_train_epochs=1, ema_decay=0.99, per_device_train_batch_size=20, disable_tqdm=True)
    assert record.selection.ema_decay == 0.99
    assert describe_selection(record.selection).endswith("exponential moving average (--ema_decay 0.99).")
    assert "ema_decay: 0.99" in (tmp_path / "run" / "recipe.yaml").read_text()

"""Speed: compiled steps, asynchronous loss checks, gradient norms of logged updates only, fused optimizer."""

import math

import pytest
import torch
from support.messages import raises
from support.models import TensorItems

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.trainer import NonFiniteLossError, _PendingLoss


def build_trainer(tiny_pth, folder, batches=8, batch=6, **kwargs):
    torch.manual_seed(0)
    items = TensorItems(
        pixel_values=torch.randn(batches * batch, 3, 32, 32), labels=torch.randint(0, 3, (batches * batch,))
    )
    settings = dict(num_train_epochs=1, warmup_epochs=0, report_to="none", save_strategy="no", use_cpu=True)
    args = FinetuningArguments(
        output_dir=str(folder), per_device_train_batch_size=batch, disable_tqdm=True, **(settings | kwargs)
    )
    torch.manual_seed(0)
    model = build_classifier(tiny_pth, num_labels=3, drop_path=0.2)
    return MaeFinetuner(model, args, train_dataset=items)


def test_steps_are_compiled_once(tiny_pth, tmp_path):
    """Eight updates have as many graphs as two, with drop path, mixup, CutMix and patch dropout."""
    counters = torch._dynamo.utils.counters
    graphs = {}
    for batches in (2, 8):
        torch._dynamo.reset()
        counters.clear()
        kwargs = dict(mixup=0.8, cutmix=1.0, torch_compile=True, torch_compile_backend="aot_eager", patch_dropout=0.25)
        build_trainer(tiny_pth, tmp_path / str(batches), batches, **kwargs).train()
        graphs[batches] = counters["stats"]["unique_graphs"]
        assert not counters["recompile_limit"], counters["recompile_limit"]
    assert graphs[8] == graphs[2] > 0


def test_compiled_training_gives_the_same_losses(tiny_pth, tmp_path):
    losses = []
    for compiled in (False, True):
        torch._dynamo.reset()
        kwargs = {"torch_compile": True, "torch_compile_backend": "aot_eager"} if compiled else {}
        trainer = build_trainer(tiny_pth, tmp_path / str(compiled), logging_steps=1, learning_rate=1e-3, **kwargs)
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_the_gradient_norm_is_computed_for_logged_updates_only(tiny_pth, tmp_path, monkeypatch):
    trainer = build_trainer(tiny_pth, tmp_path, logging_steps=4)
    calls, clip = [], trainer.accelerator.clip_grad_norm_
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", lambda *a, **k: calls.append(1) or clip(*a, **k))
    trainer.train()
    logged = [row for row in trainer.state.log_history if "loss" in row]
    assert len(calls) == len(logged) == 2 and all(row["grad_norm"] > 0 for row in logged)


def test_steps_do_not_wait_for_losses_and_a_nan_is_still_detected(tiny_pth, tmp_path):
    class Event:
        """CUDA event of a slow copy."""

        def __init__(self):
            self.queries, self.waited = 0, False

        def query(self):
            self.queries += 1
            return self.queries > 3

        def synchronize(self):
            self.waited = True

    trainer = build_trainer(tiny_pth, tmp_path)
    events = [Event() for _ in range(3)]
    trainer._pending_losses.extend(
        _PendingLoss(torch.tensor(value), None, update, event)
        for update, (value, event) in enumerate(zip((0.5, math.nan, 0.7), events), 1)
    )
    for _ in range(3):
        trainer.check_finite(wait=False)
    assert len(trainer._pending_losses) == 3 and not any(event.waited for event in events)
    with raises(TrainingMessage.LOSS_NOT_FINITE, NonFiniteLossError, step=2):
        trainer.check_finite()
    assert events[1].waited


def test_the_optimizer_is_fused(tiny_pth, tmp_path):
    trainer = build_trainer(tiny_pth, tmp_path)
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.AdamW) and all(group["fused"] for group in optimizer.param_groups)

"""The plan of a run: numbers, text, warnings, and the profile of a step."""

import json
import re

import pytest
import torch
from datasets import ClassLabel, Dataset
from support.cli_process import run_cli
from support.messages import raises, shows
from support.models import TensorItems

import hf_mae
from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, plan
from hf_mae.cli.main import main
from hf_mae.data.exclusion_log import ExclusionLog
from hf_mae.data.images.cache_eviction import format_bytes
from hf_mae.reporting.plan_summary import format_duration, format_plan
from hf_mae.settings.data import DataArguments
from hf_mae.training import training_plan
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.training_plan import Plan


@pytest.fixture(scope="module")
def run_plan(tiny_pth, toy):
    return plan(
        model_name_or_path=str(tiny_pth),
        data_dir=str(toy / "labelled"),
        per_device_train_batch_size=10,
        effective_batch_size=20,
        num_train_epochs=4,
        warmup_epochs=1,
    )


def test_the_plan_agrees_with_the_run(run_plan, tiny_pth, toy, tmp_path):
    argv = ["finetune", str(tiny_pth), str(toy / "labelled"), "--per_device_train_batch_size", "10"]
    argv += ["--effective_batch_size", "20", "--num_train_epochs", "4", "--warmup_epochs", "1"]
    done = run_cli(*argv, "--output_dir", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    record = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert run_plan.updates == state["max_steps"] and run_plan.learning_rate == pytest.approx(
        record["train"]["learning_rate"]
    )
    assert run_plan.images_per_update == record["train"]["effective_batch_size"] == 20
    assert {split: sum(counts.values()) for split, counts in run_plan.images.items()} == record["images"]
    assert run_plan.warmup_updates == run_plan.updates / 4
    assert run_plan.selection_split == "validation" and run_plan.metric == "macro_f1"
    log = done.stderr
    assert "Plan:\nmodel       ViT of 3 blocks of 48, 32 pixels" in log and "memory" not in log, "not measured"
    pattern = (
        r"^epoch (\d)/4  train loss \d\.\d\d  val loss \d\.\d\d  macro F1 \d+\.\d  accuracy \d+\.\d  "
        r"[\d.e+]+ images/s  \d:\d\d left$"
    )
    assert re.findall(pattern, log, flags=re.MULTILINE) == ["1", "2", "3", "4"]
    assert "{'" not in log + done.stdout, "dicts are not printed"
    assert "Next:" in done.stdout and f"hf-mae report {tmp_path / 'run'}" in done.stdout


def test_memory_consists_of_weights_moments_and_activations(run_plan):
    profile = run_plan.step_profile
    assert not profile.measured and profile.images == 10 and profile.seconds > 0 and run_plan.seconds_per_epoch > 0
    assert profile.peak_bytes > 16 * run_plan.parameters
    larger, smaller = (profile_bytes(batch) for batch in (80, 40))
    state = training_plan._state_bytes(*_model_and_args(1))
    assert larger - state == pytest.approx(2 * (smaller - state), rel=0.02)


def profile_bytes(batch=40, **options):
    return training_plan.profile_step(*_model_and_args(batch, **options)).peak_bytes


def test_settings_change_the_estimated_memory():
    plain, weights = profile_bytes(), 4 * sum(p.numel() for p in _model_and_args(1)[0].parameters())
    assert profile_bytes(gradient_checkpointing=True) < 0.7 * plain
    assert profile_bytes(per_device_eval_batch_size=1000) > plain
    assert profile_bytes(bf16=True) < 0.9 * plain
    assert profile_bytes(gradient_accumulation_steps=2) == pytest.approx(plain + weights, rel=0.05)


def _model_and_args(batch, **options):
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=3, **sizes))
    args = FinetuningArguments(
        output_dir="unused",
        per_device_train_batch_size=batch,
        use_cpu=True,
        report_to="none",
        **({"per_device_eval_batch_size": 1} | options),
    )
    return model, args


def test_profiling_restores_the_model():
    model, args = _model_and_args(4)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    model.eval()
    training_plan.profile_step(model, args)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_that_does_not_fit_is_rejected_with_one_that_fits(monkeypatch):
    """With a memory of ten images."""

    def step(model, images, args):
        if images > 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    assert training_plan.find_max_batch_size(lambda images: step(None, images, None), 64) <= 10
    with raises(TrainingMessage.NO_BATCH_FITS):
        training_plan.find_max_batch_size(lambda images: step(None, 11, None), 4)
    monkeypatch.setattr(training_plan, "_run_step", step)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Small GPU")
    model, args = _model_and_args(64)
    with raises(TrainingMessage.BATCH_DOES_NOT_FIT, batch_size=64, gpu="Small GPU", effective_batch_size=64) as caught:
        training_plan._profile_on_gpu(model, args)
    assert caught.value.attributes["fitting"] <= 10


@pytest.mark.parametrize(
    "more, message",
    [
        ({"learning_rate": 0.5}, TrainingMessage.UNUSUAL_LEARNING_RATE),
        ({"per_device_train_batch_size": 512}, TrainingMessage.BATCH_LARGER_THAN_DATASET),
        ({"num_train_epochs": 4, "warmup_epochs": 3}, TrainingMessage.LONG_WARMUP),
        ({}, TrainingMessage.GROUPS_UNKNOWN),
    ],
)
def test_unusual_settings_give_warnings(more, message, tiny_pth, toy):
    run_plan = plan(model_name_or_path=str(tiny_pth), data_dir=str(toy / "labelled"), **more)
    assert any(warning.code is message for warning in run_plan.warnings), run_plan.warnings
    text = format_plan(run_plan)
    assert shows(text, message) and max(map(len, text.splitlines())) <= 80
    assert sum(line.startswith("warning") for line in text.splitlines()) == len(run_plan.warnings)
    assert run_plan._repr_html_().startswith("<table>\n<tr><td>model</td><td>")


def test_planning_writes_no_files(tiny_pth, toy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for argv in (["plan"], ["finetune", "--dry_run"]):
        assert main([*argv, str(tiny_pth), str(toy / "labelled"), "--quiet"]) == 0
        output = capsys.readouterr().out
        assert output.startswith("model ") and "time        about" in output and not list(tmp_path.iterdir())
    assert main(["plan", str(tiny_pth), str(toy / "labelled"), "--json", "--quiet"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["updates"] > 0 and values["seconds_per_epoch"] > 0 and values["step_profile"]["images"] > 0
    run_plan = hf_mae.finetune(model_name_or_path=str(tiny_pth), data_dir=str(toy / "labelled"), dry_run=True)
    assert isinstance(run_plan, Plan) and run_plan.updates > 0 and not list(tmp_path.iterdir())


def test_a_full_cache_gives_a_warning(tiny_pth, toy, monkeypatch):
    monkeypatch.setenv("HF_MAE_CACHE_LIMIT", "1KB")
    run_plan = hf_mae.plan(model_name_or_path=str(tiny_pth), data_dir=str(toy / "labelled"))
    assert shows(format_plan(run_plan), TrainingMessage.CACHE_DOES_NOT_FIT, available="1 KB")


def test_durations_and_sizes_have_a_readable_unit():
    assert format_bytes(2.5e9) == "2.5 GB" and format_bytes(3e6) == "3.0 MB" and format_bytes(400) == "0 KB"
    assert format_duration(100) == "100 seconds" and format_duration(7200) == "2.0 hours"


class Recorder(MaeFinetuner):
    """Trains without a forward pass; records the learning rate of each update and the size of each micro-batch."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self.accelerator.sync_gradients:
            self.rates.append(self.lr_scheduler.get_last_lr()[-1])
        self.trained.append((int(self.state.epoch or 0), len(inputs["labels"])))
        return torch.zeros(())


# Settings of a training of 50 images, without validation.
PLANNED_SETTINGS = [
    {},
    {"per_device_train_batch_size": 7, "num_train_epochs": 3},
    {"per_device_train_batch_size": 50},
    {"per_device_train_batch_size": 49, "num_train_epochs": 2},
    {"per_device_train_batch_size": 64},
    {"per_device_train_batch_size": 1, "num_train_epochs": 1},
    {"per_device_train_batch_size": 7, "dataloader_drop_last": True},
    {"per_device_train_batch_size": 50, "dataloader_drop_last": True},
    {"per_device_train_batch_size": 8, "mixup": 0.8, "gradient_accumulation_steps": 3},
    {"per_device_train_batch_size": 8, "cutmix": 0.8, "num_train_epochs": 1.5},
    {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 100},
    {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 5, "num_train_epochs": 0.5},
    {"per_device_train_batch_size": 4, "effective_batch_size": 16, "num_train_epochs": 2.5},
    {"per_device_train_batch_size": 5, "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 3}}},
    {"warmup_epochs": 0},
    {"warmup_epochs": 0.1},
    {"warmup_epochs": 0.5},
    {"warmup_epochs": 2.25},
    {"warmup_epochs": 4},
    {"warmup_epochs": 40},
    {"warmup_steps": 0},
    {"warmup_steps": 0.1},
    {"warmup_steps": 4},
    {"warmup_steps": 400},
    {"max_steps": 5},
    {"max_steps": 5, "warmup_epochs": 1},
    {"max_steps": 30, "warmup_steps": 0.5},
    {"lr_scheduler_type": "linear", "warmup_epochs": 1},
    {"lr_scheduler_type": "constant", "warmup_epochs": 1},
    {"lr_scheduler_type": "polynomial", "warmup_epochs": 1},
    {"lr_scheduler_type": "inverse_sqrt", "warmup_epochs": 1},
    {"freeze_backbone": True, "num_train_epochs": 1},
    {"learning_rate": 1e-2, "layer_decay": 1.0, "num_train_epochs": 1},
]


@pytest.mark.parametrize("flags", PLANNED_SETTINGS)
def test_the_plan_is_what_then_happens(flags, tiny_pth, tmp_path):
    settings = {"per_device_train_batch_size": 10, "num_train_epochs": 4, "warmup_epochs": 1, "save_strategy": "no"}
    args = FinetuningArguments(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True, **settings | flags
    )
    model = build_classifier(str(tiny_pth), num_labels=3, num_attention_heads=3)
    images = TensorItems(pixel_values=torch.zeros(50, 3, 32, 32), labels=torch.arange(50) % 3)
    trainer = Recorder(model=model, args=args, train_dataset=images)
    labelled = Dataset.from_dict({"labels": [index % 3 for index in range(50)]})
    splits = {"train": labelled.cast_column("labels", ClassLabel(names=["a", "b", "c"]))}
    run_plan = training_plan.build_plan(trainer, splits, ExclusionLog(), DataArguments())
    trainer.rates, trainer.trained = [], []
    trainer.train()
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert run_plan.updates == trainer.state.global_step == len(trainer.rates)
    assert run_plan.parameters == sum(p.numel() for p in model.parameters() if id(p) in optimized)
    assert run_plan.warmup_updates == trainer.rates.index(max(trainer.rates))
    assert max(trainer.rates) == pytest.approx(run_plan.learning_rate, rel=0.02)
    if trainer.state.epoch >= 1:
        assert sum(size for epoch, size in trainer.trained if epoch == 0) == 50 - run_plan.dropped_images
    assert run_plan.metric is None and run_plan.selection_split is None
    assert run_plan.images_per_update == args.images_per_update

"""What a run will do, told before it does it; and what is chosen for whoever has no opinion."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from support.cli_process import run_cli

import hf_mae
from hf_mae import FinetuningArguments, plan
from hf_mae.cli.main import main
from hf_mae.data.cache_eviction import format_bytes
from hf_mae.errors import CommandLineError, UsageError
from hf_mae.settings.arguments import linear_scaled_lr
from hf_mae.training import autoconfig, progress, training_plan
from hf_mae.training.training_plan import Plan


@pytest.fixture(scope="module")
def made(tiny_pth, toy):
    return plan(
        model_name_or_path=str(tiny_pth),
        data_dir=str(toy / "labelled"),
        per_device_train_batch_size=10,
        effective_batch_size=20,
        num_train_epochs=4,
        warmup_epochs=1,
    )


def test_the_numbers_are_those_of_the_run(made, tiny_pth, toy, tmp_path):
    argv = ["finetune", str(tiny_pth), str(toy / "labelled"), "--per_device_train_batch_size", "10"]
    argv += ["--effective_batch_size", "20", "--num_train_epochs", "4", "--warmup_epochs", "1"]
    done = run_cli(*argv, "--output_dir", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    record = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert made.updates == state["max_steps"] and made.learning_rate == pytest.approx(record["train"]["learning_rate"])
    assert made.images_per_update == record["train"]["effective_batch_size"] == 20
    assert {split: sum(counts.values()) for split, counts in made.images.items()} == record["images"]
    assert made.warmup_updates == made.updates / 4
    assert made.selection_split == "validation" and made.metric == "macro_f1"
    told = done.stderr
    assert "The plan:\nmodel       ViT of 3 blocks of 48, 32 pixels" in told and "memory" not in told, (
        "nothing was measured"
    )
    lines = re.findall(r"^epoch (\d) of 4: .*judged: loss \d\.\d+, macro F1 \d+\.\d.* left$", told, flags=re.MULTILINE)
    assert lines == ["1", "2", "3", "4"] and "{'" not in told + done.stdout, "no dicts"
    assert "Next:" in done.stdout and f"hf-mae report {tmp_path / 'run'}" in done.stdout


def test_a_step_costs_what_it_costs(made):
    """Memory: of the weights, their gradients and moments, and of what autograd keeps for the asked batch."""
    assert not made.step_profile.measured and made.step_profile.images == 2 and made.step_profile.seconds > 0
    assert made.step_profile.peak_bytes > training_plan.ADAM_BYTES * made.parameters
    larger = training_plan._profile_on_cpu(*_model_and_args(40))
    smaller = training_plan._profile_on_cpu(*_model_and_args(20))
    state = training_plan._state_bytes(*_model_and_args(1))
    assert larger.peak_bytes - state == pytest.approx(2 * (smaller.peak_bytes - state))
    assert made.seconds_per_epoch > 0


def _model_and_args(batch):
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=3, **sizes))
    args = FinetuningArguments(output_dir="unused", per_device_train_batch_size=batch, use_cpu=True, report_to="none")
    return model, args


def test_measuring_changes_nothing():
    model, args = _model_and_args(4)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    model.eval()
    training_plan.profile_step(model, args)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_that_does_not_fit_is_found_before_the_first_epoch(monkeypatch):
    """accelerate's finder, on a memory of ten images; the sentence says which batch fits, with the same updates."""

    def step(model, images, args):
        if images > 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    assert training_plan.find_max_batch_size(lambda images: step(None, images, None), 64) <= 10
    with pytest.raises(UsageError, match="Not even one image fits"):
        training_plan.find_max_batch_size(lambda images: step(None, 11, None), 4)
    monkeypatch.setattr(training_plan, "_run_step", step)
    monkeypatch.setattr(training_plan, "_describe_device", lambda args: "1 x Small GPU")
    model, args = _model_and_args(64)
    with pytest.raises(UsageError) as told:
        training_plan._profile_on_gpu(model, args)
    fits = int(re.search(r"one of (\d+) does", str(told.value))[1])
    assert fits <= 10 and f"--per_device_train_batch_size {fits} --effective_batch_size 64" in str(told.value)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"learning_rate": 0.5}, "a learning rate of 0.5: what is published"),
        ({"per_device_train_batch_size": 512}, "an update of 512 images is more than there are"),
        ({"num_train_epochs": 4, "warmup_epochs": 3}, "warm-up takes"),
        ({}, "no patients or videos are known"),
    ],
)
def test_what_is_unusual_is_said(more, message, tiny_pth, toy):
    found = plan(model_name_or_path=str(tiny_pth), data_dir=str(toy / "labelled"), **more)
    assert any(text.startswith(message) for text in found.warnings), found.warnings
    assert sum(line.startswith("look at") for line in found.lines()) == len(found.warnings)


def test_a_plan_leaves_nothing_behind(tiny_pth, toy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for argv in (["plan"], ["finetune", "--dry_run"]):
        assert main([*argv, str(tiny_pth), str(toy / "labelled"), "--quiet"]) == 0
        told = capsys.readouterr().out
        assert told.startswith("model ") and "time        about" in told and not list(tmp_path.iterdir())
    assert main(["plan", str(tiny_pth), str(toy / "labelled"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["updates"] > 0
    found = hf_mae.finetune(model_name_or_path=str(tiny_pth), data_dir=str(toy / "labelled"), dry_run=True)
    assert isinstance(found, Plan) and found.updates > 0 and not list(tmp_path.iterdir())


# What is chosen


def counted(*counts, validation=True):
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    return {"train": {"labels": labels}} | ({"validation": {"labels": labels}} if validation else {})


def by_name(splits, hidden_size=768, metric_for_best_model="macro_f1", active_rebalancing=()):
    args = SimpleNamespace(metric_for_best_model=metric_for_best_model, active_rebalancing=balances)
    return {choice.name: choice.value for choice in autoconfig.choose_settings(splits, hidden_size, 224, args)}


def test_choices_follow_from_the_data_and_the_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    few, many = by_name(counted(100, 90)), by_name(counted(60_000, 50_000))
    assert few["num_train_epochs"] == 100 and many["num_train_epochs"] == 15 and few["bf16"] is False
    assert few["per_device_train_batch_size"] == 8 and "effective_batch_size" not in few
    assert many["per_device_train_batch_size"] == 16 and many["effective_batch_size"] == 64
    assert few["class_weights"] == ["none"]
    assert by_name(counted(100, 90), 1024)["drop_path"] == 0.2
    assert autoconfig.choose_split_settings(counted(5, 5)) == []
    assert autoconfig.choose_split_settings(counted(5, 5, validation=False))[0].value == 0.2


def test_the_rate_follows_the_square_root_of_the_batch(monkeypatch):
    """As the reference's at 256 images, whatever was chosen or given, and in however many parts it is taken."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = SimpleNamespace(metric_for_best_model="macro_f1", active_rebalancing=())

    def rate(images, parts=1, **asked):
        """The absolute rate, by the linear rule that training has, at the images of an update."""
        made = {
            one.name: one.value for one in autoconfig.choose_settings(counted(images), 768, 224, args, asked, parts)
        }
        made |= asked
        whole = made.get("effective_batch_size", made["per_device_train_batch_size"] * parts)
        return linear_scaled_lr(made["base_learning_rate"], whole)

    assert rate(954) == pytest.approx(1e-3 / 4) and rate(100_000) == pytest.approx(1e-3 / 2)
    assert rate(954, effective_batch_size=256) == pytest.approx(1e-3)
    assert rate(954, per_device_train_batch_size=64) == pytest.approx(1e-3 / 2)
    assert rate(100_000, per_device_train_batch_size=4) == pytest.approx(1e-3 / 2)  # 16 times for an update of 64
    assert rate(954, parts=4) == pytest.approx(1e-3 / 2)  # four times 16 images
    assert rate(100_000, parts=4) == pytest.approx(1e-3 / 2)  # 64 images, of all


def test_rare_classes_are_made_to_count_as_what_is_reported_asks(tmp_path):
    uneven, even = counted(1000, 100), counted(1000, 101)
    chosen = by_name(uneven)
    assert chosen["sampling"] == "square_root" and not {"class_weights", "smoothing"} & chosen.keys()
    for metric in ("macro_recall", "eval_balanced_accuracy"):
        chosen = by_name(uneven, metric_for_best_model=metric)
        assert chosen["class_weights"] == ["balanced"] and "sampling" not in chosen
        assert by_name(even, metric_for_best_model=metric)["class_weights"] == ["none"]
    given = FinetuningArguments(output_dir=str(tmp_path), use_cpu=True, logit_adjustment=1.0)
    assert given.active_rebalancing == ["--logit_adjustment 1"]
    chosen = by_name(uneven, active_rebalancing=given.active_rebalancing)  # what is given is not balanced once more
    assert not {"class_weights", "sampling"} & chosen.keys()


def test_choices_follow_from_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=24e9))
    large = by_name(counted(4000, 4000), 1024)
    assert large["bf16"] is True and large["per_device_train_batch_size"] < 64 == large["effective_batch_size"]
    assert large["dataloader_num_workers"] >= 1
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert by_name(counted(40, 40))["fp16"] is True and by_name(counted(40, 40), 1280)["fp16"] is False


def test_one_command_for_a_user_without_opinions(tiny_pth, toy, tmp_path):
    """Checkpoint and data alone: it holds out, chooses, says why, trains, judges, and leaves its reasons."""
    done = run_cli(*("finetune", tiny_pth, toy / "labelled" / "train", "--auto", "--num_train_epochs", 2), cwd=tmp_path)
    run = tmp_path / "runs" / "train"
    text = (run / "auto.yaml").read_text()
    values = yaml.safe_load(text)
    assert values["val_fraction"] == 0.2 and "num_train_epochs" not in values, "what is given is not chosen"
    assert all(" # " in line for line in text.splitlines()[1:])
    assert "chosen: val_fraction 0.2, as there is no validation split" in done.stderr
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (
        recipe["val_fraction"] == 0.2 and recipe["per_device_train_batch_size"] == values["per_device_train_batch_size"]
    )
    assert "auto" not in recipe and (run / "model.safetensors").is_file()
    again = run_cli(
        "finetune", "--recipe", run / "auto.yaml", tiny_pth, toy / "labelled" / "train", "--dry_run", cwd=tmp_path
    )
    assert f"update      {values['per_device_train_batch_size']} images" in again.stdout


def test_a_free_folder_is_found(monkeypatch, tmp_path):
    from hf_mae.workflows.finetune import add_default_output_dir

    monkeypatch.chdir(tmp_path)
    flags = {"model_name_or_path": "m", "data_dir": "some/polyps"}
    assert add_default_output_dir(flags, None)["output_dir"] == "runs/polyps"
    (tmp_path / "runs" / "polyps").mkdir(parents=True)
    assert add_default_output_dir(flags, None)["output_dir"] == "runs/polyps-2"
    assert add_default_output_dir(flags | {"output_dir": "x"}, None)["output_dir"] == "x"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CommandLineError, match="missing: --output_dir"):
        add_default_output_dir(flags, None)


# On the way


def test_a_terminal_has_a_bar_with_what_matters(monkeypatch):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    args = SimpleNamespace(
        disable_tqdm=False, eval_strategy=SimpleNamespace(value="epoch"), max_steps=0, num_train_epochs=2
    )
    state = SimpleNamespace(global_step=0, max_steps=10, is_world_process_zero=True, epoch=0.5)
    shown = progress.Progress(8)
    shown.on_train_begin(args, state, None)
    shown.on_log(args, state, None, {"loss": "0.5", "eval_loss": 0.4, "eval_macro_f1": 0.625, "epoch": 1.0})
    state.global_step = 4
    shown.on_step_end(args, state, None)
    assert shown._bar.n == 4 and re.search(
        r"images/s, loss 0\.5000, judged: loss 0\.4000, macro F1 62\.5", shown._bar.postfix
    )
    shown.on_train_end(args, state, None)
    assert shown._bar is None


def test_times_are_read_at_a_glance():
    assert progress._format_clock(59) == "0:59" and progress._format_clock(3725) == "1:02:05"
    assert training_plan._format_duration(100) == "100 seconds" and training_plan._format_duration(7200) == "2.0 hours"
    assert format_bytes(2.5e9) == "2.5 GB" and format_bytes(3e6) == "3.0 MB" and format_bytes(400) == "0 KB"


def test_a_cache_that_has_no_room_is_told_before_training(tiny_pth, toy, monkeypatch):
    monkeypatch.setenv("HF_MAE_CACHE_LIMIT", "1KB")
    made = hf_mae.plan(model_name_or_path=str(tiny_pth), data_dir=str(toy / "labelled"))
    assert any("there is room for 1 KB: they are decoded anew" in line for line in made.warnings)

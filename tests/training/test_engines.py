"""Equal results under every engine: DDP, FSDP2, ZeRO-2 and ZeRO-3, with two processes on the CPU over gloo.

`test_gpu.py` covers fp16 with its scaler (rejected on a CPU), NCCL, and bf16 on a GPU.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.distributed_runs import free_port
from support.messages import raises, shows
from support.models import TINY
from support.paths import ROOT
from transformers import AutoModelForImageClassification, ViTMAEForPreTraining

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, parameter_groups
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.optimizer_check import find_optimizer_mismatches, read_optimizer_settings
from hf_mae.training.resume import Launch, check_resumable

pytestmark = [pytest.mark.slow, pytest.mark.launch]
TOLERANCE = 1e-5
# name: (accelerate config, processes, batch per process, accumulation)
SETUPS = {
    "one": ("cpu", 1, 8, 1),
    "accumulated": ("cpu", 1, 4, 2),
    "ddp": ("ddp", 2, 4, 1),
    "ddp accumulated": ("ddp", 2, 2, 2),
    "fsdp2": ("fsdp2", 2, 4, 1),
    "zero2": ("zero2", 2, 4, 1),
    "zero2 accumulated": ("zero2", 2, 2, 2),
    "zero3": ("zero3", 2, 4, 1),
}
ENGINES = {"ddp": "MULTI_CPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}


def launch(
    way: str,
    runs: dict[Path, dict],
    *,
    processes: int | None = None,
    precision: str = "no",
    status: int = 0,
) -> str:
    """Runs `engine_program.py` under an accelerate config of the project; returns the output.

    Args:
        runs: output folder -> options. The same processes run them one after the other, because starting is slow.
    """
    config, count, batch, accumulation = SETUPS[way]
    count = processes or count
    defaults = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    path = next(iter(runs)).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([defaults | options | {"out": str(out)} for out, options in runs.items()]))
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(ROOT / "accelerate_configs" / f"{config}.yaml"), "--num_processes", str(count)),
        *("--mixed_precision", precision, "--main_process_port", str(free_port())),
        *(str(ROOT / "tests" / "support" / "engine_program.py"), str(path)),
    ]
    settings = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, timeout=900)
    assert (done.returncode == 0) == (status == 0), done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def start(golden):
    """Checkpoints and images of the original code, in both pooling modes."""
    return {
        "ids": {
            "checkpoint": str(golden / "gap_smoothing_initial.pth"),
            "data": str(golden / "gap_smoothing.safetensors"),
            "pooling": "mean",
        },
        "soft": {
            "checkpoint": str(golden / "cls_weighted_initial.pth"),
            "data": str(golden / "cls_weighted.safetensors"),
            "pooling": "cls",
            "soft": True,
        },
    }


# Loading the best model and resuming need checkpoints after each of the two epochs.
SAVING = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "loss"}
SAVING |= {"greater_is_better": False, "load_best_model_at_end": True}
HALFWAY = "checkpoint-5"

# Four updates of pre-training, with different masks on each process.
PRETRAINING = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
PRETRAINING |= {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}
PRETRAINING |= {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": 4, "report_to": "none"}
PRETRAINING |= {"disable_tqdm": True, "reconstruction_steps": 2}


@pytest.fixture(scope="module")
def results(start, toy, tmp_path_factory):
    """Runs each engine with class ids, soft labels, checkpoints, resuming, averaging and pre-training.

    Returns {(kind, way): folder}.
    """
    root = tmp_path_factory.mktemp("engines")
    folders = {("ids", way): root / "ids" / way.replace(" ", "-") for way in SETUPS}
    for kind in ("soft", "saved", "again", "averaged", "averaged again", "pretrained"):
        folders |= {(kind, way): root / kind / way for way in ("one", *ENGINES)}
    for way in ("one", *ENGINES):
        runs = {folders[kind, way]: start[kind] for kind in ("ids", "soft")}
        runs[folders["saved", way]] = start["ids"] | SAVING
        runs[folders["averaged", way]] = start["ids"] | SAVING | {"ema_decay": 0.8}
        for first, again in (("saved", "again"), ("averaged", "averaged again")):
            halfway = {"resume_other": str(folders[first, way] / HALFWAY)}
            runs[folders[again, way]] = runs[folders[first, way]] | halfway
        if way != "one":
            runs[folders["pretrained", way]] = {"pretrain": PRETRAINING | {"data_dir": str(toy / "unlabelled")}}
        for more, (config, processes, batch, accumulation) in SETUPS.items():
            if more != way and (config, processes) == SETUPS[way][:2]:
                sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
                runs[folders["ids", more]] = start["ids"] | sizes
        launch(way, runs)
    return folders


def difference(one: Path, two: Path) -> float:
    """Largest difference between the parameters of two saved models.

    Excludes key biases: their true gradient is zero, so AdamW amplifies rounding errors.
    """
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert first.keys() == second.keys()
    return max((first[n] - second[n]).abs().max().item() for n in first if not n.endswith("key.bias"))


@pytest.mark.parametrize("targets, way", [("ids", way) for way in SETUPS] + [("soft", way) for way in ENGINES])
def test_parameters_agree(results, targets, way):
    folder = results[targets, way]
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["updates"] == 10
    assert facts["engine"] == ENGINES.get(SETUPS[way][0], "NO")  # check that the engine was used
    assert difference(results[targets, "one"], folder) < TOLERANCE


@pytest.mark.parametrize("way", SETUPS)
def test_every_image_is_evaluated_once(results, way):
    """The logits of 13 images, a number that neither the processes nor the batch size divides."""
    one, folder = results["ids", "one"], results["ids", way]
    assert np.load(folder / "labels.npy").tolist() == [index % 5 for index in range(13)]
    np.testing.assert_allclose(np.load(folder / "logits.npy"), np.load(one / "logits.npy"), atol=TOLERANCE)


@pytest.mark.parametrize("way", SETUPS)
def test_each_parameter_keeps_its_learning_rate_and_weight_decay(results, start, way):
    model = build_classifier(start["ids"]["checkpoint"], pooling="mean", num_labels=5, **TINY)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    actual = json.loads((results["ids", way] / "facts.json").read_text())["settings"]
    groups = parameter_groups(model, 1e-3, 0.05, 0.65)
    expected = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert actual.keys() == expected.keys()
    for name, (rate, decay) in expected.items():
        assert actual[name]["initial_lr"] == pytest.approx(rate) and actual[name]["weight_decay"] == decay
    assert len({row["initial_lr"] for row in actual.values()}) == 5


@pytest.mark.parametrize("way", [*ENGINES])
def test_the_saved_model_is_a_stock_model(results, way):
    folder = results["ids", way]
    _, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


@pytest.mark.parametrize("way", ["ddp", "fsdp2", "zero2", "zero3"])
def test_bf16_of_the_accelerate_config_is_used(results, start, tmp_path, way):
    launch(way, {tmp_path / "run": start["ids"]}, precision="bf16")
    ours, plain = np.load(tmp_path / "run" / "logits.npy"), np.load(results["ids", "one"] / "logits.npy")
    assert 0 < np.abs(ours - plain).max() < 0.1
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "run").eval()
    images = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = saved(pixel_values=images).logits.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "run" / "saved_logits.npy"), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("way", [*ENGINES])
def test_a_checkpoint_resumes_under_the_same_config(results, way):
    assert json.loads((results["again", way] / "facts.json").read_text())["updates_here"] == 5
    first, again = (results[which, way] / "checkpoint-10" for which in ("saved", "again"))
    tensors = load_file(first / "model.safetensors"), load_file(again / "model.safetensors")
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.parametrize("way", ["one", *ENGINES])
def test_the_weight_average_equals_that_of_one_process_and_resumes(results, way):
    one, folder, again = results["averaged", "one"], results["averaged", way], results["averaged again", way]
    assert difference(one, folder) < TOLERANCE and difference(folder, results["saved", way]) > 1e-4
    assert difference(folder, again) == 0.0
    for which in (folder, again):
        names = sorted(path.stem for path in (which / "checkpoint-10").glob("average*"))
        assert names == (["average_0", "average_1"] if way == "zero3" else ["average"])
    # The scores of the average select the best checkpoint, and its average is loaded and saved at the end.
    facts = json.loads((folder / "facts.json").read_text())
    if way != "zero3":
        best = load_file(Path(facts["best"]) / "average.safetensors")
        saved = dict(AutoModelForImageClassification.from_pretrained(folder).named_parameters())
        assert all(torch.equal(best[name], saved[name]) for name in best)
    np.testing.assert_allclose(np.load(folder / "logits.npy"), np.load(one / "logits.npy"), atol=TOLERANCE)


@pytest.mark.parametrize("way", [*ENGINES])
def test_all_weights_of_the_best_model_are_loaded(results, way):
    folder = results["saved", way]
    facts = json.loads((folder / "facts.json").read_text())
    best = Path(facts["best"])
    assert best.name == "checkpoint-5"  # not the last
    assert difference(best, folder) == 0.0 and difference(folder / "checkpoint-10", best) > 0.0
    logits = np.load(folder / "logits.npy")
    np.testing.assert_allclose(logits, np.load(results["saved", "one"] / "logits.npy"), atol=TOLERANCE)


def test_resuming_on_another_number_of_processes(results, start, tmp_path):
    """DDP and FSDP2 save complete states and resume with one process; DeepSpeed does not."""
    for way in ("ddp", "fsdp2"):
        shutil.copytree(results["saved", way] / "checkpoint-5", tmp_path / way / "checkpoint-5")
        options = start["ids"] | {"resume": str(tmp_path / way / "checkpoint-5"), "save_strategy": "epoch"}
        printed = launch("one" if way == "ddp" else way, {tmp_path / way: options}, processes=1)
        assert shows(printed, TrainingMessage.PROCESSES_CHANGED, saved=2, processes=1)
    # One process with batch size 8 makes the same updates as two with batch size 4.
    assert difference(results["saved", "ddp"] / "checkpoint-10", tmp_path / "ddp") < TOLERANCE
    saved = results["saved", "zero2"] / "checkpoint-5"
    with raises(TrainingMessage.CHECKPOINT_SHARDS_DIFFER, saved=2, processes=1):
        check_resumable(saved, Launch("DEEPSPEED", 1, 8))
    with raises(TrainingMessage.CHECKPOINT_ENGINE_DIFFERS, processes=2, saved="DEEPSPEED", engine="MULTI_CPU"):
        check_resumable(saved, Launch("MULTI_CPU", 2, 8))


@pytest.mark.parametrize("way", [*ENGINES])
def test_pretraining_agrees(results, way):
    folder, plain = results["pretrained", way], results["pretrained", "ddp"]
    _, info = ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert difference(plain, folder) < TOLERANCE
    for step in (2, 4):  # reconstructions of the sharded weights
        name = f"reconstructions/step-{step:07d}.png"
        images = [np.asarray(Image.open(which / name)) for which in (plain, folder)]
        assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_an_optimizer_with_changed_groups_is_rejected(start, tmp_path):
    model = build_classifier(start["ids"]["checkpoint"], pooling="mean", num_labels=5, **TINY)
    args = FinetuningArguments(output_dir=tmp_path, use_cpu=True, report_to="none", max_steps=1, learning_rate=1e-3)

    class Losing(MaeFinetuner):
        def create_scheduler(self, *args, **kwargs):
            scheduler = super().create_scheduler(*args, **kwargs)
            for group in self.optimizer.param_groups:
                group["initial_lr"] = 1e-3  # as if there was one group
            return scheduler

    items = [{"pixel_values": torch.zeros(3, 32, 32), "labels": 0}] * 4
    with raises(TrainingMessage.LEARNING_RATES_CHANGED, count=49):
        Losing(model=model, args=args, train_dataset=items).train()


def test_differing_optimizer_settings_are_named():
    requested = {"a": {"lr": 1e-3, "weight_decay": 0.05}, "b": {"lr": 5e-4, "weight_decay": 0.0}}
    actual = {name: row | {"lr": row["lr"] / 2, "initial_lr": row["lr"]} for name, row in requested.items()}
    assert find_optimizer_mismatches(requested, actual, 0.5) == []
    assert find_optimizer_mismatches(requested, actual, 1.0)[0] == "a has lr 0.0005 instead of 0.001"
    actual["b"]["weight_decay"] = 0.05
    assert find_optimizer_mismatches(requested, actual, 0.5) == ["b has weight_decay 0.05 instead of 0"]
    assert find_optimizer_mismatches(requested, {"a": actual["a"]}, 0.5) == ["b is not in the optimizer"]


def test_zero_groups_are_read_by_name():
    """DeepSpeed stores its groups in two ways."""
    model = torch.nn.Linear(2, 2)
    groups = [{"lr": 1.0, "weight_decay": 0.1}, {"lr": 2.0, "weight_decay": 0.0}]
    inner = SimpleNamespace(param_groups=groups)
    two = SimpleNamespace(bit16_groups=[[model.weight], [model.bias]], optimizer=inner)
    three = SimpleNamespace(
        fp16_groups=[[model.bias], [model.weight]], sub_group_to_group_id={0: 1, 1: 0}, optimizer=inner
    )
    for optimizer in (two, three):
        assert read_optimizer_settings(model, optimizer) == {"weight": groups[0], "bias": groups[1]}

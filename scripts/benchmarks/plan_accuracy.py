"""What `plan` estimates and what a training then needs: `python scripts/benchmarks/plan_accuracy.py DATA`.

DATA has class folders in `train` and `validation`, such as shared/data/polyp_crops. For each setting, one process plans
and another one trains two epochs of random weights. Memory is the largest resident memory of the training, with the
weights, without code and without that of the process before it (after a step of one image). On a busy machine,
`--cpu_time` compares the time of one core, without that of DataLoader workers. Linux only, on a CPU.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

EPOCHS = 2
BASE = {"num_train_epochs": EPOCHS, "warmup_epochs": 0, "per_device_train_batch_size": 8, "report_to": "none"}
BASE |= {"save_strategy": "no", "load_best_model_at_end": False, "use_cpu": True, "disable_tqdm": True}
SETTINGS: dict[str, tuple[str, int, dict]] = {
    "ViT-Ti, 96 pixels": ("vit_tiny", 96, {}),
    "ViT-Ti, 96 pixels, batch 32": ("vit_tiny", 96, {"per_device_train_batch_size": 32}),
    "ViT-Ti, 96 pixels, 2 workers": ("vit_tiny", 96, {"dataloader_num_workers": 2}),
    "ViT-Ti, 224 pixels": ("vit_tiny", 224, {}),
    "ViT-Ti, 224 pixels, batch 32": ("vit_tiny", 224, {"per_device_train_batch_size": 32}),
    "ViT-Ti, 224 pixels, gradient checkpointing": ("vit_tiny", 224, {"gradient_checkpointing": True}),
    "ViT-Ti, 224 pixels, frozen": ("vit_tiny", 224, {"freeze_backbone": True}),
    "ViT-Ti, 224 pixels, bf16": ("vit_tiny", 224, {"bf16": True}),
    "ViT-Ti, 224 pixels, patch dropout": ("vit_tiny", 224, {"patch_dropout": 0.5}),
    "ViT-Ti, 224 pixels, accumulation": ("vit_tiny", 224, {"gradient_accumulation_steps": 4}),
    "ViT-S, 224 pixels": ("vit_small", 224, {}),
    "ViT-S, 224 pixels, batch 32, gradient checkpointing": (
        *("vit_small", 224),
        {"per_device_train_batch_size": 32, "gradient_checkpointing": True},
    ),
}
WIDTHS = {"vit_tiny": 192, "vit_small": 384}


def build_checkpoint(folder: Path, size: str, image_size: int) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    width = WIDTHS[size]
    config = ViTConfig(
        **{"hidden_size": width, "num_attention_heads": width // 64, "intermediate_size": 4 * width},
        **{"image_size": image_size, "id2label": {0: "mucosa", 1: "polyp"}, "label2id": {"mucosa": 0, "polyp": 1}},
    )
    ViTForImageClassification(config).save_pretrained(folder)


def read_memory(name: str) -> int:
    """Returns a number of bytes of /proc/self/status."""
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def plan(flags: dict, cpu_time: bool) -> dict:
    from hf_mae import plan
    from hf_mae.training import training_plan

    if cpu_time:
        training_plan.perf_counter = time.process_time
    values = plan(**flags).to_dict()
    return {"seconds": values["seconds_per_epoch"], "bytes": (values["step_profile"] or {}).get("peak_bytes")}


def train(flags: dict, cpu_time: bool) -> dict:
    from hf_mae import MaeFinetuner, finetune
    from hf_mae.training import training_plan

    clock, measured, original = time.process_time if cpu_time else time.perf_counter, {}, MaeFinetuner.train

    def measure(trainer, *args, **kwargs):
        training_plan._run_step(trainer.model.train(), 1, trainer.args)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        memory, code, started = read_memory("VmRSS"), read_memory("RssFile"), clock()
        output = original(trainer, *args, **kwargs)
        measured["seconds"] = (clock() - started) / EPOCHS
        weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
        measured["bytes"] = read_memory("VmHWM") - memory - (read_memory("RssFile") - code) + weights
        return output

    MaeFinetuner.train = measure
    finetune(**flags)
    return measured


def run_child(kind: str, flags: dict, cpu_time: bool) -> dict:
    command = [sys.executable, __file__, "--child", kind, json.dumps(flags), *(["--cpu_time"] if cpu_time else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def compare(planned: float | None, measured: float, unit: float) -> str:
    if planned is None:
        return f"none | {measured / unit:.2f} | "
    return f"{planned / unit:.2f} | {measured / unit:.2f} | {planned / measured:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of images")
    parser.add_argument("--cpu_time", action="store_true", help="time of one core instead of elapsed time")
    parser.add_argument("--train_fraction", type=float, default=0.1)
    parser.add_argument("--only", default="", help="settings whose name contains this text")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        if args.cpu_time:
            torch.set_num_threads(1)
        kind, flags = args.child
        print(json.dumps({"plan": plan, "train": train}[kind](json.loads(flags), args.cpu_time)))
        return
    print("| setting | s per epoch: plan | training | ratio | MB: plan | training | ratio |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, image_size, options) in SETTINGS.items():
            if args.only not in name:
                continue
            checkpoint = Path(folder) / f"{size}_{image_size}"
            if not checkpoint.exists():
                build_checkpoint(checkpoint, size, image_size)
            flags = BASE | {"model_name_or_path": str(checkpoint), "data_dir": args.data, "image_size": image_size}
            flags |= {"train_fraction": args.train_fraction} | options
            planned = run_child("plan", flags, args.cpu_time)
            measured = run_child("train", flags | {"output_dir": tempfile.mkdtemp(dir=folder)}, args.cpu_time)
            times, memory = ([item[key] for item in (planned, measured)] for key in ("seconds", "bytes"))
            print(f"| {name} | {compare(*times, 1)} | {compare(*memory, 1e6)} |", flush=True)


if __name__ == "__main__":
    main()

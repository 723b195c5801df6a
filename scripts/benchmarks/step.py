"""Training steps of the original code, stock transformers and hf_mae: `python scripts/benchmarks/step.py`.

One ViT, mean pooling, layer-wise lr decay, drop path 0.1, the same batch. Rounds are interleaved; the table shows
medians. The loop of the original code (facebookresearch/mae) is timm's ViT with torch's plain AdamW: with timm's
fused attention, and with the plain attention of timm 0.3.2, which the original code requires. Ratios are to the
faster of the two. On a GPU the original loop uses fp16 with a gradient scaler, and the table shows the fraction of
the measured peak of matrix products (3 x forward FLOPs). "GB more" is the peak memory that a step adds (on a CPU: two
steps in a separate process, including gradients and optimizer moments).
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from transformers import BeitConfig, BeitForImageClassification, Trainer, TrainingArguments

from hf_mae import FinetuningArguments, MaeFinetuner
from hf_mae.models.building import SIZES
from hf_mae.models.stochastic_depth import set_drop_path

CLASSES, DROP_PATH = 22, 0.1
TRAINING_CONTEXTS = ExitStack()  # open until the program ends: models in training configuration
ORIGINAL_FLOAT32, ORIGINAL_HALF = "original, float32", "original, half precision"  # names of the variants


def original_parameter_groups(model: nn.Module, blocks: int) -> list[dict]:
    """One group per layer and weight decay, by timm's parameter names."""
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        layer = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0 if "embed" in name else blocks + 1
        key = layer, parameter.ndim > 1
        scale = 0.75 ** (blocks + 1 - layer)
        group = groups.setdefault(
            key, {"params": [], "lr": 1e-4 * scale, "weight_decay": 0.05 if parameter.ndim > 1 else 0.0}
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_timm_step(size: str, image_size: int, pixels, labels, precision, compiled=False, fused=False, plain=False):
    width, blocks, heads, patch = SIZES[size]
    model = VisionTransformer(
        image_size, patch, embed_dim=width, depth=blocks, num_heads=heads, num_classes=CLASSES, global_pool="avg",
        drop_path_rate=DROP_PATH, norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).to(pixels.device)  # fmt: skip
    for block in model.blocks:
        block.attn.fused_attn = not plain
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(original_parameter_groups(model, blocks), lr=1e-4, fused=fused or None)
    scaler = torch.amp.GradScaler(pixels.device.type, enabled=precision == torch.float16)

    def step():
        with torch.autocast(pixels.device.type, precision or torch.bfloat16, enabled=precision is not None):
            loss = F.cross_entropy(forward(pixels), labels, label_smoothing=0.1)
        if not fused:
            loss.item()  # as in the original code, in every step
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def make_trainer_step(kind, size: str, image_size: int, pixels, labels, folder: str, **kwargs):
    """Returns one step of `Trainer` or `MaeFinetuner`, without the loop."""
    width, blocks, heads, patch = SIZES[size]
    config = BeitConfig(
        hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, intermediate_size=4 * width,
        image_size=image_size, patch_size=patch, use_mean_pooling=True, use_absolute_position_embeddings=True,
        layer_scale_init_value=0.0, layer_norm_eps=1e-6, num_labels=CLASSES,
    )  # fmt: skip
    model = BeitForImageClassification(config)
    set_drop_path(model, DROP_PATH)
    kwargs = dict(output_dir=folder, use_cpu=pixels.device.type == "cpu", report_to="none") | kwargs
    if kind is Trainer:
        args = TrainingArguments(learning_rate=1e-4, **kwargs)
    else:
        args = FinetuningArguments(learning_rate=1e-4, **kwargs)
    trainer = kind(model=model, args=args, train_dataset=[{"pixel_values": pixels[0], "labels": labels[0]}])
    if trainer.args.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable()
    if kind is MaeFinetuner:
        TRAINING_CONTEXTS.enter_context(trainer.configure_model())  # attention and patch dropout as in training
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.current_gradient_accumulation_steps = 1

    def step():
        batches, count = trainer.get_batch_samples(iter([{"pixel_values": pixels, "labels": labels}]), 1, pixels.device)
        trainer.training_step(model, batches[0], count)
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_flops(size: str, image_size: int) -> float:
    """FLOPs (2 x multiply-adds) of the forward pass of one image."""
    width, blocks, _, patch = SIZES[size]
    tokens = (image_size // patch) ** 2 + 1
    return 2 * (blocks * (12 * tokens * width**2 + 2 * tokens**2 * width) + tokens * width * 3 * patch**2)


def measure_matmul_peak(device) -> float:
    """Measured FLOP/s of a large bf16 matrix product."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * 8192**3 / statistics.median(times)


def build_variants(shared: tuple, folder: str, gpu: bool) -> dict:
    """Name of each variant -> function that runs one step."""
    half = torch.float16 if gpu else torch.bfloat16
    ours = partial(make_trainer_step, MaeFinetuner, *shared, folder, bf16=True)
    name = "fp16" if gpu else "bf16"
    return {
        f"{ORIGINAL_FLOAT32}, plain attention": partial(make_timm_step, *shared, None, plain=True),
        f"{ORIGINAL_FLOAT32}, fused attention": partial(make_timm_step, *shared, None),
        f"{ORIGINAL_HALF} ({name}), plain attention": partial(make_timm_step, *shared, half, plain=True),
        f"{ORIGINAL_HALF} ({name}), fused attention": partial(make_timm_step, *shared, half),
        "timm, bf16, fused AdamW, compiled, plain attention": partial(
            make_timm_step, *shared, torch.bfloat16, compiled=True, fused=True, plain=True
        ),
        "timm, bf16, fused AdamW, compiled, fused attention": partial(
            make_timm_step, *shared, torch.bfloat16, compiled=True, fused=True
        ),
        "hf_mae, float32": partial(make_trainer_step, MaeFinetuner, *shared, folder),
        "stock Trainer, bf16": partial(make_trainer_step, Trainer, *shared, folder, bf16=True),
        "hf_mae, bf16": ours,
        "hf_mae, bf16, compiled": partial(ours, torch_compile=True),
        "hf_mae, bf16, checkpointing": partial(ours, gradient_checkpointing=True),
        "hf_mae, bf16, patch dropout 0.5": partial(ours, patch_dropout=0.5),
    }


def read_process_status(name: str) -> float:
    """Reads a line of /proc/self/status, in GB."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024 / 1e9


def measure_added_cpu_memory(name: str, options: argparse.Namespace) -> float:
    """Peak memory of training in a separate process, in GB: gradients, moments, activations."""
    argv = ["--memory_of", name, "--size", options.size, "--image_size", options.image_size, "--batch", options.batch]
    done = subprocess.run([sys.executable, __file__, *map(str, argv)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(options: argparse.Namespace) -> None:
    size, image_size, batch = options.size, options.image_size, options.batch
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    torch.manual_seed(0)
    pixels = torch.randn(batch, 3, image_size, image_size, device=device)
    labels = torch.randint(0, CLASSES, (batch,), device=device)
    with tempfile.TemporaryDirectory() as folder:
        built = build_variants((size, image_size, pixels, labels), folder, gpu)
        if options.memory_of:
            print(measure_two_step_memory(built[options.memory_of]))
            return
        device_name = torch.cuda.get_device_name() if gpu else f"{os.cpu_count()} CPU cores ({platform.machine()})"
        names = ("torch", "transformers", "timm", "accelerate")
        print(f"{size}, {image_size} px, batch {batch}; {device_name}; {', '.join(f'{n} {version(n)}' for n in names)}")
        seconds, memory = time_steps({name: make() for name, make in built.items()}, options.rounds, gpu)
    if not gpu:
        memory = {name: measure_added_cpu_memory(name, options) for name in memory}
    print_table(seconds, memory, options, device)


def measure_two_step_memory(make) -> float:
    """GB that two steps of a variant add to this process."""
    step = make()
    before = read_process_status("VmRSS")
    for _ in range(2):
        step()
    return read_process_status("VmHWM") - before


def time_steps(steps: dict, rounds: int, gpu: bool) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each round (interleaved), and on a GPU the memory that a step adds, in GB."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    memory = dict.fromkeys(steps, 0.0)
    for number in range(rounds + 2):
        for name, step in steps.items():
            step()  # touch the pages of a model that was idle
            if gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                loaded = torch.cuda.memory_allocated()
            started = time.perf_counter()
            step()
            if gpu:
                torch.cuda.synchronize()
                memory[name] = (torch.cuda.max_memory_allocated() - loaded) / 1e9
            if number > 1:  # the first rounds warm up and compile
                seconds[name].append(time.perf_counter() - started)
    return seconds, memory


def get_fastest_times(seconds: dict[str, list[float]], kind: str) -> list[float]:
    """Rounds of the faster variant with this prefix."""
    return min((times for name, times in seconds.items() if name.startswith(kind)), key=statistics.median)


def get_median_speedup(baseline: list[float], times: list[float]) -> float:
    """Speed-up over the original code: median over rounds, paired."""
    return statistics.median(one / other for one, other in zip(baseline, times, strict=True))


def print_table(seconds: dict[str, list[float]], memory: dict[str, float], options, device: torch.device) -> None:
    """Prints images per second and ratios to the original code in float32 and half precision."""
    gpu, batch = device.type == "cuda", options.batch
    first, second = get_fastest_times(seconds, ORIGINAL_FLOAT32), get_fastest_times(seconds, ORIGINAL_HALF)
    peak = measure_matmul_peak(device) if gpu else None
    print(
        f"| {'variant':50} | images/s | x original float32 | x original {'fp16' if gpu else 'bf16'} | GB more |"
        + " % of matrix peak |" * gpu
    )
    print("|---" * (5 + gpu) + "|")
    for name, times in seconds.items():
        value = statistics.median(times)
        speedups = get_median_speedup(first, times), get_median_speedup(second, times)
        row = f"| {name:50} | {batch / value:8.1f} | {speedups[0]:19.2f} | {speedups[1]:16.2f} | {memory[name]:7.2f} |"
        if gpu:
            row += f" {300 * forward_flops(options.size, options.image_size) * batch / value / peak:16.1f} |"
        print(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vit_small_patch16", choices=SIZES)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    main(parser.parse_args())

"""Time of AdamW with the 52 parameter groups of layer-wise lr decay: `python scripts/benchmarks/optimizer.py`.

A ViT-L in bf16. Each optimizer variant is timed on the same gradients (interleaved, medians) and compared with the
forward and backward pass of a batch. Then DeepSpeed (ZeRO-2 and ZeRO-3, one process), which has one flat buffer per
group.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version

import torch
from transformers import BeitConfig, BeitForImageClassification

from hf_mae import parameter_groups
from hf_mae.models.attention import register_plain_attention
from hf_mae.models.building import SIZES
from hf_mae.training.trainer import is_plain_attention_faster


def make_model(size: str, device: torch.device) -> BeitForImageClassification:
    width, blocks, heads, patch = SIZES[size]
    model = BeitForImageClassification(
        BeitConfig(
            hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, intermediate_size=4 * width,
            patch_size=patch, use_mean_pooling=True, use_absolute_position_embeddings=True,
            layer_scale_init_value=0.0, num_labels=22,
        )
    )  # fmt: skip
    if is_plain_attention_faster(model, device):
        model.set_attn_implementation(register_plain_attention(model))
    return model.train().to(device)


def merge_groups(groups: list[dict]) -> list[dict]:
    """Merges the groups into two: with and without weight decay."""
    by_decay: dict[float, dict] = {}
    for group in groups:
        into = by_decay.setdefault(group["weight_decay"], {**group, "params": []})
        into["params"] += group["params"]
    return list(by_decay.values())


def time_call(function, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def make_forward_backward(model, batch: int, device: torch.device):
    """Returns a function that computes the gradients of one batch."""
    size = model.config.image_size
    pixels, labels = torch.randn(batch, 3, size, size, device=device), torch.randint(0, 22, (batch,), device=device)

    def run():
        model.zero_grad(set_to_none=False)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(pixel_values=pixels).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()

    return run


def compare_optimizers(size: str, batch: int, rounds: int, device: torch.device) -> None:
    model = make_model(size, device)
    forward_and_backward = make_forward_backward(model, batch, device)
    step = statistics.median(time_call(forward_and_backward, device) for _ in range(3))
    layered = parameter_groups(model, 1e-4)
    print(f"\nForward and backward pass of {batch} images: {step:.3f} s")
    print("| AdamW | | s | % of a step | ratio |\n|---|---|---|---|---|")
    optimizers = {
        (name, len(groups)): torch.optim.AdamW([dict(group) for group in groups], lr=1e-4, fused=fused)
        for name, fused in (("default of torch", None), ("fused", True))
        for groups in (merge_groups(layered), layered)
    }
    seconds = time_interleaved({key: optimizer.step for key, optimizer in optimizers.items()}, rounds, device)
    first = next(iter(seconds.values()))
    for (name, count), value in seconds.items():
        print(f"| {name} | {count} groups | {value:.3f} | {100 * value / (step + value):.1f} % | {value / first:.2f} |")


def time_interleaved(functions: dict, rounds: int, device: torch.device) -> dict:
    """Median seconds of each function. Rounds are interleaved; the first round does not count."""
    seconds = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            seconds[name].append(time_call(function, device))
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def run_engine_pass(engine, device: torch.device) -> None:
    pixels = torch.randn(1, 3, 224, 224, device=device, dtype=torch.bfloat16)
    engine.backward(engine(pixel_values=pixels).logits.float().square().mean())


def benchmark_deepspeed(size: str, rounds: int, device: torch.device, stage: int) -> None:
    """Prints the seconds of an update of DeepSpeed with 2 groups and with one group per layer and weight decay."""
    import deepspeed

    engines = {}
    for layered in (False, True):
        model = make_model(size, device)
        groups = parameter_groups(model, 1e-4)
        groups = groups if layered else merge_groups(groups)
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        optimizer = torch.optim.AdamW([dict(group) for group in groups], lr=1e-4, fused=True)
        engines[len(groups)], *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    steps = {}
    for count, engine in engines.items():
        steps["passes", count] = partial(run_engine_pass, engine, device)
        steps["update", count] = engine.step
    seconds = time_interleaved(steps, rounds, device)
    two = min(engines)
    for count in engines:
        update, passing = seconds["update", count], seconds["passes", count]
        print(
            f"| ZeRO-{stage} | {count} groups | {update:.3f} | {update / seconds['update', two]:.2f} | {passing:.3f} | "
            f"{passing / seconds['passes', two]:.2f} |"
        )


def main(options: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.deepspeed:
        benchmark_deepspeed(options.size, options.rounds, device, options.deepspeed)
        return
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    print(f"{options.size}; {device_name} ({platform.machine()}); torch {version('torch')}", flush=True)
    compare_optimizers(options.size, options.batch, options.rounds, device)
    print(f"\nDeepSpeed {version('deepspeed')}, one process, a batch of one image")
    print("| | | update, s | ratio | forward and backward, s | ratio |\n|---|---|---|---|---|---|", flush=True)
    for stage in (2, 3):
        env = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29631"}
        env |= {"DS_ACCELERATOR": device.type, "TQDM_DISABLE": "1"}
        argv = ["--deepspeed", str(stage), "--size", options.size, "--rounds", str(options.rounds)]
        done = subprocess.run([sys.executable, __file__, *argv], env=os.environ | env, capture_output=True, text=True)
        print("\n".join(line for line in done.stdout.splitlines() if line.startswith("| ZeRO")) or done.stderr[-2000:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vit_large_patch16", choices=SIZES)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--deepspeed", type=int, choices=(2, 3), help=argparse.SUPPRESS)
    main(parser.parse_args())

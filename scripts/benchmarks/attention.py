"""Training step on a CPU with plain and with torch's fused attention: `python scripts/benchmarks/attention.py`.

Prints images per second for both (interleaved, median over the rounds) and their ratio. `MaeFinetuner` and
`MaePretrainer` use plain attention on a CPU because of this result. The second table compares the memory formats of the
patch embedding (forward and backward); the default format is kept because of it.
"""

import argparse
import platform
import statistics
import time

import torch
from transformers import BeitConfig, BeitForImageClassification

from hf_mae.models.attention import register_plain_attention

# name: (width, blocks, heads, image size, batch)
MODELS = {
    "recipe polyp_crops, 128 px": (192, 6, 3, 128, 64),
    "ViT-S/16, 224 px": (384, 12, 6, 224, 16),
    "ViT-B/16, 224 px, 4 blocks": (768, 4, 12, 224, 8),
}


def make_step(attention: str, width: int, blocks: int, heads: int, size: int, batch: int):
    """Returns a function that runs one bf16 training step."""
    config = BeitConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=size,
        use_absolute_position_embeddings=True,
        layer_scale_init_value=0.0,
        num_labels=22,
        attn_implementation="sdpa",
    )
    model = BeitForImageClassification(config).train()
    if attention == "plain":
        model.set_attn_implementation(register_plain_attention(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pixel_values, labels = torch.randn(batch, 3, size, size), torch.randint(0, 22, (batch,))

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(pixel_values=pixel_values).logits
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def benchmark_patch_embedding(rounds: int) -> None:
    """Prints milliseconds of the patch convolution for 16 images, channels first and channels last."""
    for width in (384, 1024):
        formats = {"first": torch.contiguous_format, "last": torch.channels_last}
        layers = {name: torch.nn.Conv2d(3, width, 16, 16).to(memory_format=order) for name, order in formats.items()}
        images = torch.randn(16, 3, 224, 224)
        seconds = {name: [] for name in layers}
        for number in range(rounds + 1):
            for name, layer in layers.items():
                started = time.perf_counter()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    tokens = layer(images.to(memory_format=formats[name])).flatten(2).transpose(1, 2)
                tokens.sum().backward()
                if number:
                    seconds[name].append(time.perf_counter() - started)
        first, last = (1e3 * statistics.median(seconds[name]) for name in formats)
        name = f"patch embedding, width {width}"
        print(f"{name:30} {first:14.1f} {last:14.1f} {first / last:7.2f}   ms: channels first, last")


def main(rounds: int) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}")
    print(f"{'model':30} {'fused (sdpa)':>14} {'plain':>14} {'ratio':>7}   images/s, median of {rounds}")
    for name, sizes in MODELS.items():
        steps = {attention: make_step(attention, *sizes) for attention in ("sdpa", "plain")}
        seconds = {attention: [] for attention in steps}
        for number in range(rounds + 1):
            for attention, step in steps.items():
                started = time.perf_counter()
                step()
                if number:  # the first is a warm-up
                    seconds[attention].append(time.perf_counter() - started)
        fused, plain = (sizes[-1] / statistics.median(seconds[attention]) for attention in ("sdpa", "plain"))
        print(f"{name:30} {fused:14.1f} {plain:14.1f} {plain / fused:7.2f}")
    benchmark_patch_embedding(rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    main(parser.parse_args().rounds)

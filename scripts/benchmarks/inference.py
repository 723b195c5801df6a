"""Images per second of a classifier on a CPU: PyTorch, ONNX and int8: `python scripts/benchmarks/inference.py`.

A ViT with random weights (the speed does not depend on them) runs through the code of `hf-mae predict` and
`hf-mae export-onnx`. Rounds are interleaved. The table shows medians and ratios to PyTorch in float32.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import BeitConfig, BeitForImageClassification

from hf_mae.conversion.architecture import LAYER_NORM_EPS
from hf_mae.models.building import SIZES
from hf_mae.sharing.onnx import FLOAT32, INT8, create_session, export_to_onnx, quantize_to_int8


def build_model(size: str, image_size: int) -> torch.nn.Module:
    width, blocks, heads, patch = SIZES[size]
    config = BeitConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=image_size,
        patch_size=patch,
        use_mean_pooling=True,
        use_absolute_position_embeddings=True,
        layer_scale_init_value=0.0,
        layer_norm_eps=LAYER_NORM_EPS,
        num_labels=22,
    )
    return BeitForImageClassification(config).eval()


def build_variants(model: torch.nn.Module, folder: Path) -> dict:
    """Name of each variant -> function of a batch."""
    export_to_onnx(model, folder / FLOAT32)
    quantize_to_int8(folder / FLOAT32, folder / INT8)
    sessions = {name: create_session(folder / file) for name, file in (("ONNX float32", FLOAT32), ("ONNX int8", INT8))}
    warnings.simplefilter("ignore")  # torch.ao is deprecated in favour of torchao
    eight_bit = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    compiled = torch.compile(model)

    def plain(net):
        @torch.inference_mode()
        def run(batch):
            return net(pixel_values=batch).logits

        return run

    @torch.inference_mode()
    def bf16(batch):
        with torch.autocast("cpu", torch.bfloat16):
            return model(pixel_values=batch).logits

    return {
        "PyTorch float32": plain(model),
        "PyTorch float32, compiled": plain(compiled),
        "PyTorch bf16 (--bf16)": bf16,
        "PyTorch dynamic int8": plain(eight_bit),
        **{
            name: lambda batch, one=one: one.run(None, {"pixel_values": batch.numpy()})
            for name, one in sessions.items()
        },
    }


def main(size: str, image_size: int, batch: int, rounds: int) -> None:
    print(
        f"{size}, {image_size} px, batch {batch}; {os.cpu_count()} cores ({platform.machine()}); "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "onnxruntime"))
    )
    torch.manual_seed(0)
    pixel_values = torch.randn(batch, 3, image_size, image_size)
    with tempfile.TemporaryDirectory() as folder:
        variants = build_variants(build_model(size, image_size), Path(folder))
        seconds = {name: [] for name in variants}
        for number in range(rounds + 2):
            for name, variant in variants.items():
                started = time.perf_counter()
                variant(pixel_values)
                if number > 1:  # the first two rounds warm up and compile
                    seconds[name].append(time.perf_counter() - started)
    first = statistics.median(seconds["PyTorch float32"])
    print(f"| {'variant':26} | images/s | ratio |\n|---|---|---|")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"| {name:26} | {batch / middle:8.1f} | {first / middle:5.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vit_base_patch16", choices=SIZES)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    main(options.size, options.image_size, options.batch, options.rounds)

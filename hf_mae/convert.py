"""`hf-mae convert` and `hf-mae export`: the command line of `hf_mae.conversion`."""

from .checkpoints import resolve
from .cli import Parser
from .conversion import convert_checkpoint, export_checkpoint


def convert(argv: list[str]) -> int:
    parser = Parser("convert", "Turn an MAE checkpoint into a folder that transformers loads.")
    parser.add_argument(
        "source",
        metavar="SRC",
        help=".pth, .safetensors, a transformers folder, a Hub id, or a name of hf-mae checkpoints",
    )
    parser.add_argument("destination", metavar="DST", help="the folder to write")
    parser.flag("to", choices=["auto", "pretraining", "classifier", "backbone"], default="auto")
    parser.flag("pooling", choices=["auto", "mean", "cls"], default="auto", help="of a classifier")
    parser.flag("num_labels", type=int, help="classes of a fresh head")
    parser.flag("labels", metavar="FILE", help="class names, one a line, or JSON")
    parser.flag("image_size", type=int, help="pixels; position embeddings are resized (bicubic)")
    parser.flag("num_attention_heads", type=int, help="where neither the width nor the checkpoint's args tell")
    parser.flag("decoder_num_attention_heads", type=int, help="the same for the decoder")
    parser.flag(
        "norm_pix_loss", action="store_true", default=None, help="the pre-training target was normalised patches"
    )
    parser.flag("verify", action="store_true", help="run both sides on random input and print the largest difference")
    parser.flag("overwrite", action="store_true", help="replace a destination that is not empty")
    options = vars(parser.parse_args(argv))
    _quiet()
    report = convert_checkpoint(
        resolve(options.pop("source")), options["destination"], **_without(options, "destination")
    )
    print(report.summary())
    print(f"Written to {options['destination']} (certificate: conversion.json)")
    return 0


def export(argv: list[str]) -> int:
    parser = Parser("export", "Turn transformers weights into a reference checkpoint.")
    parser.add_argument(
        "source", metavar="SRC", help="a transformers folder (ViTMAE, ViT, mean-pooling BEiT) or a Hub id"
    )
    parser.add_argument("destination", metavar="DST.pth", help="the file to write")
    parser.flag("overwrite", action="store_true", help="replace the file")
    options = parser.parse_args(argv)
    _quiet()
    architecture = export_checkpoint(options.source, options.destination, overwrite=options.overwrite)
    print(
        f"Written to {options.destination}: width {architecture.hidden_size}, {architecture.num_hidden_layers} blocks"
    )
    return 0


def _without(options: dict, name: str) -> dict:
    return {key: value for key, value in options.items() if key != name}


def _quiet() -> None:
    """transformers' bars for loading a few tensors say nothing here."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()

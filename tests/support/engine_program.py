"""Runs `MaeFinetuner` for ten updates on fixed data under any engine, once per entry of a list of options:
`engine_program.py OPTIONS.json`."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, pretrain
from hf_mae.compat.torch import exit_all_ranks
from hf_mae.training.optimizer_check import read_optimizer_settings
from support.models import TINY, TensorItems


def run(checkpoint: str, data: str, pooling: str, out: str, soft: bool = False, resume: str | None = None, **arguments):
    """Trains, evaluates 13 images, and writes model, logits and optimizer settings to `out`.

    Args:
        arguments: `FinetuningArguments`, and `resume_other`, a checkpoint to copy into `out` and resume from.
    """
    if (other_checkpoint := arguments.pop("resume_other", None)) is not None:
        resume = copy_checkpoint(Path(other_checkpoint), Path(out))
    torch.manual_seed(0)
    model = build_classifier(checkpoint, pooling=pooling, num_labels=5, **TINY)
    tensors = load_file(data)
    repeat = torch.arange(40) % len(tensors["train_pixel_values"])
    labels = tensors["train_labels"][repeat]
    if soft:
        labels = torch.nn.functional.one_hot(labels, 5) * 0.7 + 0.06
    items = TensorItems(pixel_values=tensors["train_pixel_values"][repeat], labels=labels)
    pixel_values = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    eval_dataset = TensorItems(pixel_values=pixel_values, labels=torch.arange(13) % 5)
    defaults = {"num_train_epochs": 2, "warmup_epochs": 0.4, "drop_path": 0.0, "layer_decay": 0.65}
    defaults |= {"learning_rate": 1e-3, "train_sampling_strategy": "sequential", "use_cpu": True, "report_to": "none"}
    defaults |= {"class_weights": [1.0, 2.0, 0.5, 1.5, 3.0], "smoothing": 0.0, "disable_tqdm": True}
    args = FinetuningArguments(output_dir=out, **(defaults | {"save_strategy": "no"} | arguments))
    trainer = MaeFinetuner(model=model, args=args, train_dataset=items, eval_dataset=eval_dataset)
    counter = UpdateCounter()
    trainer.add_callback(counter)
    trainer.train(resume_from_checkpoint=resume)
    settings = read_optimizer_settings(trainer.accelerator.unwrap_model(trainer.model), trainer.optimizer)
    predicted = trainer.predict(eval_dataset)
    trainer.save_model()
    saved_logits = trainer.predict_logits(eval_dataset)
    assert trainer.accelerator.mixed_precision != "no" or np.array_equal(saved_logits, predicted.predictions)
    if trainer.is_world_process_zero():
        np.save(Path(out) / "saved_logits.npy", saved_logits)
        np.save(Path(out) / "logits.npy", predicted.predictions)
        np.save(Path(out) / "labels.npy", predicted.label_ids)
        facts = {"settings": settings, "engine": trainer.accelerator.distributed_type.value}
        facts |= {"updates": trainer.state.global_step, "best": trainer.state.best_model_checkpoint}
        facts["updates_here"] = counter.updates
        (Path(out) / "facts.json").write_text(json.dumps(facts))


class UpdateCounter(TrainerCallback):
    """Counts the updates of this process."""

    updates = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.updates += 1


def copy_checkpoint(checkpoint: Path, folder: Path) -> str:
    """Copies a checkpoint into another folder, once for all processes."""
    target = folder / checkpoint.name
    if os.environ.get("RANK", "0") == "0":
        shutil.copytree(checkpoint, target)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return str(target)


if __name__ == "__main__":
    for options in json.loads(Path(sys.argv[1]).read_text()):
        if "pretrain" in options:
            pretrain(**options["pretrain"], output_dir=options["out"])
        else:
            run(**options)
    exit_all_ranks(0)

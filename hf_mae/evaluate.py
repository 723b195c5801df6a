"""`hf-mae evaluate`: the scores of a fine-tuned model on a split, through the Trainer (so under accelerate too)."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .arguments import DataSourceArguments, FinetuningArguments
from .data import EvaluationImages, load_splits
from .data.sources import description
from .engines import whole_weights
from .errors import UsageError
from .models import load_classifier
from .recipe import parse
from .results import score_split, table, write_json, write_split
from .runs import set_up_logging
from .temperature import before_and_after, fit_and_write, read_temperature, sentence
from .trainer import MaeFinetuner
from .views import average_views


@dataclass
class EvaluationArguments(DataSourceArguments):
    """What is evaluated on what."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "A fine-tuned model: a folder or a Hub id."})
    split: str = field(default="validation", metadata={"help": "train, validation or test."})
    output_dir: str | None = field(default=None, metadata={"help": "Where scores, predictions and figures go."})
    batch_size: int = field(default=64, metadata={"help": "Images per process and forward pass."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16; scores then differ in the third digit."})
    seed: int = field(default=0, metadata={"help": "Of val_fraction, as in training."})
    num_workers: int = field(default=0, metadata={"help": "Processes that load images."})
    tta: bool = field(default=False, metadata={"help": "Average the scores over eight turned and mirrored views."})
    temperature: str | None = field(
        default=None, metadata={"help": "Divide the logits: a number, a temperature.json, or a folder with one."}
    )
    fit_temperature: bool = field(
        default=False, metadata={"help": "Fit the temperature on this split, and write it into the output folder."}
    )


def main(argv: list[str]) -> int:
    (options,), _ = parse(
        "evaluate",
        "Score a fine-tuned model on a split.",
        [EvaluationArguments],
        argv,
        required=("model_name_or_path", "data_dir"),
    )
    with tempfile.TemporaryDirectory() as unused:  # the Trainer wants an output folder, and leaves nothing in it
        return evaluate(options, unused)


def evaluate(options: EvaluationArguments, trainer_dir: str) -> int:
    args = FinetuningArguments(
        output_dir=trainer_dir,
        per_device_eval_batch_size=options.batch_size,
        dataloader_num_workers=options.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not torch.accelerator.is_available(),
        bf16=options.bf16,
        report_to="none",
    )
    set_up_logging(args.process_index == 0)
    if options.fit_temperature and (options.temperature or not options.output_dir):
        raise UsageError("--fit_temperature writes temperature.json into --output_dir, and goes without --temperature.")
    scale = read_temperature(options.temperature, options.tta) if options.temperature else 1.0
    with whole_weights():
        model, processor = load_classifier(options.model_name_or_path)
    if options.tta:
        average_views(model)
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    with args.main_process_first(desc="reading the images"):
        splits = load_splits(options, options.seed, label_names=names)
    classes = splits[next(iter(splits))].features["labels"].names
    if classes != names:
        raise UsageError(
            f"{options.model_name_or_path} has other classes than {options.benchmark}, or in another order: "
            f"{', '.join(sorted(set(names) ^ set(classes))) or 'the order differs'}."
        )
    if options.split not in splits:
        raise UsageError(f"{options.data_dir} has no split {options.split}; it has {', '.join(splits)}.")
    images = EvaluationImages(splits[options.split], processor, cache=False)
    trainer = MaeFinetuner(model=model, args=args)
    output = trainer.predict(images)
    if trainer.is_world_process_zero():
        logits, labels = output.predictions, output.label_ids
        folder = Path(options.output_dir) if options.output_dir else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        calibrated = None
        if options.fit_temperature:
            calibrated = fit_and_write(folder, logits, labels, options.split, options.tta)
        elif options.temperature:
            calibrated = {"temperature": scale} | before_and_after(logits, labels, scale)
        if calibrated:
            logits = logits / calibrated["temperature"]
        if folder:
            scores = write_split(folder, options.split, images, logits, labels, names)
            facts = {
                "model": options.model_name_or_path,
                "source": description(options),
                "images": {split: len(dataset) for split, dataset in splits.items()},
                "averaged_views": options.tta,
                "temperature_scaling": calibrated,
            }
            write_json(folder / f"results_{options.split}.json", scores | facts)
        else:
            scores = score_split(logits, labels, names)
        print(table({options.split: scores}))
        if calibrated:
            print(sentence(calibrated, options.split))
            if options.fit_temperature:
                print(f"It was fitted on these very images. --temperature {folder} uses it in evaluate and predict.")
    return 0

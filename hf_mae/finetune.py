"""`hf-mae finetune`: load data, build the model, train, evaluate, save."""

import logging
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from PIL import Image
from transformers import AutoConfig, set_seed
from transformers.integrations import is_tensorboard_available

from . import figures
from .arguments import DataArguments, FinetuningArguments, ModelArguments
from .checkpoints import resolve
from .data import BENCHMARKS, EvaluationImages, TrainingImages, image_processor, load_splits, training_transform
from .data.sources import description
from .data.transforms import parse_mean_std
from .errors import UsageError
from .hub import push_when_done
from .leakage import warn_of_seen
from .modelcard import write_model_card
from .models import build_classifier
from .recipe import parse, recipe_as_run
from .report import write_report
from .results import table, write_json, write_split
from .runs import hardware, refuse_another_model, set_up_logging, settle_resume, train, versions
from .temperature import fit_and_write, sentence
from .trackers import kept_open, log_picture
from .trainer import MaeFinetuner

logger = logging.getLogger(__name__)

# Where the verb's defaults differ from the dataclass's: it evaluates and keeps the best epoch.
DEFAULTS = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
    "greater_is_better": True,
}


HUGE = 1280  # width of a ViT-H
HELD_OUT = ("selection", "validation", "test")


def machine_defaults() -> dict:
    """Settings that depend on the machine and change no result."""
    gpu = torch.cuda.is_available()
    return {
        "use_cpu": not torch.accelerator.is_available(),  # said outright, or transformers refuses bf16 there
        "dataloader_pin_memory": gpu,
        "dataloader_num_workers": min(8, torch.get_num_threads()) if gpu else 0,
        "report_to": "tensorboard" if is_tensorboard_available() else "none",
    }


def own_label_names(model_name_or_path: str) -> list[str] | None:
    """The class names of a saved classifier, in the order of its head; None where there are none."""
    path = resolve(model_name_or_path)
    if Path(path).is_file():
        return None
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError):
        return None  # whoever builds the model says what is wrong
    names = [config.id2label[index] for index in sorted(config.id2label)]
    return None if not names or names[0] == "LABEL_0" else names


def main(argv: list[str]) -> int:
    (model_args, data_args, args), given = parse(
        "finetune",
        "Fine-tune an MAE checkpoint on labelled images.",
        [ModelArguments, DataArguments, FinetuningArguments],
        argv,
        DEFAULTS | machine_defaults(),
        required=("model_name_or_path", "data_dir", "output_dir"),
    )
    set_up_logging(args.process_index == 0)
    pushes = push_when_done(args)
    with args.main_process_first(desc="reading the images"):
        splits = load_splits(data_args, args.seed, own_label_names(model_args.model_name_or_path))
    scores = finetune(model_args, data_args, args, given, splits)
    if args.process_index == 0:
        if scores:
            print(table(scores))
        if scores and data_args.benchmark:
            print(f"\n{write_report([args.output_dir], Path(args.output_dir))}")
        print(f"The model, its card, predictions and figures are in {args.output_dir}")
        pushes()
    return 0


def warn_of_fp16(fp16: bool, hidden_size: int) -> None:
    if fp16 and hidden_size >= HUGE:
        logger.warning("fp16 is known to give NaN with a ViT-H: use --bf16.")


def finetune(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FinetuningArguments,
    given: dict[str, Any],
    splits: DatasetDict,
) -> dict[str, dict[str, Any]]:
    """One run, from the splits to the output folder.

    Args:
        given: what recipe and flags gave, for `recipe.yaml`.
        splits: `train`, and perhaps `selection` (which chooses the epoch), `validation` (which does where there is no
            `selection`) and `test`.

    Returns:
        The scores by split, of `metrics.classification_scores`; empty on processes other than the main one.
    """
    checkpoint = settle_resume(args)
    if "train" not in splits:
        raise UsageError(f"{data_args.data_dir} has no training split; it has {', '.join(splits)}.")
    names = splits["train"].features["labels"].names
    sizes = {split: len(dataset) for split, dataset in splits.items()}
    logger.info("%d classes (%s); images: %s", len(names), ", ".join(names), sizes)
    judge = next((split for split in ("selection", "validation") if split in splits), None)
    if judge is None:
        logger.warning(
            "There is no validation split (pass --val_fraction 0.1 to hold one out): the last epoch is kept, unjudged."
        )
        args.eval_strategy, args.load_best_model_at_end = type(args.eval_strategy)("no"), False
        args.early_stopping_patience = None

    set_seed(args.seed)  # of the fresh head
    model = build_classifier(
        resolve(model_args.model_name_or_path),
        pooling=model_args.pooling,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        image_size=model_args.image_size,
        drop_path=0.0 if args.freeze_backbone else args.drop_path,
        num_attention_heads=model_args.num_attention_heads,
        random_weights=model_args.random_weights,
    )
    logger.info(model.conversion_report.summary())
    if checkpoint:
        refuse_another_model(checkpoint, model.config)
    warn_of_fp16(args.fp16, model.config.hidden_size)
    seen = None
    if not model_args.random_weights and args.process_index == 0:
        others = DatasetDict({split: splits[split] for split in HELD_OUT if split in splits})
        workers = data_args.preprocessing_num_workers
        seen = warn_of_seen(resolve(model_args.model_name_or_path), others, Path(args.output_dir), workers)
    with args.main_process_first(desc="preparing the images"):
        training_images, held_out, processor = prepare_images(splits, data_args, model.config.image_size, args.seed)
    trainer = MaeFinetuner(
        model=model,
        args=args,
        train_dataset=training_images,
        eval_dataset=held_out.get(judge),
        processing_class=processor,
    )
    folder = Path(args.output_dir)
    with kept_open(trainer):
        result, seconds = train(trainer, checkpoint)
        trainer.save_model()
        trainer.save_state()
        outputs = {split: trainer.predict(dataset, metric_key_prefix=split) for split, dataset in held_out.items()}
        if not trainer.is_world_process_zero():
            return {}
        scores = {
            split: write_split(folder, split, held_out[split], output.predictions, output.label_ids, names)
            for split, output in outputs.items()
        }
        figures.learning_curves(trainer.state.log_history, folder / "learning_curves")
        for path in sorted(folder.glob("*.png")):
            with Image.open(path) as picture:
                log_picture(trainer, path.stem, picture.convert("RGB"), result.global_step)
    best = trainer.state.best_model_checkpoint
    calibration = None
    if judge:
        calibration = fit_and_write(folder, outputs[judge].predictions, outputs[judge].label_ids, judge, False)
        logger.info(
            "For scores that say how often they are right, --temperature %s: %s", folder, sentence(calibration, judge)
        )
    selection, chosen_on = "The weights are those of the last epoch.", None
    if args.load_best_model_at_end and best:
        chosen_on = judge
        selection = (
            f"The weights are those of the epoch with the best {args.metric_for_best_model} on the {judge} "
            f"split ({Path(best).name} of {trainer.state.max_steps} updates), so its own figures are optimistic."
        )
    facts = {"effective batch": args.images_per_update, "processes": args.world_size, "versions": versions()}
    recipe = recipe_as_run(given, facts)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    write_model_card(
        folder,
        base=model_args.base,
        data=data_args.data_dir,
        model=model,
        scores=scores,
        sizes=sizes,
        recipe=recipe,
        training=f"{result.global_step} updates in {seconds / 60:.1f} minutes on {hardware()}; {versions()}.",
        selection=selection,
        calibration=calibration,
        seen=seen,
        benchmark=BENCHMARKS.get(data_args.benchmark),
    )
    training = {
        **result.metrics,
        "seconds": round(seconds, 1),
        "updates": result.global_step,
        "best_checkpoint": best,
        "learning_rate": args.learning_rate,
        "effective_batch_size": args.images_per_update,
    }
    facts = {
        "base": model_args.base,
        "seen_in_pretraining": seen,
        "source": description(data_args),
        "images": sizes,
        "weights": selection,
        "chosen_on": chosen_on,
        "hardware": hardware(),
        "versions": versions(),
    }
    write_json(folder / "all_results.json", scores | {"train": training} | facts)  # the last: a run that has it is done
    return scores


def prepare_images(splits: DatasetDict, data_args: DataArguments, size: int, seed: int):
    """The training images, the held-out images by split, and the image processor that goes with the model."""
    mean, std = parse_mean_std(data_args.mean_std, data_args.transforms, splits["train"], size)
    processor = image_processor(data_args.transforms, size, mean, std)
    transform = training_transform(
        data_args.transforms,
        size,
        mean,
        std,
        auto_augment=data_args.auto_augment,
        random_erasing=data_args.random_erasing,
        cache_shortest_edge=data_args.kept_shortest_edge(size),
    )
    if data_args.transforms == "imagenet" and transform.resize is not None:
        logger.info(
            "Crops are cut from images kept with a shorter side of at most %d pixels (--cache_shortest_edge 0: from "
            "the files themselves, slower).",
            transform.resize.shortest_edge,
        )
    workers = data_args.preprocessing_num_workers
    batched = torch.cuda.is_available()
    training_images = TrainingImages(splits["train"], transform, seed, data_args.cache, workers, batched=batched)
    held_out = {
        split: EvaluationImages(splits[split], processor, data_args.cache, workers)
        for split in HELD_OUT
        if split in splits
    }
    return training_images, held_out, processor

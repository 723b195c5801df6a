"""`hf-mae pretrain`: masked pre-training on unlabelled images, from scratch or from a checkpoint."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import set_seed

from .arguments import PretrainingArguments
from .checkpoints import RANDOM_WEIGHTS, resolve
from .data import EvaluationImages, TrainingImages
from .data.folders import load_unlabelled
from .data.transforms import image_processor, parse_mean_std, pretraining_transform
from .errors import UsageError
from .finetune import machine_defaults
from .hub import push_when_done
from .leakage import leave_out, record_hashes, write_record
from .modelcard import write_pretraining_card
from .models import build_pretrainer
from .recipe import parse, recipe_as_run
from .reconstruct import ReconstructionSheets
from .results import write_json
from .runs import hardware, refuse_another_model, set_up_logging, settle_resume, train, versions
from .trainer import MaePretrainer

logger = logging.getLogger(__name__)

WATCHED = 8  # images on a sheet of reconstructions


@dataclass
class PretrainingModelArguments:
    """What to start from: a checkpoint, or sizes for a model from scratch."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "An MAE .pth, a converted folder or a Hub id; not given: from scratch."}
    )
    size: str = field(
        default="vit_base_patch16",
        metadata={"help": "From scratch: vit_{tiny,small,base,large}_patch16, vit_huge_patch14."},
    )
    image_size: int | None = field(default=None, metadata={"help": "Pixels; from scratch 224."})
    patch_size: int | None = field(default=None, metadata={"help": "From scratch."})
    hidden_size: int | None = field(default=None, metadata={"help": "From scratch: width of the encoder."})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "From scratch: blocks of the encoder."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Where the width does not tell."})
    decoder_hidden_size: int | None = field(default=None, metadata={"help": "From scratch."})
    decoder_num_hidden_layers: int | None = field(default=None, metadata={"help": "From scratch."})
    decoder_num_attention_heads: int | None = field(default=None, metadata={"help": "Where the width does not tell."})

    def scratch_sizes(self) -> dict[str, int]:
        names = ("patch_size", "hidden_size", "num_hidden_layers", "decoder_hidden_size", "decoder_num_hidden_layers")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if given and self.model_name_or_path:
            raise UsageError(
                f"--{next(iter(given))} is for a model from scratch: {self.model_name_or_path} has its own."
            )
        if "hidden_size" in given:
            given["intermediate_size"] = 4 * given["hidden_size"]
        if "decoder_hidden_size" in given:
            given["decoder_intermediate_size"] = 4 * given["decoder_hidden_size"]
        return given


@dataclass
class PretrainingDataArguments:
    """Where the images are."""

    data_dir: str | None = field(default=None, metadata={"help": "A folder tree of images; labels are not needed."})
    transforms: str = field(
        default="endoscopy", metadata={"help": "Family of transforms.", "choices": ["endoscopy", "imagenet"]}
    )
    mean_std: list[str] | None = field(default=None, metadata={"help": "As for finetune."})
    exclude: list[str] | None = field(
        default=None,
        metadata={
            "help": "What will be evaluated later, and so is left out: image files, folders, globs, and lists of file "
            "names (CSV, JSONL, TXT; LIST:SPLIT for one split, as in 2_fold_split.csv:1)."
        },
    )
    exclude_by: list[str] = field(
        default_factory=lambda: ["name", "hash"],
        metadata={"help": "How those are told: by file name, by perceptual hash.", "choices": ["name", "hash"]},
    )
    on_bad_image: str = field(default="error", metadata={"help": "error or skip.", "choices": ["error", "skip"]})
    cache_shortest_edge: int | None = field(
        default=None,
        metadata={"help": "Keep images decoded on disk, their shorter side at most this; not given: no cache."},
    )
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Threads that check the images."})
    reconstruction_steps: int = field(
        default=500, metadata={"help": "Updates between sheets of reconstructions in the output folder; 0: none."}
    )


def main(argv: list[str]) -> int:
    (model_args, data_args, args), given = parse(
        "pretrain",
        "Pre-train a masked autoencoder on unlabelled images.",
        [PretrainingModelArguments, PretrainingDataArguments, PretrainingArguments],
        argv,
        {"save_strategy": "steps", "save_steps": 0.05, "save_total_limit": 2} | machine_defaults(),
        required=("data_dir", "output_dir"),
    )
    set_up_logging(args.process_index == 0)
    pushes = push_when_done(args)
    checkpoint = settle_resume(args)
    with args.main_process_first(desc="reading the images"):
        workers = data_args.preprocessing_num_workers
        # With a cache all are decoded now; else what the ends of the files do not tell shows in training.
        decode = data_args.cache_shortest_edge is not None
        images, excluded = load_unlabelled(data_args.data_dir, data_args.on_bad_image, workers, decode=decode), []
        if data_args.exclude:
            images, excluded = leave_out(images, data_args.exclude, data_args.exclude_by, workers)
    set_seed(args.seed)  # of a model from scratch
    model = build_pretrainer(
        model_args.model_name_or_path and resolve(model_args.model_name_or_path),
        size=model_args.size,
        image_size=model_args.image_size,
        mask_ratio=args.mask_ratio,
        norm_pix_loss=args.norm_pix_loss,
        num_attention_heads=model_args.num_attention_heads,
        decoder_num_attention_heads=model_args.decoder_num_attention_heads,
        **model_args.scratch_sizes(),
    )
    if checkpoint:
        refuse_another_model(checkpoint, model.config)
    logger.info(
        "%d images; %s", len(images), model.conversion_report.summary() if model.conversion_report else "from scratch"
    )
    size = model.config.image_size
    mean, std = parse_mean_std(data_args.mean_std, data_args.transforms, images, size)
    with args.main_process_first(desc="preparing the images"):
        transform = pretraining_transform(
            data_args.transforms, size, mean, std, cache_shortest_edge=data_args.cache_shortest_edge
        )
        training_images = TrainingImages(
            images, transform, args.seed, num_workers=workers, on_bad_image=data_args.on_bad_image
        )
    processor = image_processor(data_args.transforms, size, mean, std)
    trainer = MaePretrainer(model=model, args=args, train_dataset=training_images, processing_class=processor)
    if data_args.reconstruction_steps > 0:
        watched = EvaluationImages(images.select(range(min(WATCHED, len(images)))), processor, cache=False)
        pixel_values = torch.stack([watched[index]["pixel_values"] for index in range(len(watched))])
        trainer.add_callback(
            ReconstructionSheets(trainer, pixel_values, data_args.reconstruction_steps, mean=mean, std=std)
        )
    folder = Path(args.output_dir)
    if trainer.is_world_process_zero():
        write_record(folder, images, excluded)
    result, seconds = train(trainer, checkpoint)
    trainer.save_model()
    trainer.save_state()
    if trainer.is_world_process_zero():
        record_hashes(folder, images, workers)
        recipe = recipe_as_run(given, {"effective batch": args.images_per_update})
        (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
        base = model_args.model_name_or_path or RANDOM_WEIGHTS
        write_pretraining_card(
            folder,
            base=base,
            data=data_args.data_dir,
            model=model,
            images=len(images),
            excluded=len(excluded),
            recipe=recipe,
            training=f"{result.global_step} updates in {seconds / 60:.1f} minutes on {hardware()}; {versions()}.",
        )
        facts = {
            "base": base,
            "data_dir": str(Path(data_args.data_dir).resolve()),
            "images": len(images),
            "excluded": len(excluded),
            "seconds": round(seconds, 1),
            "hardware": hardware(),
            "versions": versions(),
        }
        write_json(folder / "all_results.json", {"train": result.metrics} | facts)
        print(f"The pre-trained model is in {folder}; fine-tune it with hf-mae finetune --model_name_or_path {folder}")
        pushes()
    return 0

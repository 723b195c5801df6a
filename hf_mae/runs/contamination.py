"""Contamination: evaluated images that the checkpoint of a run was pre-trained on."""

from pathlib import Path

from datasets import DatasetDict

from ..data.checks.contamination import find_pretraining_image_list, find_seen_in_pretraining, warn_about_contamination
from ..data.splits import EVAL_SPLITS
from ..models.model_zoo import resolve_checkpoint
from ..settings.models import ModelArguments
from .record_io import find_run_record


def count_seen_in_pretraining(
    options: ModelArguments, splits: DatasetDict, folder: Path, num_workers: int | None = None
) -> dict[str, int] | None:
    """Counts the evaluated images in the pre-training data of the checkpoint, by split; None if unknown.

    Args:
        options: the checkpoint.
        folder: the output folder, for the list of these images.
        num_workers: threads that decode images.
    """
    if options.random_weights:
        return None
    base = resolve_checkpoint(options.model_name_or_path or "")
    image_list = find_pretraining_image_list(base)
    if image_list is None:
        return None
    pretraining_record = find_run_record(image_list.parent)
    root = Path(pretraining_record.data.data_dir) if pretraining_record and pretraining_record.data.data_dir else None
    eval_splits = DatasetDict({split: splits[split] for split in EVAL_SPLITS if split in splits})
    matches = find_seen_in_pretraining(image_list, root, eval_splits, num_workers)
    return warn_about_contamination(base, matches, eval_splits, folder)

"""`push-dataset`: pushes a labelled dataset, with its splits and patients, to the Hugging Face Hub as parquet."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from ..data.columns import get_column
from ..data.sources.split_loading import read_splits
from ..errors import warn
from ..runs.identifiers import PSEUDONYMS_FILE, NameRules, Pseudonyms
from ..settings.benchmarks import find_benchmark
from ..settings.licences import check_stated_licence
from ..settings.parse import Settings
from ..settings.push import PushDatasetArguments
from ..sharing import hub
from ..sharing.dataset_export import write_parquet_dataset
from ..sharing.published_files import check_class_names, report_identifiers
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@command("push-dataset")
def push_dataset(settings: Settings) -> str:
    """Writes a dataset as parquet, and pushes it.

    Returns:
        The URL of the repository, or the output folder if nothing is pushed.
    """
    options = settings.options
    name = Path(options.repo_id or options.output_dir or options.data_dir).name
    if options.output_dir and not options.repo_id:
        _write(options, Path(options.output_dir), name)
        return str(options.output_dir)
    repo_id, exists = hub.check_target(options.repo_id, options.update, name, "dataset")  # before the data is read
    if options.output_dir:
        return _push(options, Path(options.output_dir), repo_id, exists)
    with tempfile.TemporaryDirectory(prefix="hf_mae-") as folder:
        return _push(options, Path(folder), repo_id, exists)


def _push(options: PushDatasetArguments, folder: Path, repo_id: str, exists: bool) -> str:
    files = _write(options, folder, repo_id.partition("/")[2])
    return hub.push_files(
        {file.as_posix(): folder / file for file in files},
        repo_id,
        exists=exists,
        private=options.private,
        message="Images, labels, splits",
        repo_type="dataset",
    )


def _write(options: PushDatasetArguments, folder: Path, name: str) -> list[Path]:
    splits = read_splits(options, options.seed)
    metadata: dict[str, Any] = {"license": options.license and check_stated_licence(options.license, None)}
    if options.benchmark:
        benchmark = find_benchmark(options.benchmark)
        metadata["description"] = f"{benchmark.title}. Licence: {benchmark.licence}. Please cite: {benchmark.citation}"
    first = next(iter(splits.values()))
    if "group" not in first.column_names:
        warn(logger, WorkflowMessage.PUSH_WITHOUT_GROUPS)
    groups = {group for dataset in splits.values() for group in get_column(dataset, "group") or []}
    rules = NameRules.from_data(first.features["labels"].names, map(str, groups))
    key = Path(options.pseudonym_key or f"{os.path.normpath(options.output_dir or name)}_{PSEUDONYMS_FILE}")
    pseudonyms = Pseudonyms.open(key, rules)
    used = None if options.allow_identifiers else pseudonyms
    files = write_parquet_dataset(splits, folder, name, metadata, options.overwrite, used)
    if used is None:
        for group in groups:
            pseudonyms.code(group)
    else:
        check_class_names(rules, first.features["labels"].names)
        pseudonyms.save()
    report_identifiers(pseudonyms, options.allow_identifiers)
    return files

"""Publishes runs and other files on the Hugging Face Hub, in one commit."""

import fnmatch
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    CommitOperationAdd,
    EvalResultEntry,
    HfApi,
    ModelCard,
    constants,
    eval_result_entries_to_yaml,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ..errors import UsageError, pluralize, summarize_exception
from ..evaluation.metrics import available_metric_names
from ..reporting.model_card import parse_hub_id
from ..runs.record import ALL_RESULTS, RUN_STARTED, RunRecord, run_name
from ..runs.record_io import read_record
from ..settings.commands import command_options
from ..settings.inputs import looks_like_path
from ..settings.metrics import METRICS
from ..settings.yaml_files import parse_yaml
from .messages import SharingMessage

logger = logging.getLogger(__name__)
# Settings that are paths, in addition to those whose value is a FILE or PATH in the help.
PATH_SETTINGS = ("model_name_or_path", "data_dir", "output_dir", "teacher", "class_map")
# Files for resuming a run, and files of trackers.
UNPUBLISHED_PATTERNS = (
    *("checkpoint-*", "runs", "*.bin", "*.pt", "*.pth", "trainer_state.json", ".*", "seed-*", "fold-*"),
    RUN_STARTED,
)


def list_published_files(run: Path, ignore_patterns: list[str] | None = None) -> list[Path]:
    """Lists the files of a run that are published, relative to its folder.

    Args:
        ignore_patterns: patterns of other files to exclude, such as `predictions_*.csv`.

    Raises:
        UsageError: If the folder is not a completed run.
    """
    for name in ("config.json", "model.safetensors", "README.md", ALL_RESULTS):
        if not (run / name).is_file():
            raise UsageError(SharingMessage.RUN_NOT_COMPLETED, run=run, file=name)
    read_record(run)  # raises UsageError if it is invalid
    patterns = [*UNPUBLISHED_PATTERNS, *(ignore_patterns or [])]

    def is_published(path: Path) -> bool:
        return not any(fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in patterns)

    return sorted(path for file in run.rglob("*") if file.is_file() and is_published(path := file.relative_to(run)))


@contextmanager
def _reraise_as_usage_error(repo_id: str) -> Iterator[None]:
    """Converts errors of the Hub and the network to UsageError."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise UsageError(SharingMessage.TOKEN_MISSING) from None
    except OfflineModeIsEnabled:
        raise UsageError(SharingMessage.HUB_OFFLINE) from None
    except HFValidationError as error:
        raise UsageError(SharingMessage.INVALID_REPO_ID, repo_id=repo_id, reason=error) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = " ".join(error.server_message.split()) if error.server_message else summarize_exception(error)
        if status == 401:
            raise UsageError(SharingMessage.TOKEN_REJECTED, reason=reason) from None
        if status == 403:
            raise UsageError(SharingMessage.TOKEN_WITHOUT_WRITE_ACCESS, repo_id=repo_id, reason=reason) from None
        raise UsageError(SharingMessage.HUB_ERROR, status=status, repo_id=repo_id, reason=reason) from None
    except (HTTPError, ConnectionError) as error:
        raise UsageError(SharingMessage.HUB_UNREACHABLE, url=constants.ENDPOINT, reason=error) from None
    except RuntimeError as error:  # raised by an upload thread
        raise UsageError(SharingMessage.UPLOAD_FAILED, repo_id=repo_id, reason=error.__cause__ or error) from None


def check_target(
    repo_id: str | None, update: bool = False, default_name: str = "", repo_type: str = "model"
) -> tuple[str, bool]:
    """Checks the token and the target repository; writes nothing.

    Args:
        repo_id: `USER/NAME`, or `NAME` for the owner of the token; None: `default_name`.
        update: allow a repository that contains files.
        default_name: name of the repository if `repo_id` is not given.
        repo_type: `model`, `dataset` or `space`.

    Returns:
        The complete name `USER/NAME`, and whether the repository exists.

    Raises:
        UsageError: If the token is missing or invalid, the Hub cannot be reached, or the repository contains files.
    """
    api = HfApi()
    name = repo_id or default_name
    with _reraise_as_usage_error(name):
        user = api.whoami()["name"]
        name = name if "/" in name else f"{user}/{name}"
        try:
            info: Any = api.repo_info(name, repo_type=repo_type)
        except RepositoryNotFoundError:
            return name, False
    files = [sibling.rfilename for sibling in info.siblings or [] if sibling.rfilename != ".gitattributes"]
    if files and not update:
        raise UsageError(SharingMessage.REPOSITORY_NOT_EMPTY, repo_id=name, count=len(files))
    return name, True


def push_run(
    run: str | Path,
    repo_id: str | None = None,
    *,
    private: bool = False,
    update: bool = False,
    ignore_patterns: list[str] | None = None,
) -> str:
    """Uploads a completed run in one commit. Files that an interrupted push has uploaded are not sent again.

    Args:
        run: an output folder of finetune or pretrain.
        repo_id: `USER/NAME`; default: the name of the folder, for the owner of the token.
        update: add a commit to a repository that contains files.
        ignore_patterns: patterns of files that are not uploaded.

    Returns:
        The URL of the repository.

    Raises:
        UsageError: If the run is not complete, or the upload fails.
    """
    folder = Path(run)
    files = list_published_files(folder, ignore_patterns)
    name, exists = check_target(repo_id, update, run_name(folder))
    record, recipe_path = read_record(folder), folder / "recipe.yaml"
    recipe = recipe_path.read_text(encoding="utf-8") if recipe_path.is_file() else ""
    portable = _make_portable(recipe, record.kind)
    changed = {"README.md": _make_hub_card(folder, name, recipe, portable), "recipe.yaml": portable.encode()}
    contents = {path.as_posix(): changed.get(path.as_posix(), folder / path) for path in files}
    if (results := _eval_results(record)) is not None:
        contents[f"{constants.EVAL_RESULTS_FOLDER}/hf_mae.yaml"] = results
    message = f"Model, card, figures and results of {folder.name}"
    if tables := [str(path) for path in files if path.suffix == ".csv"]:
        logger.info("Files that contain image names: %s (exclude: --ignore_patterns '*.csv').", ", ".join(tables))
    return push_files(contents, name, exists=exists, private=private, message=message)


def push_files(
    contents: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    exists: bool,
    private: bool,
    message: str,
    repo_type: str = "model",
    space_sdk: str | None = None,
) -> str:
    """Uploads files in one commit: the repository changes only after all files are uploaded.

    Args:
        contents: files or bytes, by the path in the repository.
        repo_id, exists: result of `check_target`.
        repo_type: `model`, `dataset` or `space`.

    Returns:
        The URL of the repository.

    Raises:
        UsageError: If the Hub or the network reports an error.
    """
    api = HfApi()
    operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
    with _reraise_as_usage_error(repo_id):
        if not exists:
            api.create_repo(repo_id, private=private, repo_type=repo_type, space_sdk=space_sdk)
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type)
    megabytes = sum(operation.upload_info.size for operation in operations) / 1e6
    logger.info("Uploaded %s (%.1f MB): %s", pluralize(len(contents), "file"), megabytes, ", ".join(contents))
    logger.info("Commit %s", commit.oid)
    return f"{constants.ENDPOINT}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def _make_portable(recipe: str, kind: str) -> str:
    """Turns the local paths of a recipe of a command into comments, so that it can be used on another machine."""
    options = command_options(kind)
    lines = [line for line in recipe.splitlines() if line.startswith("#")]
    for name, value in parse_yaml(recipe.encode(), Path("recipe.yaml")).items():
        texts = [str(text) for text in (value if isinstance(value, list) else [value])]
        is_path = name in PATH_SETTINGS or (name in options and options[name].metavar in ("FILE", "PATH"))
        if name in ("model_name_or_path", "data_dir", "benchmark"):
            is_path = any(looks_like_path(text) or Path(text).exists() for text in texts)
        names = " ".join(Path(text).name for text in texts)
        entry = yaml.safe_dump({name: value}, allow_unicode=True).rstrip()
        entry = f"# {entry}" if name == "data_fingerprint" else entry
        lines.append(f"# {name}: your path (in the original run: {names})" if is_path else entry)
    return "\n".join(lines) + "\n"


def _eval_results(record: RunRecord) -> bytes | None:
    """Formats the scores on a Hub dataset in the format of the Hub; None for other data."""
    data = parse_hub_id(record.data.data_dir)
    if data is None:
        return None
    entries = [
        EvalResultEntry(
            dataset_id=data, task_id=split, value=round(scores[name], 6), notes=f"{METRICS[name].title}, {split}"
        )
        for split, scores in record.scores.items()
        for name in available_metric_names(scores)
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False).encode() if entries else None


def _make_hub_card(folder: Path, repo_id: str, recipe: str, portable: str) -> bytes:
    """Builds the model card with the repository name in its code snippets, and with the portable recipe."""
    card = ModelCard.load(folder / "README.md")
    text = card.text.replace(recipe.strip(), portable.strip()) if recipe else card.text
    for snippet in ('model="{}"', "--model_name_or_path {} "):
        text = text.replace(snippet.format(run_name(folder)), snippet.format(repo_id))
    card.text = text
    return str(card).encode()


def schedule_push(args) -> Callable[[], None]:
    """Implements `--push_to_hub`: checks before training that the push is possible, and returns a function that pushes.

    Replaces the push of the Trainer, which uploads every checkpoint but no figures.

    Args:
        args: `TrainingArguments`; uses `hub_model_id` and `hub_private_repo`.
    """
    if not args.push_to_hub:
        return lambda: None
    args.push_to_hub = False
    if args.process_index != 0:
        return lambda: None
    resumed = bool(args.resume_from_checkpoint)
    name, _ = check_target(args.hub_model_id, resumed, run_name(args.output_dir))
    logger.info("The run will be pushed to %s after training.", name)

    def push() -> None:
        try:
            url = push_run(args.output_dir, name, private=bool(args.hub_private_repo), update=resumed)
        except UsageError as error:
            raise UsageError(
                SharingMessage.FINISHED_BUT_NOT_PUSHED, reason=error, run=args.output_dir, repo_id=name
            ) from None
        logger.info("Pushed to %s", url)

    return push

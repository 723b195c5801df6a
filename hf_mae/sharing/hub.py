"""Publishes runs and other files on the Hugging Face Hub, in one commit."""

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
from ..runs.public_record import parse_hub_id
from ..runs.record import RunRecord, run_name
from ..runs.record_io import read_record
from ..runs.run_licences import choose_licence
from ..settings.metrics import METRICS
from ..settings.push import PublishingArguments
from .messages import SharingMessage
from .published_files import Publication, build_published_files, check_completed, open_pseudonyms

logger = logging.getLogger(__name__)


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
    options: PublishingArguments | None = None,
    private: bool = False,
    update: bool = False,
    ignore_patterns: list[str] | None = None,
    publish_images: bool = False,
) -> str:
    """Uploads the published copy of a run in one commit (`published_files`). Files that an interrupted push has
    uploaded are not sent again.

    Args:
        run: an output folder of finetune or pretrain.
        repo_id: `USER/NAME`; default: the name of the folder, for the owner of the token.
        options: licence, and identifiers of patients.
        update: add a commit to a repository that contains files.
        ignore_patterns: patterns of files that are not uploaded.
        publish_images: upload reconstructions of training images.

    Returns:
        The URL of the repository.

    Raises:
        UsageError: If the run is not complete, may not be published, or the upload fails.
    """
    folder, options = Path(run), options or PublishingArguments()
    check_completed(folder)
    record = read_record(folder)
    name, exists = check_target(repo_id, update, run_name(folder))
    licence = choose_licence(record, folder / "README.md", options.license)
    pseudonyms = open_pseudonyms(folder, options.pseudonym_key, record.classes)
    publication = Publication(folder, name, licence, options.allow_identifiers, publish_images, pseudonyms)
    build_published_files(publication, ignore_patterns)
    contents = publication.files
    if (results := _eval_results(record)) is not None:
        contents[f"{constants.EVAL_RESULTS_FOLDER}/hf_mae.yaml"] = results
    message = f"Model, card, figures and results of {name.rpartition('/')[2]}"
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

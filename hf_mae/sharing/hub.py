"""A finished run to the Hugging Face Hub, in one commit."""

import fnmatch
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, EvalResultEntry, HfApi, constants, eval_result_entries_to_yaml
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ..errors import UsageError, pluralize, summarize_exception
from ..evaluation.confusion import TITLES, available_metric_names
from ..runs.record import ALL_RESULTS, RUN_STARTED, run_name
from ..runs.record_io import read_record
from ..settings.parse import looks_like_path

logger = logging.getLogger(__name__)
# What a run needs to go on, or its tracker keeps, and nobody else can use.
LOCAL_PATH_SETTINGS = (
    "model_name_or_path",
    "data_dir",
    "output_dir",
    "manifest",
    "exclude_pairs",
    "corrections",
    "class_map",
    "teacher",
)
UNPUBLISHED_PATTERNS = (
    *("checkpoint-*", "runs", "*.bin", "*.pt", "*.pth", "trainer_state.json", ".*", "seed-*", "fold-*"),
    RUN_STARTED,
)


def list_published_files(run: Path, ignore_patterns: list[str] | None = None) -> list[Path]:
    """The files of a run that are published, relative to it.

    Args:
        ignore_patterns: patterns of others that are not, as `predictions_*.csv`.

    Raises:
        UsageError: the folder holds no finished run.
    """
    for name in ("config.json", "model.safetensors", "README.md", ALL_RESULTS):
        if not (run / name).is_file():
            raise UsageError(f"{run} is no finished run: it has no {name}.")
    read_record(run)  # of a damaged one, or another tool's, a sentence
    patterns = [*UNPUBLISHED_PATTERNS, *(ignore_patterns or [])]

    def published(path: Path) -> bool:
        return not any(fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in patterns)

    return sorted(path for file in run.rglob("*") if file.is_file() and published(path := file.relative_to(run)))


@contextmanager
def _reraise_as_usage_error(repo_id: str) -> Iterator[None]:
    """Turns what the Hub and the network say into one sentence."""
    try:
        yield
    except LocalTokenNotFoundError:
        raise UsageError("There is no Hugging Face token: run `hf auth login`, or set HF_TOKEN.") from None
    except OfflineModeIsEnabled:
        raise UsageError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it and push again.") from None
    except HFValidationError as error:
        raise UsageError(f"{repo_id} is no name of a repository: it is USER/NAME ({error}).") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = " ".join(error.server_message.split()) if error.server_message else summarize_exception(error)
        if status == 401:
            raise UsageError(f"The Hub does not accept the token ({reason}): run `hf auth login` again.") from None
        if status == 403:
            raise UsageError(f"The token may not write to {repo_id} ({reason}): it needs the write role.") from None
        raise UsageError(f"The Hub answered {status} to the push of {repo_id}: {reason}") from None
    except (HTTPError, ConnectionError) as error:
        raise UsageError(
            f"The Hub ({constants.ENDPOINT}) cannot be reached ({error}): push again when it can."
        ) from None
    except RuntimeError as error:  # of a thread that uploads
        raise UsageError(
            f"The upload to {repo_id} broke off ({error.__cause__ or error}); nothing of it is to be seen. Push again: "
            "what has come is not sent twice."
        ) from None


def check_target(
    repo_id: str | None, update: bool = False, default_name: str = "", repo_type: str = "model"
) -> tuple[str, bool]:
    """Who pushes, and whether there is room for it; nothing is written.

    Args:
        repo_id: `USER/NAME`, or `NAME` of one's own; None: `default_name`.
        update: a repository that has files already gets a commit more.
        repo_type: `model`, `dataset` or `space`.

    Returns:
        The whole `USER/NAME`, and whether it exists.

    Raises:
        UsageError: no token or a wrong one, no network, or a repository that has files already.
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
        raise UsageError(
            f"{name} exists already, with {pluralize(len(files), 'file')}: choose another --repo_id, or pass --update to "
            "add a commit to it."
        )
    return name, True


def push_run(
    run: str | Path,
    repo_id: str | None = None,
    *,
    private: bool = False,
    update: bool = False,
    ignore_patterns: list[str] | None = None,
) -> str:
    """Uploads a finished run in one commit; weights that an interrupted push has sent are not sent again.

    Args:
        run: an output folder of finetune or pretrain.
        repo_id: `USER/NAME`; not given: the folder's name, of the token's owner.
        update: add a commit to a repository that has files already.
        ignore_patterns: patterns of files that stay here.

    Returns:
        The URL of the repository.

    Raises:
        UsageError: as of `files_of` and `check_target`.
    """
    folder = Path(run)
    files = list_published_files(folder, ignore_patterns)
    name, exists = check_target(repo_id, update, run_name(folder))
    changed = {"README.md": _make_hub_card(folder, name), "recipe.yaml": _make_portable_recipe(folder / "recipe.yaml")}
    contents = {path.as_posix(): changed.get(path.as_posix()) or folder / path for path in files}
    if (results := _eval_results(folder)) is not None:
        contents[f"{constants.EVAL_RESULTS_FOLDER}/hf_mae.yaml"] = results
    message = f"Model, card, figures and results of {folder.name}"
    if named := [str(path) for path in files if path.suffix == ".csv"]:
        logger.info("%s name image files (--ignore_patterns '*.csv' keeps them here).", " and ".join(named))
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
    """Uploads files in one commit: until it is whole, nothing of it is to be seen.

    Args:
        contents: by the path in the repository.
        repo_id, exists: of `check_target`.
        space_sdk: of a Space.

    Returns:
        The URL of the repository.

    Raises:
        UsageError: what the Hub or the network says, in one sentence.
    """
    api = HfApi()
    operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
    with _reraise_as_usage_error(repo_id):
        if not exists:
            api.create_repo(repo_id, private=private, repo_type=repo_type, space_sdk=space_sdk)
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type)
    megabytes = sum(operation.upload_info.size for operation in operations) / 1e6
    logger.info("%s (%.1f MB) in one commit: %s", pluralize(len(contents), "file"), megabytes, ", ".join(contents))
    logger.info("Commit %s", commit.oid)
    return f"{constants.ENDPOINT}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def _make_portable_recipe(path: Path) -> bytes | None:
    """A recipe that another machine can follow: names of folders and files of this one become comments."""
    return _comment_out_local_paths(path.read_text(encoding="utf-8")).encode() if path.is_file() else None


def _comment_out_local_paths(text: str) -> str:
    """YAML lines of settings that are paths of this machine, as comments that say what to give."""

    def line(found: re.Match[str]) -> str:
        name, value = found[1], found[2].strip("'\" ")
        may_be_an_id = name in ("model_name_or_path", "data_dir") and not looks_like_path(value)
        if may_be_an_id and not Path(value).exists():
            return found[0]
        return f"# {name}: yours (here it was {Path(value).name})"

    return re.sub(rf"^({'|'.join(LOCAL_PATH_SETTINGS)}): (.*)$", line, text, flags=re.MULTILINE)


def _eval_results(folder: Path) -> bytes | None:
    """The scores on a data set of the Hub, in the Hub's format; None: the data is none."""
    record = read_record(folder)
    data = record.data.data_dir
    if looks_like_path(data) or "/" not in data or Path(data).exists():
        return None
    entries = [
        EvalResultEntry(dataset_id=data, task_id=split, value=round(scores[name], 6), notes=f"{TITLES[name]}, {split}")
        for split, scores in record.scores.items()
        for name in available_metric_names(scores)
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False).encode() if entries else None


def _make_hub_card(folder: Path, repo_id: str) -> bytes:
    """The model card, its snippets with the name that the model has on the Hub, its recipe without local paths."""
    text = _comment_out_local_paths((folder / "README.md").read_text(encoding="utf-8"))
    own = run_name(folder)
    for before, after in (('model="{}"', 'model="{}"'), ("--model_name_or_path {} ", "--model_name_or_path {} ")):
        text = text.replace(before.format(own), after.format(repo_id))
    return text.encode()


def schedule_push(args) -> Callable[[], None]:
    """What `--push_to_hub` asks of a training: looks before it starts whether the push can be done, and returns what
    does it at the end.

    The Trainer's own push, of every checkpoint and without the figures, is turned off.

    Args:
        args: `TrainingArguments`; `hub_model_id` and `hub_private_repo` count.
    """
    if not args.push_to_hub:
        return lambda: None
    args.push_to_hub = False
    if args.process_index != 0:
        return lambda: None
    resumed = bool(args.resume_from_checkpoint)
    name, _ = check_target(args.hub_model_id, resumed, run_name(args.output_dir))
    logger.info("The run will be pushed to %s when it is done.", name)

    def done() -> None:
        try:
            url = push_run(args.output_dir, name, private=bool(args.hub_private_repo), update=resumed)
        except UsageError as error:
            raise UsageError(
                f"The run is done, but not pushed. {error} Then: hf-mae push {args.output_dir} --repo_id {name}"
            ) from None
        logger.info("Pushed to %s", url)

    return done

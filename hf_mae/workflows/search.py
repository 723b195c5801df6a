"""`search`: hyper-parameter search on a separate selection split, and fine-tuning with the best values."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from ..data.exclusion_log import ExclusionLog
from ..data.fingerprint import data_fingerprint
from ..data.sources.split_loading import has_ordered_classes
from ..errors import CommandLineError, UsageError, warn
from ..evaluation.metrics import display_scale
from ..files.atomic import write_csv, write_json
from ..reporting import figures
from ..reporting.model_card import write_model_card
from ..runs.output_dir import lock_output_dir
from ..runs.record import ALL_RESULTS, FIGURES_DIR, DataSource, RunRecord
from ..runs.record_io import read_record, write_record
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings, parse_settings
from ..settings.search import DEFAULT_SEARCH_OPTIONS, SEARCH_SPACE, SearchArguments
from ..training.finetuner import MaeFinetuner
from ..training.search import HyperparameterSearch, format_values
from .finetune import build_model, finetune_splits, prepare_images
from .messages import WorkflowMessage
from .plan import load_data

logger = logging.getLogger(__name__)
DEFAULT_SELECTION_FRACTION = 0.2  # of the training images
BEST_DIR = "best"  # folder of the model that is trained with the best values
SETTINGS_ALLOWED_TO_DIFFER = {
    "output_dir",
    "trials",
    "disable_tqdm",
    "preprocessing_num_workers",
    "dataloader_num_workers",
}


@dataclass
class Trial:
    """A completed or pruned trial."""

    number: int
    values: dict[str, float]
    score: float
    pruned: bool = False


@dataclass
class SearchResult:
    """Result of a search.

    Args:
        trials: all trials, in their order.
        best: the best trial.
        metric: objective, computed on the selection split.
        greater_is_better: whether the objective is maximized.
        record: record of the model that was trained with the best values.
    """

    trials: list[Trial]
    best: Trial
    metric: str
    greater_is_better: bool
    record: RunRecord | None


def search(*, recipe: str | None = None, **flags: Any) -> SearchResult:
    """Searches hyper-parameters, and fine-tunes with the best values. An interrupted search resumes.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` override it.
        flags: the flags of `hf-mae search`.

    Raises:
        UsageError: If a flag, the data or the checkpoint is invalid.
    """
    settings = parse_settings("search", recipe, **flags)
    options, model_args, data_args, args = settings.arguments
    _check_search_options(options, args)
    if not data_args.selection_fraction:
        data_args = dataclasses.replace(data_args, selection_fraction=DEFAULT_SELECTION_FRACTION)
        settings.overrides["selection_fraction"] = DEFAULT_SELECTION_FRACTION
        logger.info(
            "%.0f %% of the training images are held out to evaluate the trials (--selection_fraction).",
            100 * DEFAULT_SELECTION_FRACTION,
        )
    splits, exclusion_log = load_data(model_args, data_args, args.seed)
    if not {"validation", "test"} & splits.keys():
        warn(logger, WorkflowMessage.SEARCH_WITHOUT_EVALUATION)
    args.folder.mkdir(parents=True, exist_ok=True)
    with lock_output_dir(args):
        hyperparameter_search = _run_study(options, settings, splits, model_args, data_args, args)
        study, metric = hyperparameter_search.study, hyperparameter_search.metric.removeprefix("eval_")
        trials = _list_scored_trials(study)
        best = next(trial for trial in trials if trial.number == study.best_trial.number)
        _write_results(args.folder, trials, best, metric)
    logger.info("Best of %d trials: %s %.4f with %s", len(trials), metric, best.score, format_values(best.values))
    record = _train_best(settings, splits, exclusion_log, model_args, data_args, args, best, len(trials))
    return SearchResult(trials, best, metric, hyperparameter_search.greater_is_better, record)


def _check_search_options(options: SearchArguments, args: FinetuningArguments) -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError(WorkflowMessage.OPTUNA_MISSING) from None
    if unknown := sorted(set(options.search or DEFAULT_SEARCH_OPTIONS) - SEARCH_SPACE.keys()):
        raise CommandLineError(WorkflowMessage.UNKNOWN_SEARCH_SETTING, known=list(SEARCH_SPACE), unknown=unknown)
    if args.world_size > 1:
        raise CommandLineError(WorkflowMessage.SEARCH_NEEDS_ONE_PROCESS)
    if args.push_to_hub:
        raise CommandLineError(WorkflowMessage.SEARCH_CANNOT_PUSH)


def _run_study(
    options: SearchArguments,
    settings: Settings,
    splits: DatasetDict,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FinetuningArguments,
) -> HyperparameterSearch:
    """Starts or resumes the study, and runs the requested number of trials."""
    names = splits["train"].features["labels"].names

    def build_trial_model(drop_path: float) -> Any:
        return build_model(model_args, dataclasses.replace(args, drop_path=drop_path), names, quiet=True)

    model = build_model(model_args, args, names)
    train_dataset, eval_datasets, processor = prepare_images(splits, data_args, model, args)
    trainer = MaeFinetuner(
        model=model,
        args=_build_trial_arguments(args),
        train_dataset=train_dataset,
        eval_dataset=eval_datasets["selection"],
        processing_class=processor,
        ordered=has_ordered_classes(data_args),
    )
    fixed = {name: value for name, value in settings.overrides.items() if name not in SETTINGS_ALLOWED_TO_DIFFER}
    fixed |= {"images": DataSource.from_settings(data_args, args.seed, data_fingerprint(splits)).fingerprint}
    parameter_names = list(options.search or DEFAULT_SEARCH_OPTIONS)
    hyperparameter_search = HyperparameterSearch(
        trainer, build_trial_model, parameter_names, args.folder, json.loads(json.dumps(fixed))
    )
    hyperparameter_search.run(options.trials)
    return hyperparameter_search


def _build_trial_arguments(args: FinetuningArguments) -> FinetuningArguments:
    """Arguments of trials: evaluate after each epoch, and save nothing."""
    return dataclasses.replace(
        args,
        eval_strategy="epoch",
        save_strategy="no",
        load_best_model_at_end=False,
        early_stopping_patience=None,
        report_to="none",
        resume_from_checkpoint=None,
    )


def _list_scored_trials(study: Any) -> list[Trial]:
    """Lists completed and pruned trials, in their order."""
    from optuna.trial import TrialState

    trials = []
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        score = trial.value if trial.value is not None else list(trial.intermediate_values.values())[-1]
        trials.append(Trial(trial.number, dict(trial.params), float(score), trial.state == TrialState.PRUNED))
    return trials


def _write_results(folder: Path, trials: list[Trial], best: Trial, metric: str) -> None:
    """Writes `search.csv`, `search.json` and the figure."""
    names = list(best.values)
    columns = ["trial", metric, *names, "pruned"]
    rows = [
        [str(t.number + 1), f"{t.score:.6f}", *(f"{t.values[name]:.6g}" for name in names), str(t.pruned)]
        for t in trials
    ]
    write_csv(folder / "search.csv", columns, rows)
    result = {"metric": metric, "split": "selection", "best": vars(best), "trials": [vars(t) for t in trials]}
    write_json(folder / "search.json", result)
    points = {name: [(t.values[name], display_scale(metric) * t.score, t.pruned) for t in trials] for name in names}
    scales = {name: SEARCH_SPACE[name][2] is None for name in names}
    figures.plot_search_trials(points, scales, trials.index(best), metric, folder / FIGURES_DIR / "search")


def _train_best(
    settings: Settings,
    splits: DatasetDict,
    exclusion_log: ExclusionLog,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FinetuningArguments,
    best: Trial,
    num_trials: int,
) -> RunRecord | None:
    """Trains a model with the best values in its own folder; a completed run with these values is reused."""
    folder = args.folder / BEST_DIR
    search_options = {item.name for item in dataclasses.fields(SearchArguments)}
    explicit_settings = {name: value for name, value in settings.overrides.items() if name not in search_options}
    explicit_settings |= best.values | {"output_dir": str(folder)}
    if (folder / ALL_RESULTS).is_file():
        record = read_record(folder)
        if all(record.settings.get(name) == value for name, value in best.values.items()):
            return _record_search(record, folder, num_trials)
    changes: dict[str, Any] = {"output_dir": str(folder), "overwrite_output_dir": True, "resume_from_checkpoint": None}
    run_args = dataclasses.replace(args, **best.values | changes)
    with lock_output_dir(run_args):
        best_record = finetune_splits(splits, model_args, data_args, run_args, explicit_settings, exclusion_log)
    return best_record and _record_search(best_record, folder, num_trials)


def _record_search(record: RunRecord, folder: Path, num_trials: int) -> RunRecord:
    """Adds the search to the record and the model card."""
    assert record.selection is not None
    selection = dataclasses.replace(record.selection, search_trials=num_trials)
    record = dataclasses.replace(record, selection=selection)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    write_model_card(folder, record, config["architectures"][0], recipe)
    write_record(record, folder)
    return record

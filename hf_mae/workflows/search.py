"""`search`: hyper-parameter search on a separate selection split, and fine-tuning with the best values."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.labelled_data import LabelledData
from ..errors import UsageError, warn
from ..evaluation.metrics import display_scale
from ..files.atomic import write_csv, write_json
from ..models.building import build_training_model
from ..models.introspection import input_size
from ..reporting.figures.training import plot_search_trials
from ..reporting.model_card import write_model_card
from ..reporting.plan_summary import log_conversion
from ..runs.output_dir import lock_output_dir
from ..runs.record import ALL_RESULTS, FIGURES_DIR, DataSource, RunRecord
from ..runs.record_io import read_record, record_to_dict, write_record
from ..settings.arguments import FinetuningArguments
from ..settings.parse import Settings
from ..settings.recipes import WITHOUT_EFFECT_ON_RESULTS
from ..settings.search import DEFAULT_SEARCH_OPTIONS, SEARCH_SPACE, SearchArguments
from ..training.finetuner import MaeFinetuner
from ..training.finetuning_data import prepare_datasets
from ..training.search import HyperparameterSearch, format_values
from .command import command
from .finetune import finetune_splits
from .messages import WorkflowMessage
from .plan import load_data

logger = logging.getLogger(__name__)
DEFAULT_SELECTION_FRACTION = 0.2  # of the training images
BEST_DIR = "best"  # folder of the model that is trained with the best values


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

    def to_dict(self) -> dict[str, Any]:
        """Returns the metric, the best trial and the record, as JSON."""
        record = record_to_dict(self.record) if self.record else None
        return {"metric": self.metric, "best": vars(self.best), "record": record}


@command("search")
def search(settings: Settings) -> SearchResult:
    """Searches hyper-parameters, and fine-tunes with the best values. An interrupted search resumes."""
    _check_optuna()
    if not settings.data.selection_fraction:
        settings = settings.replace(selection_fraction=DEFAULT_SELECTION_FRACTION)
        logger.info(
            "%.0f %% of the training images are held out to evaluate the trials (--selection_fraction).",
            100 * DEFAULT_SELECTION_FRACTION,
        )
    data = load_data(settings)
    if not {"validation", "test"} & data.splits.keys():
        warn(logger, WorkflowMessage.SEARCH_WITHOUT_EVALUATION)
    folder = settings.training.folder
    folder.mkdir(parents=True, exist_ok=True)
    with lock_output_dir(settings.training):
        hyperparameter_search = _run_study(settings, data)
        study, metric = hyperparameter_search.study, hyperparameter_search.metric.removeprefix("eval_")
        trials = _list_scored_trials(study)
        best = next(trial for trial in trials if trial.number == study.best_trial.number)
        _write_results(folder, trials, best, metric)
    logger.info("Best of %d trials: %s %.4f with %s", len(trials), metric, best.score, format_values(best.values))
    record = _train_best(settings, data, best, len(trials))
    return SearchResult(trials, best, metric, hyperparameter_search.greater_is_better, record)


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError(WorkflowMessage.OPTUNA_MISSING) from None


def _run_study(settings: Settings, data: LabelledData) -> HyperparameterSearch:
    """Starts or resumes the study, and runs the requested number of trials."""
    options, data_args, args = settings.options, settings.data, settings.training

    def build_trial_model(drop_path: float) -> Any:
        return build_training_model(settings.model, data.class_names, args.seed, drop_path)

    model = build_trial_model(args.drop_path)
    log_conversion(model.conversion_report)
    train_dataset, eval_datasets, processor = prepare_datasets(
        data.splits, data_args, model.config, input_size(model), args.seed, args.sampling
    )
    trainer = MaeFinetuner(
        model=model,
        args=_build_trial_arguments(args),
        train_dataset=train_dataset,
        eval_dataset=eval_datasets["selection"],
        processing_class=processor,
        ordered=data.ordered,
    )
    fixed = {name: value for name, value in settings.overrides.items() if name not in WITHOUT_EFFECT_ON_RESULTS}
    fixed |= {"images": DataSource.from_settings(data_args, args.seed, data.fingerprint).fingerprint}
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
    plot_search_trials(points, scales, trials.index(best), metric, folder / FIGURES_DIR / "search")


def _train_best(settings: Settings, data: LabelledData, best: Trial, num_trials: int) -> RunRecord | None:
    """Trains a model with the best values in its own folder; a completed run with these values is reused."""
    folder = settings.training.folder / BEST_DIR
    search_options = {item.name for item in dataclasses.fields(SearchArguments)}
    explicit_settings = {name: value for name, value in settings.overrides.items() if name not in search_options}
    explicit_settings |= best.values | {"output_dir": str(folder)}
    if (folder / ALL_RESULTS).is_file():
        record = read_record(folder)
        if all(record.settings.get(name) == value for name, value in best.values.items()):
            return _record_search(record, folder, num_trials)
    changes: dict[str, Any] = {"output_dir": str(folder), "overwrite_output_dir": True, "resume_from_checkpoint": None}
    run_settings = dataclasses.replace(
        settings,
        overrides=explicit_settings,
        training=dataclasses.replace(settings.training, **best.values | changes),
    )
    with lock_output_dir(run_settings.training):
        best_record = finetune_splits(data, run_settings)
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

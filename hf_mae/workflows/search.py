"""`search`: hyper-parameters are chosen on images that judge nothing else, and the best model is trained with them."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from ..data.exclusion_log import ExclusionLog
from ..data.fingerprint import data_fingerprint
from ..data.split_loading import has_ordered_classes
from ..errors import CommandLineError, UsageError
from ..files.atomic import write_csv, write_json
from ..reporting import figures
from ..reporting.model_card import write_model_card
from ..runs.output_dir import lock_output_dir
from ..runs.record import ALL_RESULTS, DataSource, RunRecord
from ..runs.record_io import read_record, write_record
from ..settings.arguments import FinetuningArguments
from ..settings.data import DataArguments
from ..settings.models import ModelArguments
from ..settings.parse import Settings, parse_settings
from ..settings.studies import DEFAULT_SEARCH_OPTIONS, SEARCH_SPACE, SearchArguments
from ..training.finetuner import MaeFinetuner
from ..training.search import HyperparameterSearch, format_values
from .finetune import build_model, finetune_splits, prepare_images
from .plan import load_data

logger = logging.getLogger(__name__)
DEFAULT_SELECTION_FRACTION = (
    0.2  # of the training images, that judge the trials where --selection_fraction does not say
)
BEST_DIR = "best"  # the folder of the model that is trained with what was found
SEARCH_SENTENCE_START = " Its settings are the best of"  # begins what a record says of the search
SETTINGS_ALLOWED_TO_DIFFER = {
    "output_dir",
    "trials",
    "disable_tqdm",
    "preprocessing_num_workers",
    "dataloader_num_workers",
}


@dataclass
class Trial:
    """A trial that came to an end, or was stopped as it was worse than most."""

    number: int
    values: dict[str, float]
    score: float
    pruned: bool = False


@dataclass
class SearchResult:
    """What was found.

    Args:
        trials: in their order.
        best: the best of them.
        metric: that they were judged by, on the selection split.
        greater_is_better: whether its greatest value is the best.
        record: of the model that was trained with the best values.
    """

    trials: list[Trial]
    best: Trial
    metric: str
    greater_is_better: bool
    record: RunRecord | None


def search(*, recipe: str | None = None, **flags: Any) -> SearchResult:
    """Searches hyper-parameters, and fine-tunes with the best; a search that was stopped goes on.

    Args:
        recipe: a recipe of the package, or a YAML file; `flags` win over it.
        flags: the flags of `hf-mae search`.

    Raises:
        UsageError: one sentence on what is wrong.
    """
    settings = parse_settings("search", recipe, **flags)
    options, model_args, data_args, args = settings.arguments
    _check_search_options(options, args)
    if not data_args.selection_fraction:
        data_args = dataclasses.replace(data_args, selection_fraction=DEFAULT_SELECTION_FRACTION)
        settings.overrides["selection_fraction"] = DEFAULT_SELECTION_FRACTION
        logger.info(
            "%.0f %% of the training images judge the trials (--selection_fraction).", 100 * DEFAULT_SELECTION_FRACTION
        )
    splits, ledger = load_data(model_args, data_args, args.seed)
    if not {"validation", "test"} & splits.keys():
        logger.warning(
            "There is neither a validation nor a test split: the best model has only the figures that chose it, which "
            "are too good. --val_fraction 0.2 holds images out."
        )
    args.folder.mkdir(parents=True, exist_ok=True)
    with lock_output_dir(args):
        found = _run_study(options, settings, splits, model_args, data_args, args)
        study, metric = found.study, found.metric.removeprefix("eval_")
        trials = _list_scored_trials(study)
        best = next(trial for trial in trials if trial.number == study.best_trial.number)
        _write_results(args.folder, trials, best, metric)
    logger.info("The best of %d trials: %s %.4f with %s", len(trials), metric, best.score, format_values(best.values))
    record = _train_best(settings, splits, ledger, model_args, data_args, args, best, len(trials))
    return SearchResult(trials, best, metric, found.greater_is_better, record)


def _check_search_options(options: SearchArguments, args: FinetuningArguments) -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError("search needs a package that is not installed: pip install 'hf_mae[search]'.") from None
    if unknown := sorted(set(options.search or DEFAULT_SEARCH_OPTIONS) - SEARCH_SPACE.keys()):
        raise CommandLineError(f"--search knows {', '.join(SEARCH_SPACE)}, not {', '.join(unknown)}.")
    if args.world_size > 1:
        raise CommandLineError("search trains on one process: start it without accelerate launch.")
    if args.push_to_hub:
        raise CommandLineError("search makes several models: push the best with hf-mae push OUT/best.")


def _run_study(
    options: SearchArguments,
    settings: Settings,
    splits: DatasetDict,
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FinetuningArguments,
) -> HyperparameterSearch:
    """The study, with as many trials as were asked for."""
    names = splits["train"].features["labels"].names

    def build(drop_path: float) -> Any:
        return build_model(model_args, dataclasses.replace(args, drop_path=drop_path), names, quiet=True)

    model = build_model(model_args, args, names)
    training_images, held_out, processor = prepare_images(splits, data_args, model, args)
    trainer = MaeFinetuner(
        model=model,
        args=_build_trial_arguments(args),
        train_dataset=training_images,
        eval_dataset=held_out["selection"],
        processing_class=processor,
        ordered=has_ordered_classes(data_args),
    )
    begun = {name: value for name, value in settings.overrides.items() if name not in SETTINGS_ALLOWED_TO_DIFFER}
    begun |= {"images": DataSource.from_settings(data_args, args.seed, data_fingerprint(splits)).fingerprint}
    made = HyperparameterSearch(
        trainer, build, list(options.search or DEFAULT_SEARCH_OPTIONS), args.folder, json.loads(json.dumps(begun))
    )
    made.run(options.trials)
    return made


def _build_trial_arguments(args: FinetuningArguments) -> FinetuningArguments:
    """The arguments of trials, which are judged after each epoch, and saved never."""
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
    """Those that have a score, in their order."""
    from optuna.trial import TrialState

    found = []
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        reached = list(trial.intermediate_values.values())
        score = trial.value if trial.value is not None else reached[-1]
        found.append(Trial(trial.number, dict(trial.params), float(score), trial.state == TrialState.PRUNED))
    return found


def _write_results(folder: Path, trials: list[Trial], best: Trial, metric: str) -> None:
    """`search.csv`, `search.json` and the figure."""
    names = list(best.values)
    head = ["trial", metric, *names, "stopped"]
    rows = [
        [str(one.number + 1), f"{one.score:.6f}", *(f"{one.values[name]:.6g}" for name in names), str(one.pruned)]
        for one in trials
    ]
    write_csv(folder / "search.csv", head, rows)
    facts = {"metric": metric, "split": "selection", "best": vars(best), "trials": [vars(one) for one in trials]}
    write_json(folder / "search.json", facts)
    points = {name: [(one.values[name], 100 * one.score, one.pruned) for one in trials] for name in names}
    scales = {name: SEARCH_SPACE[name][2] is None for name in names}
    figures.plot_search_trials(points, scales, trials.index(best), metric, folder / "search")


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
    """The model with the best values, in a folder of its own; one that is there with these values is not trained
    again."""
    folder = args.folder / BEST_DIR
    own = {item.name for item in dataclasses.fields(SearchArguments)}
    given = {name: value for name, value in settings.overrides.items() if name not in own}
    given |= best.values | {"output_dir": str(folder)}
    if (folder / ALL_RESULTS).is_file():
        record = read_record(folder)
        if all(record.settings.get(name) == value for name, value in best.values.items()):
            return _record_search(record, folder, num_trials)
    changed: dict[str, Any] = {"output_dir": str(folder), "overwrite_output_dir": True, "resume_from_checkpoint": None}
    run_args = dataclasses.replace(args, **best.values | changed)
    with lock_output_dir(run_args):
        made = finetune_splits(splits, model_args, data_args, run_args, given, exclusion_log)
    return made and _record_search(made, folder, num_trials)


def _record_search(record: RunRecord, folder: Path, num_trials: int) -> RunRecord:
    """The record and the card say how the settings were chosen."""
    assert record.selection is not None
    before, _, _ = record.selection.sentence.partition(SEARCH_SENTENCE_START)
    told = f"{before}{SEARCH_SENTENCE_START} {num_trials} trials on the selection split (hf-mae search)."
    record = dataclasses.replace(record, selection=dataclasses.replace(record.selection, sentence=told))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    write_model_card(folder, record, config["architectures"][0], recipe)
    write_record(record, folder)
    return record

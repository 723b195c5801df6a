"""Hyper-parameter search with `Trainer.hyperparameter_search` of transformers and optuna.

Trials are evaluated on the selection split, which is held out from the training images, and not on the splits that are
reported later. The study is stored in a file, so that an interrupted search can resume.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..compat.transformers import StockModel
from ..errors import UsageError, first_error_line
from ..settings.search import SEARCH_SPACE
from .finetuner import MaeFinetuner
from .messages import TrainingMessage
from .trainer import NonFiniteLossError

logger = logging.getLogger(__name__)
STUDY_NAME, STORAGE_FILE = "search", "search.db"
STARTUP_TRIALS = 5  # trials without pruning
SETTINGS_ATTRIBUTE = "settings"  # of the search that started the study


class HyperparameterSearch:
    """Hyper-parameter search with one trainer.

    Args:
        trainer: trainer that evaluates on the selection split and saves nothing.
        build_model: returns a new model with the given drop-path rate.
        parameter_names: keys of `SEARCH_SPACE` to search.
        folder: folder of the study.
        settings: settings of the search; a study with other settings is not resumed.
    """

    def __init__(
        self,
        trainer: MaeFinetuner,
        build_model: Callable[[float], StockModel],
        parameter_names: list[str],
        folder: Path,
        settings: dict[str, Any],
    ):
        self.trainer, self.build_model = trainer, build_model
        args = trainer.args
        self.initial_values = {name: float(getattr(args, name)) for name in parameter_names}  # of the first trial
        self.metric = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
        self.greater_is_better = bool(args.greater_is_better)
        self._best_value: float | None = None  # of the current trial
        trainer.model_init = self._init_model
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study_kwargs: dict[str, Any] = {
            "study_name": STUDY_NAME,
            "storage": f"sqlite:///{folder / STORAGE_FILE}",
            "load_if_exists": True,
        }
        try:
            self.study = optuna.create_study(direction=self._direction, **self._study_kwargs)
        except Exception as error:  # sqlite, sqlalchemy and optuna raise different types
            path = folder / STORAGE_FILE
            raise UsageError(TrainingMessage.STUDY_UNREADABLE, path=path, error=first_error_line(error)) from None
        self._start_or_resume(settings)

    @property
    def _direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.greater_is_better else "minimize"

    def _start_or_resume(self, settings: dict[str, Any]) -> None:
        """Starts with the unchanged recipe, or checks the settings of the study and repeats trials that were killed."""
        from optuna.trial import TrialState

        saved = self.study.user_attrs.get(SETTINGS_ATTRIBUTE)
        if saved is None:
            self.study.set_user_attr(SETTINGS_ATTRIBUTE, settings)
            self.study.enqueue_trial(dict(self.initial_values))
        elif saved != settings:
            names = sorted(name for name in {*saved, *settings} if saved.get(name) != settings.get(name))
            raise UsageError(TrainingMessage.STUDY_SETTINGS_DIFFER, names=names)
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):  # of a process that was killed
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)

    def run(self, n_trials: int) -> None:
        """Runs the remaining trials.

        Raises:
            UsageError: If no trial has finite losses.
        """
        import optuna

        done = self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED))
        if done:
            logger.info("%d of %d trials are completed.", len(done), n_trials)
        if len(done) >= n_trials:
            return
        try:
            self.trainer.hyperparameter_search(
                hp_space=self.hp_space,
                compute_objective=self._objective,
                n_trials=n_trials - len(done),
                direction=self._direction,
                backend="optuna",
                sampler=optuna.samplers.TPESampler(seed=self.trainer.args.seed + len(done)),
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=STARTUP_TRIALS, n_warmup_steps=self._pruning_warmup_steps()
                ),
                catch=(NonFiniteLossError,),
                **self._study_kwargs,
            )
        except ValueError:
            if self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
                raise
            raise UsageError(TrainingMessage.NO_FINITE_TRIAL) from None

    def hp_space(self, trial: Any) -> dict[str, float]:
        """Suggests the values of a trial, by setting."""
        values = {}
        for name, initial in self.initial_values.items():
            low, high, step = SEARCH_SPACE[name]
            if name == "learning_rate":
                low, high = low * initial, high * initial
            values[name] = trial.suggest_float(name, low, high, step=step, log=step is None)
        return values

    def _pruning_warmup_steps(self) -> int:
        """Returns the number of updates without pruning: a third of the training."""
        args, images = self.trainer.args, len(self.trainer.train_dataset)
        updates = args.max_steps if args.max_steps > 0 else args.num_train_epochs * images / args.images_per_update
        return int(updates / 3)

    def _init_model(self, trial: Any) -> StockModel:
        """Builds the model of a trial; the Trainer calls it at the start."""
        values = self.hp_space(trial)
        self._best_value = None
        logger.info("Trial %d: %s", trial.number + 1, format_values(values))
        return self.build_model(values.get("drop_path", self.trainer.args.drop_path))

    def _objective(self, metrics: dict[str, float]) -> float:
        """Returns the best value so far, because fine-tuning keeps the best epoch."""
        value, select_best = float(metrics[self.metric]), max if self.greater_is_better else min
        self._best_value = value if self._best_value is None else select_best(self._best_value, value)
        return self._best_value


def format_values(values: dict[str, float]) -> str:
    """Formats settings on one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())

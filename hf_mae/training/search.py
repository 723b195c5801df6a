"""Searching hyper-parameters with transformers' own `Trainer.hyperparameter_search` and optuna.

Trials are trained without a share of the training images, the selection split, and judged on it; nothing that is
reported later is looked at. The study is kept in a file, so that a search that was stopped goes on.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..compat.transformers import StockModel
from ..errors import UsageError, first_error_line
from ..settings.studies import SEARCH_SPACE
from .finetuner import MaeFinetuner
from .trainer import NonFiniteLossError

logger = logging.getLogger(__name__)
STUDY_NAME, STORAGE_FILE = "search", "search.db"
STARTUP_TRIALS = 5  # trials before one is stopped early
SETTINGS_ATTRIBUTE = "settings"  # what a study was begun with


class HyperparameterSearch:
    """Trials of one trainer.

    Args:
        trainer: with the selection split as its evaluation images; it saves nothing.
        build_model: a fresh model with this rate of drop path.
        names: what of `SPACE` is searched.
        folder: where the study is kept.
        settings: what it is begun with; a study of other settings is not gone on with.
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
        self.initial_values = {
            name: float(getattr(args, name)) for name in parameter_names
        }  # what the first trial takes
        self.metric = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
        self.greater_is_better = bool(args.greater_is_better)
        self._best_value: float | None = None  # of the trial that runs
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
        except Exception as error:  # of sqlite, sqlalchemy and optuna
            raise UsageError(
                f"{folder / STORAGE_FILE} cannot be read as the study of a search ({first_error_line(error)}): move it away, and "
                "the search begins anew."
            ) from None
        self._start_or_resume(settings)

    @property
    def _direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.greater_is_better else "minimize"

    def _start_or_resume(self, settings: dict[str, Any]) -> None:
        """A study with its settings, whose first trial is the recipe as it is."""
        from optuna.trial import TrialState

        before = self.study.user_attrs.get(SETTINGS_ATTRIBUTE)
        if before is None:
            self.study.set_user_attr(SETTINGS_ATTRIBUTE, settings)
            self.study.enqueue_trial(dict(self.initial_values))
        elif before != settings:
            differing = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
            raise UsageError(
                f"the search in this folder was begun with other settings ({', '.join(differing)}): choose another "
                "--output_dir."
            )
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):  # of a process that was killed
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)

    def run(self, n_trials: int) -> None:
        """Trains what is left of so many trials.

        Raises:
            UsageError: in none of them the losses stayed finite.
        """
        import optuna

        done = self.study.get_trials(states=(optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED))
        if done:
            logger.info("%d of %d trials are done.", len(done), n_trials)
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
            raise UsageError(
                "no trial came to an end with a finite loss: search around a lower --learning_rate."
            ) from None

    def hp_space(self, trial: Any) -> dict[str, float]:
        """The values of a trial, by the names of the settings."""
        values = {}
        for name, own in self.initial_values.items():
            low, high, step = SEARCH_SPACE[name]
            if name == "learning_rate":
                low, high = low * own, high * own
            values[name] = trial.suggest_float(name, low, high, step=step, log=step is None)
        return values

    def _pruning_warmup_steps(self) -> int:
        """Updates before which no trial is stopped."""
        args, images = self.trainer.args, len(self.trainer.train_dataset)
        updates = args.max_steps if args.max_steps > 0 else args.num_train_epochs * images / args.images_per_update
        return int(updates / 3)

    def _init_model(self, trial: Any) -> StockModel:
        """Called by the Trainer at the start of a trial."""
        values = self.hp_space(trial)
        self._best_value = None
        logger.info("Trial %d: %s", trial.number + 1, format_values(values))
        return self.build_model(values.get("drop_path", self.trainer.args.drop_path))

    def _objective(self, metrics: dict[str, float]) -> float:
        """The best epoch so far, since that is the one that a fine-tuning keeps."""
        value, choose = float(metrics[self.metric]), max if self.greater_is_better else min
        self._best_value = value if self._best_value is None else choose(self._best_value, value)
        return self._best_value


def format_values(values: dict[str, float]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())

"""Progress of a training: one line per epoch (per log if the length is given in updates), and a bar on a terminal."""

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..settings.metrics import METRICS

logger = logging.getLogger(__name__)

LOSSES = {"loss": "train loss", "eval_loss": "val loss"}
REPLACED_CALLBACKS = (ProgressCallback, PrinterCallback)  # they print dicts


class Progress(TrainerCallback):
    """Logs the progress of a training on the main process.

    Training loss and images/s of a line are those of its period: the epoch, or the updates since the last line if
    evaluations or logs are counted in updates. The time of evaluations is not included.

    Args:
        sum_losses: returns the sum of the losses of all updates so far, averaged over processes (a collective call).
    """

    def __init__(self, sum_losses: Callable[[], float]):
        self._sum_losses = sum_losses
        self._bar: tqdm[Any] | None = None
        self._last_metrics: dict[str, float] = {}
        self._start_time, self._start_step = 0.0, 0
        self._period_start_time, self._period_start_step = 0.0, 0
        self._is_complete_period = True  # False after resuming within an epoch
        self._rate = 0.0  # images/s
        self._losses_before_period = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Creates the bar on a terminal."""
        self._start_time, self._start_step = time.time(), state.global_step
        self._start_period(state, 0.0)
        if state.is_world_process_zero and not args.disable_tqdm and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="update", dynamic_ncols=True)
            self._bar.set_description("training")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the period of the epoch."""
        self._start_period(state, self._sum_losses())
        self._is_complete_period = float(state.epoch or 0).is_integer()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures the rate and moves the bar."""
        images = (state.global_step - self._period_start_step) * args.images_per_update
        self._rate = images / max(time.time() - self._period_start_time, 1e-6)
        if self._bar is not None:
            text = "  ".join([f"{self._rate:.3g} images/s", *_format_metrics(self._last_metrics)])
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Logs the line of an epoch that neither an evaluation nor a log follows."""
        if args.eval_strategy == "no" and args.logging_strategy != "epoch" and args.max_steps <= 0:
            self._log_line(args, state, {})

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Logs the line after an evaluation; in trainings without evaluation, after the loss of the period."""
        shown = (*LOSSES, *(f"eval_{metric.name}" for metric in METRICS.values() if metric.in_progress))
        metrics = {name: float(value) for name, value in (logs or {}).items() if name in shown}
        self._last_metrics |= metrics
        is_due = args.eval_strategy == "no" and (args.max_steps > 0 or args.logging_strategy == "epoch")
        if "eval_loss" in metrics or ("loss" in metrics and is_due):
            self._log_line(args, state, metrics)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start_period(self, state: Any, losses: float) -> None:
        self._period_start_time, self._period_start_step = time.time(), state.global_step
        self._losses_before_period, self._is_complete_period = losses, True

    def _log_line(self, args: Any, state: Any, metrics: dict[str, float]) -> None:
        evaluation = {name: value for name, value in metrics.items() if name != "loss"}
        updates, losses = state.global_step - self._period_start_step, self._sum_losses()
        loss = {}
        if self._is_complete_period and updates > 0:
            loss = {"loss": (losses - self._losses_before_period) / updates}
        if args.max_steps > 0:
            position = f"update {state.global_step}/{state.max_steps}"
        else:
            position = f"epoch {state.epoch or 0:.4g}/{args.num_train_epochs:g}"
        seconds_per_update = (time.time() - self._start_time) / max(state.global_step - self._start_step, 1)
        remaining = _format_clock(seconds_per_update * (state.max_steps - state.global_step))
        parts = [position, *_format_metrics(loss | evaluation), f"{self._rate:.3g} images/s", f"{remaining} left"]
        if state.is_world_process_zero:
            logger.info("  ".join(parts))
        self._start_period(state, losses)


def _format_metrics(metrics: Mapping[str, float]) -> list[str]:
    """Formats the title and value of each metric. Losses have two decimals next to scores, four alone (as in
    pre-training)."""
    digits = 2 if "eval_loss" in metrics else 4
    losses = [f"{title} {metrics[name]:.{digits}f}" for name, title in LOSSES.items() if name in metrics]
    return losses + [
        f"{metric.title} {metric.scale * metrics[f'eval_{metric.name}']:.{1 if metric.scale == 100 else 3}f}"
        for metric in METRICS.values()
        if metric.in_progress and f"eval_{metric.name}" in metrics
    ]


def _format_clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

"""How far a training is, for people: one line that moves with images/s, the time left, loss and the last score, and a
line that stays for every evaluation. Where the output is no terminal there are lines alone."""

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

logger = logging.getLogger(__name__)

# What a line tells, in this order, where it was logged.
DISPLAYED_METRICS = {
    "loss": ("loss", 1.0, 4),
    "eval_loss": ("judged: loss", 1.0, 4),
    "eval_macro_f1": ("macro F1", 100.0, 1),
    "eval_accuracy": ("accuracy", 100.0, 1),
    "eval_mcc": ("MCC", 100.0, 1),
    "eval_qwk": ("QWK", 100.0, 1),
}
REPLACED_CALLBACKS = (ProgressCallback, PrinterCallback)  # which print dicts


class Progress(TrainerCallback):
    """Tells how far a training is; on the main process alone.

    Args:
        images_per_update: for images/s.
    """

    def __init__(self, images_per_update: int):
        self._images_per_update = images_per_update
        self._bar: tqdm[Any] | None = None
        self._last_logs: dict[str, float] = {}
        self._start_time = self._start_step = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A bar, on a terminal."""
        self._start_time, self._start_step = time.time(), state.global_step
        if state.is_world_process_zero and not args.disable_tqdm and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="update", dynamic_ncols=True)
            self._bar.set_description("training")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The bar moves."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._format_status(state), refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """What was logged is kept for the bar; an evaluation is a line."""
        found = {name: float(value) for name, value in (logs or {}).items() if name in DISPLAYED_METRICS}
        self._last_logs |= found
        if not state.is_world_process_zero or not found:
            return
        judged = args.eval_strategy.value != "no"
        if "eval_loss" in found or (self._bar is None and not judged):
            epochs = f"epoch {state.epoch or 0:.4g} of {args.num_train_epochs:g}" if args.max_steps <= 0 else ""
            where = epochs or f"update {state.global_step} of {state.max_steps}"
            logger.info("%s: %s; %s", where, format_metrics(self._last_logs), self._format_status(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The bar is done."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _format_status(self, state: Any) -> str:
        done, seconds = state.global_step - self._start_step, max(time.time() - self._start_time, 1e-6)
        if not done:
            return ""
        left = seconds / done * (state.max_steps - state.global_step)
        speed = f"{done * self._images_per_update / seconds:.3g} images/s"
        if self._bar is not None:  # which tells the time itself
            return f"{speed}, {format_metrics(self._last_logs)}"
        return f"{speed}, {_format_clock(left)} left"


def format_metrics(logs: Mapping[str, float]) -> str:
    """Logged numbers in words."""
    return ", ".join(
        f"{title} {scale * logs[name]:.{digits}f}"
        for name, (title, scale, digits) in DISPLAYED_METRICS.items()
        if name in logs
    )


def _format_clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

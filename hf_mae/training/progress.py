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
SHOWN = {
    "loss": ("loss", 1.0, 4),
    "eval_loss": ("judged: loss", 1.0, 4),
    "eval_macro_f1": ("macro F1", 100.0, 1),
    "eval_accuracy": ("accuracy", 100.0, 1),
    "eval_mcc": ("MCC", 100.0, 1),
    "eval_qwk": ("QWK", 100.0, 1),
}
REPLACED = (ProgressCallback, PrinterCallback)  # which print dicts


class Progress(TrainerCallback):
    """Tells how far a training is; on the main process alone.

    Args:
        images_per_update: for images/s.
    """

    def __init__(self, images_per_update: int):
        self._images = images_per_update
        self._bar: tqdm[Any] | None = None
        self._last: dict[str, float] = {}
        self._begun = self._first = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A bar, on a terminal."""
        self._begun, self._first = time.time(), state.global_step
        if state.is_world_process_zero and not args.disable_tqdm and sys.stderr.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="update", dynamic_ncols=True)
            self._bar.set_description("training")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The bar moves."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._now(state), refresh=False)
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """What was logged is kept for the bar; an evaluation is a line."""
        found = {name: float(value) for name, value in (logs or {}).items() if name in SHOWN}
        self._last |= found
        if not state.is_world_process_zero or not found:
            return
        judged = args.eval_strategy.value != "no"
        if "eval_loss" in found or (self._bar is None and not judged):
            epochs = f"epoch {state.epoch or 0:.4g} of {args.num_train_epochs:g}" if args.max_steps <= 0 else ""
            where = epochs or f"update {state.global_step} of {state.max_steps}"
            logger.info("%s: %s; %s", where, told(self._last), self._now(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The bar is done."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _now(self, state: Any) -> str:
        done, seconds = state.global_step - self._first, max(time.time() - self._begun, 1e-6)
        if not done:
            return ""
        left = seconds / done * (state.max_steps - state.global_step)
        speed = f"{done * self._images / seconds:.3g} images/s"
        if self._bar is not None:  # which tells the time itself
            return f"{speed}, {told(self._last)}"
        return f"{speed}, {_clock(left)} left"


def told(logs: Mapping[str, float]) -> str:
    """Logged numbers in words."""
    return ", ".join(
        f"{title} {scale * logs[name]:.{digits}f}" for name, (title, scale, digits) in SHOWN.items() if name in logs
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

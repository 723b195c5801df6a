"""How the weights of a completed training were selected."""

from typing import Any

from ..training.trainer import MaeTrainerBase
from .record import Selection, SelectionRule


def get_selection(trainer: MaeTrainerBase, split: str | None) -> Selection:
    """Returns the selection of the weights of a completed training.

    Args:
        split: split that was evaluated after each epoch; None: none.
    """
    args: Any = trainer.args
    state = trainer.state
    facts: dict[str, Any] = {"planned_updates": state.max_steps, "ema_decay": args.ema_decay}
    if args.teacher:
        facts |= {"teacher": args.teacher, "teacher_weight": args.teacher_weight}
    if not (args.load_best_model_at_end and state.best_model_checkpoint):
        return Selection(SelectionRule.LAST_EPOCH, **facts)
    epochs = [entry["epoch"] for entry in state.log_history if entry["step"] == state.best_global_step]
    return Selection(
        SelectionRule.BEST_EPOCH,
        selection_split=split,
        metric=args.metric_for_best_model,
        checkpoint=state.best_model_checkpoint,
        epoch=epochs[-1] if epochs else None,
        **facts,
    )

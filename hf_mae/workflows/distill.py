"""`distill`: fine-tuning with knowledge distillation from another model."""

from typing import Any

from ..errors import CommandLineError
from ..runs.record import RunRecord
from ..settings.messages import SettingsMessage
from ..settings.parse import read_values
from ..training.training_plan import Plan
from .finetune import finetune


def distill(*, recipe: str | None = None, **flags: Any) -> RunRecord | Plan | None:
    """Runs `finetune` with a `teacher`; `flags` are those of `hf-mae distill`.

    Raises:
        CommandLineError: If the teacher is missing.
    """
    if not read_values("finetune", recipe, flags).get("teacher"):
        raise CommandLineError(SettingsMessage.MISSING_ARGUMENTS, names=["TEACHER (--teacher)"], command="distill")
    return finetune(recipe=recipe, **flags)

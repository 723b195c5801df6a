"""`distill`: fine-tuning with knowledge distillation from another model."""

from ..runs.record import RunRecord
from ..settings.parse import Settings
from ..training.training_plan import Plan
from .command import command
from .finetune import finetune


@command("distill")
def distill(settings: Settings) -> RunRecord | Plan | None:
    """Runs `finetune` with a `teacher`.

    Raises:
        CommandLineError: If the teacher is missing.
    """
    return finetune.run(settings)

"""`distill`: a fine-tuning that learns from another model's scores, too."""

from typing import Any

from ..errors import CommandLineError
from ..runs.record import RunRecord
from ..settings.parse import read_values
from ..training.training_plan import Plan
from .finetune import finetune


def distill(*, recipe: str | None = None, **flags: Any) -> RunRecord | Plan | None:
    """`finetune` with a `teacher`; `flags` are those of `hf-mae distill`.

    Raises:
        UsageError: one sentence on what is wrong.
    """
    if not read_values("finetune", recipe, flags).get("teacher"):
        raise CommandLineError("missing: teacher (see hf-mae distill --help).")
    return finetune(recipe=recipe, **flags)

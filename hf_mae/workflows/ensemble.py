"""`ensemble`: several fine-tuned models as one."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compat.accelerate import deepspeed_unseen
from ..errors import UsageError
from ..files.writing import whole_folder, write_text
from ..models.checkpoints import resolve
from ..models.ensemble import Ensemble, MemberFacts, members_of, write_members
from ..models.loading import class_names, load_stock_classifier
from ..reporting.model_card import ensemble_card
from ..runs.out_of_fold import runs_of_crossval
from ..runs.own_splits import drawn_folds
from ..runs.record import ALL_RESULTS
from ..settings.fill import fill

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeEnsemble:
    """An ensemble that was written: its folder, what its members were made of, and its classes."""

    folder: str
    sources: list[str]
    classes: list[str]


def ensemble(**flags: Any) -> MadeEnsemble:
    """Writes the folder of an ensemble; `flags` are those of `hf-mae ensemble`.

    Raises:
        UsageError: a run that cannot be read, other classes, or images that are read otherwise.
    """
    (options,) = fill("ensemble", None, **flags).parts
    sources = [member for run in options.runs for member in _models_of(run)]
    if len(sources) < 2:
        raise UsageError(f"{sources[0]} is one model: an ensemble has two at least.")
    if twice := sorted({source for source in sources if sources.count(source) > 1}):
        raise UsageError(f"{twice[0]} is named twice: it would count twice in the mean.")
    loaded = [load_stock_classifier(resolve(source)) for source in sources]
    models, processors = ([pair[which] for pair in loaded] for which in (0, 1))
    made = Ensemble(models, processors)
    facts = [
        MemberFacts(f"member_{number}", source, drawn_folds(Path(source).parent) is not None)
        for number, source in enumerate(sources, 1)
    ]
    with whole_folder(options.output_dir, options.overwrite) as folder:
        for member, model, processor in zip(facts, models, processors, strict=True):
            with deepspeed_unseen():
                model.save_pretrained(folder / member.folder)
            processor.save_pretrained(folder / member.folder)
            if (record := Path(member.source) / ALL_RESULTS).is_file():
                shutil.copy(record, folder / member.folder / ALL_RESULTS)
        write_members(folder, facts)
        write_text(folder / "README.md", ensemble_card(Path(options.output_dir), facts, class_names(made)))
    return MadeEnsemble(str(options.output_dir), sources, class_names(made))


def _models_of(run: str) -> list[str]:
    """A run, the runs of a cross-validation on its largest share of the labels, or the members of an ensemble."""
    folder = Path(run)
    if members := members_of(folder):
        return [str(folder / member.folder) for member in members]
    return [str(one) for one in runs_of_crossval(folder)] or [run]

"""`ensemble`: combines fine-tuned models by averaging their scores."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..compat.accelerate import skip_deepspeed_import
from ..errors import UsageError
from ..files.atomic import atomic_write_dir, write_text
from ..models.ensemble import Ensemble, MemberInfo, read_ensemble_members, write_ensemble_members
from ..models.loading import class_names, load_stock_classifier
from ..models.model_zoo import resolve_checkpoint
from ..reporting.model_card import build_ensemble_card
from ..runs.out_of_fold import list_crossval_runs
from ..runs.record import ALL_RESULTS
from ..runs.run_licences import licence_of_exported
from ..runs.split_consistency import read_random_fold_count
from ..settings.parse import Settings
from .command import command
from .messages import WorkflowMessage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnsembleResult:
    """Folder of an ensemble, the models that its members were copied from, and its classes."""

    folder: str
    sources: list[str]
    classes: list[str]


@command("ensemble")
def ensemble(settings: Settings) -> EnsembleResult:
    """Writes the folder of an ensemble.

    Raises:
        UsageError: If a model cannot be loaded, or if classes or preprocessing differ.
    """
    options = settings.options
    sources = [member for run in options.runs for member in _list_member_models(run)]
    if len(sources) < 2:
        raise UsageError(WorkflowMessage.ENSEMBLE_OF_ONE, source=sources[0])
    if duplicates := sorted({source for source in sources if sources.count(source) > 1}):
        raise UsageError(WorkflowMessage.ENSEMBLE_DUPLICATE, source=duplicates[0])
    models, processors = zip(*(load_stock_classifier(resolve_checkpoint(source)) for source in sources), strict=True)
    classes = class_names(Ensemble(list(models), list(processors)))
    members = [
        MemberInfo(f"member_{number}", source, read_random_fold_count(Path(source).parent) is not None)
        for number, source in enumerate(sources, 1)
    ]
    with atomic_write_dir(options.output_dir, options.overwrite) as folder:
        for member, model, processor in zip(members, models, processors, strict=True):
            with skip_deepspeed_import():
                model.save_pretrained(folder / member.folder)
            processor.save_pretrained(folder / member.folder)
            if (record := Path(member.source) / ALL_RESULTS).is_file():
                shutil.copy(record, folder / member.folder / ALL_RESULTS)
        write_ensemble_members(folder, members)
        card = build_ensemble_card(Path(options.output_dir), members, classes, licence_of_exported(sources))
        write_text(folder / "README.md", card)
    return EnsembleResult(str(options.output_dir), sources, classes)


def _list_member_models(run: str) -> list[str]:
    """Lists a run, the runs of a cross-validation on its largest label fraction, or the members of an ensemble."""
    folder = Path(run)
    if members := read_ensemble_members(folder):
        return [str(folder / member.folder) for member in members]
    return [str(path) for path in list_crossval_runs(folder)] or [run]

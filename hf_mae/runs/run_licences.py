"""Licences that a run inherits: of its base, its teacher, and the members of an ensemble."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError, inform, warn
from ..models.ensemble import read_ensemble_members
from ..models.model_zoo import find_licence, read_card_licence
from ..settings.licences import LicenceFact, LicenceOrigin, LicenceRole, check_stated_licence, combine_licences
from .messages import RunMessage
from .record import RunRecord
from .record_io import find_run_record

logger = logging.getLogger(__name__)


def find_licences(base: str, teacher: str | None = None) -> list[LicenceFact]:
    """Finds the licences that a model inherits. A run passes on the licences of its record and of its model card."""
    facts = _trace(base, LicenceRole.BASE) + (_trace(teacher, LicenceRole.TEACHER) if teacher else [])
    return list(dict.fromkeys(facts))


def _trace(source: str, role: LicenceRole) -> list[LicenceFact]:
    folder = Path(source)
    run = folder.parent if folder.name.startswith("checkpoint-") else folder
    facts = []
    if members := read_ensemble_members(folder):
        facts = [fact for member in members for fact in _trace(str(folder / member.folder), LicenceRole.MEMBER)]
    elif folder.is_dir() and (record := find_run_record(run)) is not None:
        facts = [replace(fact, role=role) if fact.role is LicenceRole.BASE else fact for fact in record.licences]
    if not facts:
        return [LicenceFact(role, source, *find_licence(source))]
    licence = read_card_licence(run / "README.md")
    is_stated = licence is not None and licence not in {fact.licence for fact in facts}
    return facts + ([LicenceFact(role, source, licence, LicenceOrigin.MODEL_CARD)] if is_stated else [])


def inherited_licence(facts: Iterable[LicenceFact]) -> str | None:
    """Returns the licence that follows from the known ones; None: none is known.

    Raises:
        UsageError: If they contradict each other, or one does not allow derived models.
    """
    return combine_licences((fact.licence, fact.source) for fact in facts if fact.licence)


def choose_licence(record: RunRecord, card: Path, stated: str | None) -> str | None:
    """Returns the licence under which a run is published: the stated one, that of its card, or the inherited one.

    Args:
        card: the model card.
        stated: `--license`; None: not given.

    Raises:
        UsageError: If the run inherits contradictory licences, or a stricter one.
    """
    inherited = inherited_licence(record.licences)
    licence = stated or read_card_licence(card) or inherited
    if licence is None:
        unknown = [fact.source for fact in record.licences if fact.origin is LicenceOrigin.UNKNOWN]
        if unknown:
            warn(logger, RunMessage.LICENCE_UNKNOWN, names=unknown)
        return None
    licence = check_stated_licence(licence, inherited)
    inform(logger, RunMessage.LICENCE, licence=licence)
    return licence


def licence_of_exported(sources: Sequence[str]) -> str | None:
    """Returns the licence of weights that are exported or combined; warns if their licences contradict each other."""
    try:
        return inherited_licence(fact for source in sources for fact in find_licences(source))
    except UsageError as error:
        warn(logger, RunMessage.LICENCE_NOT_WRITTEN, reason=error)
        return None

"""Licences of models, by their ids on the Hub: which is the strictest, and which contradict each other.

`published/licences.csv` lists them in the order of their strictness. A share-alike licence only allows itself, and the
licences in whose column `includes` it stands.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from ..errors import CommandLineError, UsageError, did_you_mean
from .messages import SettingsMessage

LICENCES_CSV = Path(__file__).parents[1] / "published" / "licences.csv"
MAX_TITLE_POSITION = 2000  # characters of a LICENSE file that contain its title
CONTRADICTIONS = ({"apache-2.0", "gpl-2.0"},)  # of a permissive licence


class Terms(str, Enum):
    """What a licence demands of derived models."""

    PERMISSIVE = "permissive"
    RESTRICTED_USE = "restricted_use"
    SHARE_ALIKE = "share_alike"
    NON_COMMERCIAL = "non_commercial"
    NON_COMMERCIAL_SHARE_ALIKE = "non_commercial_share_alike"
    NO_DERIVATIVES = "no_derivatives"
    OWN_TERMS = "own_terms"


@dataclass(frozen=True)
class Licence:
    """A licence.

    Args:
        id: of the Hub.
        terms: what it demands of derived models.
        includes: share-alike licences whose models may be published under this one.
        title: text that its LICENSE file contains; empty: not recognised.
        rank: position in the list, from permissive to strict.
    """

    id: str
    terms: Terms
    includes: frozenset[str]
    title: str
    rank: int


class LicenceOrigin(str, Enum):
    """Where the licence of a model was found."""

    CATALOGUE = "catalogue"
    FILE_NAME = "file_name"  # of an entry of the catalogue
    CHECKPOINT = "checkpoint"  # written by `hf-mae export`
    MODEL_CARD = "model_card"
    LICENCE_FILE = "licence_file"
    RANDOM_WEIGHTS = "random_weights"
    UNKNOWN = "unknown"


class LicenceRole(str, Enum):
    """Which model a licence is inherited from."""

    BASE = "base"
    TEACHER = "teacher"
    MEMBER = "member"


@dataclass(frozen=True)
class LicenceFact:
    """The licence of a model that a run is derived from.

    Args:
        role: which model it is.
        source: name or path of the model.
        licence: id of the Hub; None: unknown, or the weights were random.
        origin: where the licence was found.
    """

    role: LicenceRole
    source: str
    licence: str | None
    origin: LicenceOrigin


@cache
def load_licences() -> dict[str, Licence]:
    """Reads the known licences, by id."""
    with open(LICENCES_CSV, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["id"]: Licence(row["id"], Terms(row["terms"]), frozenset(row["includes"].split()), row["title"], rank)
        for rank, row in enumerate(rows)
    }


def parse_licence(text: str | None) -> str | None:
    """Returns the id of a licence, e.g. of `CC BY-NC 4.0`, `Apache-2.0` or `GPL-3.0-or-later`; None: it is unknown."""
    name = re.sub(r"[\s_]+", "-", (text or "").strip().lower())
    name = re.sub(r"-(only|or-later)$", "", name)
    return name if name in load_licences() else None


def find_licence_in_text(text: str) -> str | None:
    """Returns the licence of a LICENSE file, by its title or its SPDX identifier; None: it is not recognised."""
    head = text[:MAX_TITLE_POSITION]
    if match := re.search(r"SPDX-License-Identifier:\s*([\w.+-]+)", head):
        return parse_licence(match[1])
    words = " ".join(head.split()).lower()
    found = [entry for entry in load_licences().values() if entry.title and entry.title.lower() in words]
    return max(found, key=lambda entry: len(entry.title)).id if found else None


def combine_licences(licences: Iterable[tuple[str, str]]) -> str | None:
    """Returns the licence of a model that is derived from several models: the strictest; None: without a model.

    Args:
        licences: licence (known id) and name of each model.

    Raises:
        UsageError: If a licence does not allow derived models, or two licences cannot be satisfied together.
    """
    result: tuple[Licence, str] | None = None
    for licence_id, name in licences:
        licence = load_licences()[licence_id]
        if licence.terms is Terms.NO_DERIVATIVES:
            raise UsageError(SettingsMessage.LICENCE_WITHOUT_DERIVATIVES, name=name, licence=licence_id)
        if result is None:
            result = licence, name
        elif (combined := _combine(result[0], licence)) is None:
            first = f"{result[1]} ({result[0].id})"
            raise UsageError(SettingsMessage.LICENCES_CONTRADICT, first=first, second=f"{name} ({licence_id})")
        elif combined is licence:
            result = licence, name
    return result[0].id if result else None


def _combine(first: Licence, second: Licence) -> Licence | None:
    """Returns the licence that satisfies both; None: it does not exist."""
    low, high = sorted((first, second), key=lambda entry: entry.rank)
    terms = {low.terms, high.terms}
    if low is high or low.id in high.includes:
        return high
    if Terms.PERMISSIVE in terms and {low.id, high.id} not in CONTRADICTIONS:
        return high if low.terms is Terms.PERMISSIVE else low
    if terms <= {Terms.NON_COMMERCIAL, Terms.NON_COMMERCIAL_SHARE_ALIKE}:
        return high
    return None


def check_stated_licence(stated: str, inherited: str | None) -> str:
    """Checks that a model may be published under a licence that its user states; returns its id.

    Args:
        inherited: result of `combine_licences`.

    Raises:
        CommandLineError: If the id is unknown, or the licence permits more than the inherited one.
    """
    licence = parse_licence(stated)
    if licence is None:
        suggestion = did_you_mean(stated.lower(), load_licences())
        raise CommandLineError(SettingsMessage.UNKNOWN_LICENCE, value=stated, suggestion=suggestion)
    entries = load_licences()
    if inherited and _combine(entries[licence], entries[inherited]) is not entries[licence]:
        raise CommandLineError(SettingsMessage.LICENCE_TOO_PERMISSIVE, stated=licence, inherited=inherited)
    return licence

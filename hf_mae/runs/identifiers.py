"""Names that may identify a patient: which names are published as they are, and random codes for the others.

A name is published if each of its words is neutral (a class, a split, `frame`, ...) and its numbers are short, or if it
is a random identifier (UUID, hash). No list of names of people is needed.
"""

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path

from ..data.images.videos import VIDEO_SUFFIXES
from ..data.sources.image_files import DICOM_SUFFIXES, HEIC_SUFFIXES, IMAGE_SUFFIXES, META_IMAGE_SUFFIXES
from ..data.splits import SPLITS
from ..errors import UsageError
from ..files.atomic import atomic_write_file, set_mode
from ..files.frame_names import file_of_frame
from ..settings.benchmarks import BENCHMARKS_DIR
from ..settings.inputs import CATALOGUE_FILE
from .messages import RunMessage

FILE_SUFFIXES = (*IMAGE_SUFFIXES, *HEIC_SUFFIXES, *DICOM_SUFFIXES, *META_IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
PSEUDONYMS_FILE = "pseudonyms.json"  # in the folder of the run; it is never published
PRIVATE_MODE = 0o600
MIN_GROUP_LENGTH = 4  # characters of a patient that is searched in names; shorter ones are in many counters
NEUTRAL_WORDS = frozenset(
    """
    annotated archive augmented balanced base batch best biopsy bmp both capsule checkpoint class classes clean clip
    cls colon colonoscopies colonoscopy copy corrections crop csv curated data database dataset dcm demo distilled
    endo endoscopic endoscopies endoscopy ensemble eval evaluation example external figure file final finetune
    finetuned first fold folder frame frames ft full gastroscopy gif grade group huge image images img imgs internal
    jpeg jpg json label labelled labels large left list local lower mae manifest map mask mayo mean medical member
    merged model mucosa new normal old original pairs part patch pic picture pixel png polyp pretrain pretrained
    processed pth public raw resized right run sample scan score second seed set shard similar similarities size
    slice small source split splits ssl student subset table tar teacher test testing third tif tiff tile tiny toy
    train training unlabeled unlabelled upper val valid validate validation version vid video videos view vit webp
    weights zip
    """.split()
)
PATIENT_WORDS = frozenset("patient patients pat pid mrn dob ssn case subject accession name surname birth".split())
MONTH, DAY, YEAR, SEPARATOR = "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])", "(19|20)[0-9]{2}", "[-_. ]?"
DATE = re.compile(
    rf"(?<!\d)({YEAR}{SEPARATOR}{MONTH}{SEPARATOR}{DAY}|({DAY}{SEPARATOR}{MONTH}|{MONTH}{SEPARATOR}{DAY})"
    rf"{SEPARATOR}{YEAR})(?!\d)"
)
RANDOM_ID = re.compile(  # UUID; hexadecimal; cuid
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=.*[0-9])(?=.*[a-f])[0-9a-f]{12,64}|c(?=.*[0-9])[0-9a-z]{24}", re.I
)
PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+")  # words (also of camelCase) and numbers


class IdentifierKind(str, Enum):
    """Why a name is not published; the first that applies."""

    GROUP = "group"
    DATE = "date"
    PATIENT_WORD = "patient_word"
    LONG_NUMBER = "long_number"
    UNKNOWN_WORD = "unknown_word"


@cache
def _known_words() -> frozenset[str]:
    """Returns the neutral words, with those of the benchmarks and of the public checkpoints."""
    checkpoints = (line.split(",")[0] for line in CATALOGUE_FILE.read_text(encoding="utf-8").splitlines())
    return NEUTRAL_WORDS | split_words([*SPLITS, *checkpoints, *(path.stem for path in BENCHMARKS_DIR.glob("*.yaml"))])


def split_words(names: Iterable[str]) -> frozenset[str]:
    """Returns the words of names, in lower case."""
    return frozenset(part.lower() for name in names for part in PARTS.findall(name) if part.isalpha())


def normalize(name: str) -> str:
    """Returns a name without case and separators, so that `DOE_JANE` equals `Doe Jane`."""
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


@dataclass(frozen=True)
class NameRules:
    """Decides which names are published.

    Args:
        words: further neutral words: those of the class names.
        groups: patients or videos (`normalize`).
        ambiguous: those of several patients, such as `P-1` and `P 1`.
    """

    words: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    ambiguous: frozenset[str] = frozenset()

    @classmethod
    def from_data(cls, class_names: Iterable[str], groups: Iterable[str] = ()) -> "NameRules":
        """Builds the rules of a dataset, from the names of its classes, and of its patients or videos."""
        counts = Counter(map(normalize, set(groups)))
        ambiguous = frozenset(name for name, count in counts.items() if count > 1)
        return cls(split_words(class_names), frozenset(counts), ambiguous)

    def find_identifier(self, name: str) -> IdentifierKind | None:
        """Returns why a name (of a folder, or of a file without suffix) may identify a patient; None: it does not."""
        text = f" {normalize(name)} "
        if any(f" {group} " in text for group in self.groups if len(group) >= MIN_GROUP_LENGTH):
            return IdentifierKind.GROUP
        if RANDOM_ID.fullmatch(name) or all(RANDOM_ID.fullmatch(p) or _is_counter(p) for p in re.split("[_ ]", name)):
            return None
        if DATE.search(name):
            return IdentifierKind.DATE
        kinds = {self._classify(part) for part in PARTS.findall(name)}
        return next((kind for kind in IdentifierKind if kind in kinds), None)

    def _classify(self, part: str) -> IdentifierKind | None:
        if part.isdigit():
            return None if _is_counter(part) else IdentifierKind.LONG_NUMBER
        word = part.lower()
        if word in PATIENT_WORDS:
            return IdentifierKind.PATIENT_WORD
        is_known = len(word) == 1 or any(w in self.words or w in _known_words() for w in (word, word.removesuffix("s")))
        return None if is_known else IdentifierKind.UNKNOWN_WORD


def _is_counter(digits: str) -> bool:
    """Whether a number is that of a frame or image, and not of a patient."""
    return digits.isdigit() and (len(digits) <= 5 or (len(digits) <= 7 and int(digits) < 10_000))


@dataclass
class Pseudonyms:
    """Random codes of names: the same name has the same code in every file, and in a later publication.

    Args:
        path: key file (JSON, name -> code), with mode 0600.
        rules: decide which names are replaced.
        codes: code by name.
        replaced: the names that were replaced, and why.
    """

    path: Path
    rules: NameRules
    codes: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, IdentifierKind] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, rules: NameRules) -> "Pseudonyms":
        """Reads the key file, if it exists.

        Raises:
            UsageError: If it is not a key file.
        """
        if not path.is_file():
            return cls(path, rules)
        try:
            codes = json.loads(path.read_text(encoding="utf-8"))
            if not all(isinstance(code, str) for code in codes.values()):
                raise TypeError
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise UsageError(RunMessage.PSEUDONYMS_DAMAGED, path=path) from None
        return cls(path, rules, codes)

    def code(self, name: str, kind: IdentifierKind = IdentifierKind.GROUP) -> str:
        """Returns the code of a name; a patient has one code, however the name is written."""
        normal = normalize(name)
        key = normal if normal in self.rules.groups - self.rules.ambiguous else name
        self.replaced[key] = kind
        return self.codes.setdefault(key, f"id-{secrets.token_hex(8)}")

    def file_name(self, name: str) -> str:
        """Replaces the folders and the stem of a file name that may identify a patient."""
        file = file_of_frame(name)
        *folders, last = [part for part in file.replace("\\", "/").split("/") if part not in ("", ".", "..")] or [""]
        suffix = next((last[-len(end) :] for end in FILE_SUFFIXES if last.lower().endswith(end)), "")
        parts = [*map(self._public_part, folders), self._public_part(last.removesuffix(suffix)) + suffix]
        return "/".join(parts) + name[len(file) :]

    def _public_part(self, part: str) -> str:
        kind = self.rules.find_identifier(part)
        return self.code(part, kind) if kind else part

    def save(self) -> None:
        """Writes the key file, which only its owner can read."""
        if not self.codes:
            return
        with atomic_write_file(self.path) as temporary:
            set_mode(temporary, PRIVATE_MODE)
            temporary.write_text(json.dumps(self.codes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        set_mode(self.path, PRIVATE_MODE)

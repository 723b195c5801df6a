"""The catalogue of benchmarks: classes, official splits, published counts and figures, licences and citations.

A benchmark is a file (published/benchmarks/NAME.yaml, or one of the user's own): data that can be checked line by line;
`archives` makes data sets of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ..errors import UsageError, did_you_mean

BENCHMARKS_DIR = Path(__file__).parents[1] / "published" / "benchmarks"
KEY_BY_NAME, KEY_BY_CLASS_AND_NAME = "name", "class and name"
SplitCounts = dict[str, int]


@dataclass(frozen=True)
class SplitFile:
    """A table of the official split, where it is published, and what it must hash to.

    Args:
        split: that all its images belong to, or the number of their half (fold 1 trains on half 1, and validates on the
            other); None: a column tells.
        fold: that it is of; None: of all.
    """

    name: str
    url: str
    sha256: str
    split: str | None = None
    fold: int | None = None

    @property
    def split_or_half(self) -> str | int:
        """The split, or the number of the half."""
        return int(self.split) if self.split and self.split.isdigit() else self.split or "train"


@dataclass(frozen=True)
class SplitTable:
    """How the split files are read.

    Args:
        format: `csv`, or `json by class` ({class: [file names]}).
        name, label, split, group: columns; of `label` perhaps several, by `--agreement`, the first by default. Rows
            without a label are left out.
        splits: what the split column holds -> a split, or the number of a half.
        columns: that are kept, by the name that they get.
    """

    format: str = "csv"
    delimiter: str = ","
    name: str = "file_name"
    label: str | dict[str, str] = "label"
    split: str | None = None
    splits: dict[str, str | int] = field(default_factory=dict)
    group: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def agreements(self) -> list[str]:
        """What `--agreement` takes."""
        return list(self.label) if isinstance(self.label, dict) else []

    def label_column(self, agreement: str | None) -> str:
        """The column with the class."""
        return self.label if isinstance(self.label, str) else self.label[agreement or self.agreements[0]]


@dataclass(frozen=True)
class PublishedResult:
    """A published row.

    Args:
        protocol: on which split; one that is `ranked` is among the benchmark's own.
        scores: in per cent, as printed (`86.20±0.20`), by name.
        selected_on_eval_split: whether the epoch was chosen on the images that are evaluated; None: not said.
        patients_disjoint: whether no patient is on both sides; None: not said.
    """

    method: str
    protocol: str
    scores: dict[str, str]
    source: str
    ranked: bool = False
    initialisation: str = ""
    selected_on_eval_split: bool | None = None
    patients_disjoint: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Benchmark:
    """One classification task on one archive.

    Args:
        classes: in the order of their ids; of grades from the lowest.
        protocols: numbers of images by split, of every fold, by the name of the split; `all` where there is none.
        images: in the whole archive.
        folders: class -> folder of the archive, where they differ.
        image_folders: only images below folders of these names are looked at, where there are any.
        key: what tells an image: its name, or its class folder and name.
        split_folders: folder -> split, where folders tell it.
        test_folder: whose images are the test split, in class folders.
        folds: 0: one official split, or none.
        group_pattern: a regular expression on the file's name without its extension, whose first group is the patient
            or video.
        groups_by_half: patients or videos of each half, in place of the official ones.
        conflicting_labels: `refused`, or `left out`: images that the split files give two labels.
        ordered: whether the classes are grades.
        positive: classes of the published two-sided task.
        guaranteed, not_guaranteed: what is to be known of the split.
        see_also: another benchmark of the same images, whose figures are to be read beside these.
    """

    title: str
    classes: tuple[str, ...]
    protocols: dict[str, list[SplitCounts]]
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    images: int = 0
    folders: dict[str, str] = field(default_factory=dict)
    image_folders: tuple[str, ...] = ()
    key: str = KEY_BY_NAME
    split_files: tuple[SplitFile, ...] = ()
    split_table: SplitTable = SplitTable()
    split_folders: dict[str, str] = field(default_factory=dict)
    test_folder: str | None = None
    folds: int = 0
    group_pattern: str | None = None
    groups_by_half: tuple[tuple[str, ...], ...] = ()
    conflicting_labels: str = "error"
    ordered: bool = False
    positive: tuple[str, ...] = ()
    guarantees: str = ""
    limitations: str = ""
    see_also: str | None = None
    published_results: tuple[PublishedResult, ...] = ()

    @property
    def keyed_by_class(self) -> bool:
        """Whether a file name alone does not tell the image."""
        return self.key == KEY_BY_CLASS_AND_NAME

    @property
    def has_split(self) -> bool:
        """Whether there is an official split."""
        return bool(self.split_files or self.split_folders)

    @property
    def main_protocol(self) -> str:
        """The first."""
        return next(iter(self.protocols))

    @property
    def eval_split(self) -> str:
        """The split that published figures are of: the test split where there is one."""
        return "test" if "test" in self.split_counts(1) else "validation"

    def class_folder(self, class_name: str) -> str:
        """The archive's folder of a class."""
        return self.folders.get(class_name, class_name)

    def match_protocol(self, fold: int, counts: SplitCounts) -> str | None:
        """Which published split a run's numbers of images are those of; None: of none.

        Args:
            counts: images by split, `train` whole.
        """
        found = (name for name in self.protocols if self.split_counts(fold, name) == counts)
        return next((name for name in found if "all" not in counts), None)

    def split_counts(self, fold: int, protocol: str | None = None) -> SplitCounts:
        """Published images by split, of a fold."""
        counts = self.protocols[protocol or self.main_protocol]
        return counts[fold - 1 if len(counts) > 1 else 0]


class Catalogue(Mapping[str, Benchmark]):
    """The benchmarks of the package by name, each read when it is asked for."""

    def __getitem__(self, name: str) -> Benchmark:
        if name not in self._names():
            raise KeyError(name)
        return _read_packaged(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    @staticmethod
    @cache
    def _names() -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in BENCHMARKS_DIR.glob("*.yaml")))


BENCHMARKS = Catalogue()


def find_benchmark(name: str) -> Benchmark:
    """A benchmark of the catalogue, or of a YAML file.

    Raises:
        UsageError: there is none of this name, or the file is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _read_file(Path(name))
    if name not in BENCHMARKS:
        raise UsageError(
            f"No benchmark is called {name}{did_you_mean(name, BENCHMARKS)}: choose one of {', '.join(BENCHMARKS)}, or pass "
            "a file of your own (.yaml)."
        )
    return BENCHMARKS[name]


def find_benchmark_or_none(name: str | None) -> Benchmark | None:
    """The benchmark that a run was of; None: of none, or of a file that is not there any more."""
    try:
        return find_benchmark(name) if name else None
    except UsageError:
        return None


@cache
def _read_packaged(name: str) -> Benchmark:
    return _read_file(BENCHMARKS_DIR / f"{name}.yaml")


def _read_file(path: Path) -> Benchmark:
    from .benchmark_files import read_benchmark

    return read_benchmark(path)

"""The catalogue of benchmarks: classes, official splits, published counts and results, licences and citations.

A benchmark is a YAML file (published/benchmarks/NAME.yaml, or a user's file). `benchmark_loading` loads its images.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ...errors import UsageError, did_you_mean
from ..messages import DataMessage

BENCHMARKS_DIR = Path(__file__).parents[2] / "published" / "benchmarks"
KEY_BY_NAME, KEY_BY_CLASS_AND_NAME = "name", "class and name"
SplitCounts = dict[str, int]


@dataclass(frozen=True)
class SplitFile:
    """A table of the official split, with its address and SHA-256.

    Args:
        split: the split of all its images, or the number of their half (fold 1 trains on half 1 and validates on half
            2); None if a column has it.
        fold: the fold of the file; None if it is used by all folds.
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
    """Format and columns of the split files.

    Args:
        format: `csv`, or `json by class` ({class: [file names]}).
        delimiter: delimiter of a CSV.
        name, label, split, group: column names. `label` may be a mapping from `--agreement` to a column; the default is
            its first. Rows without a label are skipped.
        splits: value of the split column -> split, or number of a half.
        columns: other columns that are kept: new name -> column.
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
        """The valid values of `--agreement`."""
        return list(self.label) if isinstance(self.label, dict) else []

    def label_column(self, agreement: str | None) -> str:
        """Returns the column with the class of an image."""
        return self.label if isinstance(self.label, str) else self.label[agreement or self.agreements[0]]


@dataclass(frozen=True)
class PublishedResult:
    """A published row.

    Args:
        protocol: the split. The protocol of a `ranked` row is one of the benchmark's own.
        scores: score name -> percentage as printed (`86.20±0.20`).
        selected_on_eval_split: whether the epoch was selected on the evaluated images; None if not stated.
        patients_disjoint: whether no patient is in both training and evaluation; None if not stated.
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
        title: one line for tables.
        classes: in the order of their ids; grades from the lowest to the highest.
        protocols: name of a split -> numbers of images per split (`all` without an official split), for each fold.
        homepage, licence, citation: of the dataset.
        images: number of images in the complete archive.
        folders: class -> folder of the archive, if they differ.
        image_folders: names of folders; if the archive has any of them, images elsewhere are ignored.
        key: what identifies an image: its file name, or its class folder and file name.
        split_files, split_table: the official split, if it is published as tables.
        split_folders: folder -> split, if the folders define the split.
        test_folder: folder whose class folders are the test split.
        folds: number of official folds; 0 for a single split or none.
        group_pattern: regular expression on the file stem; its first group is the patient or video.
        groups_by_half: patients or videos of each half, in place of the official halves.
        conflicting_labels: for images with two labels in the split files: `error`, or `exclude`.
        ordered: whether the classes are grades.
        positive: positive classes of the published binary task.
        guarantees, limitations: properties of the split.
        see_also: another benchmark with the same images, for comparison.
        published_results: published scores.
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
        """Whether a file name alone does not identify an image."""
        return self.key == KEY_BY_CLASS_AND_NAME

    @property
    def has_split(self) -> bool:
        """Whether there is an official split."""
        return bool(self.split_files or self.split_folders)

    @property
    def main_protocol(self) -> str:
        """The first protocol."""
        return next(iter(self.protocols))

    @property
    def eval_split(self) -> str:
        """The split of published results: the test split if there is one, otherwise the validation split."""
        return "test" if "test" in self.split_counts(1) else "validation"

    def class_folder(self, class_name: str) -> str:
        """Returns the folder of a class in the archive."""
        return self.folders.get(class_name, class_name)

    def match_protocol(self, fold: int, counts: SplitCounts) -> str | None:
        """Returns the published split with a run's numbers of images, or None.

        Args:
            fold: the fold of the run.
            counts: images per split, with the complete `train`.
        """
        names = (name for name in self.protocols if self.split_counts(fold, name) == counts)
        return next((name for name in names if "all" not in counts), None)

    def split_counts(self, fold: int, protocol: str | None = None) -> SplitCounts:
        """Returns the published numbers of images per split, for a fold."""
        counts = self.protocols[protocol or self.main_protocol]
        return counts[fold - 1 if len(counts) > 1 else 0]


class Catalogue(Mapping[str, Benchmark]):
    """The benchmarks of the package by name; each file is read at its first use."""

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
    """Finds a benchmark from the catalogue or from a YAML file.

    Raises:
        UsageError: If the name is unknown or the file is invalid.
    """
    if name.endswith((".yaml", ".yml")):
        return _read_file(Path(name))
    if name not in BENCHMARKS:
        suggestion = did_you_mean(name, BENCHMARKS)
        raise UsageError(DataMessage.UNKNOWN_BENCHMARK, name=name, suggestion=suggestion, known=list(BENCHMARKS))
    return BENCHMARKS[name]


def find_benchmark_or_none(name: str | None) -> Benchmark | None:
    """Finds the benchmark of a run; None if it had none or if the file no longer exists."""
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

"""The catalogue of endoscopy benchmarks: classes, official splits, published counts, licences and citations.

Data that can be checked line by line; `archives.py` makes data sets of it.
"""

from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

_GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class SplitFile:
    """A CSV of the official split, where it is published, and what it must hash to."""

    name: str
    url: str
    sha256: str
    split: str | None = None  # the split that all its rows belong to; None: the file has a column of indices


@dataclass(frozen=True)
class Benchmark:
    """One classification task on one archive."""

    title: str
    classes: tuple[str, ...]  # in the order of their ids
    split_files: tuple[SplitFile, ...]
    counts: dict[str, int]  # published images by split; of fold 1 where there are folds, of `all` without a split
    folds: int  # 0: one official split, or none
    keyed_by_class: bool  # whether a file name alone does not tell the image
    quality_counts: dict[str, int] = field(default_factory=dict)  # the same after the published quality exclusion
    folders: dict[str, str] = field(default_factory=dict)  # class -> folder of the archive, where they differ
    ordered: bool = False  # whether the classes are grades, in this order
    positive: tuple[str, ...] = ()  # classes of its published two-sided task
    licence: str = ""
    homepage: str = ""
    citation: str = ""

    def folder_of(self, name: str) -> str:
        """The archive's folder of a class."""
        return self.folders.get(name, name)

    def protocol(self, fold: int, counts: dict[str, int]) -> str | None:
        """Which published split a run's numbers of images are those of; None: of none.

        Args:
            counts: images by split, `train` whole.
        """
        if counts == self.counts_of(fold):
            return "official"
        if self.quality_counts and counts == _of_fold(self.quality_counts, fold):
            return "official, quality exclusion"
        return None

    def counts_of(self, fold: int) -> dict[str, int]:
        """Published images by split, of a fold."""
        return _of_fold(self.counts, fold)


def _of_fold(counts: dict[str, int], fold: int) -> dict[str, int]:
    """Counts of fold 1 as those of another: the second trains on what the first validates on."""
    return {"train": counts["validation"], "validation": counts["train"]} if fold == 2 else counts


_HYPERKVASIR_FOLDERS = {
    "hemorroids": "hemorrhoids",
    "normal-cecum": "cecum",
    "normal-pylorus": "pylorus",
    "normal-z-line": "z-line",
    "oesophagitis-a": "esophagitis-a",
    "oesophagitis-b-d": "esophagitis-b-d",
    "polyp": "polyps",
    "short-segment-barretts": "barretts-short-segment",
}

_HYPERKVASIR_16 = (
    "bbps-0-1",
    "bbps-2-3",
    "dyed-lifted-polyps",
    "dyed-resection-margins",
    "impacted-stool",
    "normal-cecum",
    "normal-pylorus",
    "normal-z-line",
    "oesophagitis-a",
    "oesophagitis-b-d",
    "polyp",
    "retroflex-rectum",
    "retroflex-stomach",
    "ulcerative-colitis-grade-1",
    "ulcerative-colitis-grade-2",
    "ulcerative-colitis-grade-3",
)

_HYPERKVASIR_RARE = (  # 100 images or fewer
    "barretts",
    "hemorroids",
    "ileum",
    "short-segment-barretts",
    "ulcerative-colitis-grade-0-1",
    "ulcerative-colitis-grade-1-2",
    "ulcerative-colitis-grade-2-3",
)

_GASTROVISION_22 = (
    "Accessory tools",
    "Barrett's esophagus",
    "Blood in lumen",
    "Cecum",
    "Colon diverticula",
    "Colon polyps",
    "Colorectal cancer",
    "Duodenal bulb",
    "Dyed-lifted-polyps",
    "Dyed-resection-margins",
    "Esophagitis",
    "Gastric polyps",
    "Gastroesophageal_junction_normal z-line",
    "Ileocecal valve",
    "Mucosal inflammation large bowel",
    "Normal esophagus",
    "Normal mucosa and vascular pattern in the large bowel",
    "Normal stomach",
    "Pylorus",
    "Resected polyps",
    "Retroflex rectum",
    "Small bowel_terminal ileum",
)

_HYPERKVASIR: dict[str, Any] = {
    "split_files": (
        SplitFile(
            "2_fold_split.csv",
            f"{_GITHUB}/simula/hyper-kvasir/master/official_splits/2_fold_split.csv",
            "e9bc264da8dd4ce5ebd6654080eb9ec8a00fd28c3d03a75a2c80b1eb5a096c06",
        ),
    ),
    "folds": 2,
    "keyed_by_class": False,
    "folders": _HYPERKVASIR_FOLDERS,
    "licence": "for research and education (its mirrors say CC BY 4.0)",
    "homepage": "https://datasets.simula.no/hyper-kvasir/",
    "citation": "Borgli et al., HyperKvasir, a comprehensive multi-class image and video dataset for gastrointestinal "
    "endoscopy, Scientific Data 7:283, 2020, doi:10.1038/s41597-020-00622-y",
}

_GASTROVISION_RARE = ("Angiectasia", "Erythema", "Esophageal varices", "Resection margins", "Ulcer")

_GASTROVISION: dict[str, Any] = {
    "folds": 0,
    "keyed_by_class": True,
    "licence": "CC BY 4.0",
    "homepage": "https://osf.io/84e7f/",
    "citation": "Jha et al., GastroVision: a multi-class endoscopy image dataset for computer aided gastrointestinal "
    "disease detection, ML4MHD at ICML 2023, doi:10.1007/978-3-031-47679-2_10",
}

BENCHMARKS = {
    "hyperkvasir-23": Benchmark(
        title="HyperKvasir, all 23 classes, official 2 folds",
        classes=tuple(sorted(_HYPERKVASIR_16 + _HYPERKVASIR_RARE)),
        counts={"train": 5324, "validation": 5338},
        quality_counts={"train": 5200, "validation": 5219},
        **_HYPERKVASIR,
    ),
    "hyperkvasir-16": Benchmark(
        title="HyperKvasir, the 16 classes with more than 100 images, official 2 folds",
        classes=_HYPERKVASIR_16,
        counts={"train": 5235, "validation": 5244},
        quality_counts={"train": 5111, "validation": 5126},
        **_HYPERKVASIR,
    ),
    "gastrovision-22": Benchmark(
        title="GastroVision, 22 classes, official split",
        classes=_GASTROVISION_22,
        split_files=tuple(
            SplitFile(f"{name}.csv", f"{_GITHUB}/DebeshJha/GastroVision/main/Split/{name}.csv", sha256, split)
            for name, split, sha256 in (
                ("train", "train", "77f4a21393e5f4e50bed344d5d5f82fa128bbe4ddd0e173601c814e3963618ce"),
                ("validate", "validation", "68a80d3390817edebab3446304dd34d22d511fcb8ae31834aabe4fb444c860ab"),
                ("test", "test", "d8004c1970068d1451d1338cd4e785786ea3fc7a652a4f68edeae9561ea4f2d1"),
            )
        ),
        counts={"train": 4757, "validation": 1587, "test": 1586},
        **_GASTROVISION,
    ),
    "gastrovision-27": Benchmark(
        title="GastroVision, all 27 classes, no official split",
        classes=tuple(sorted(_GASTROVISION_22 + _GASTROVISION_RARE)),
        split_files=(),
        counts={"all": 8000},
        **_GASTROVISION,
    ),
    "kvasir-v2": Benchmark(
        title="Kvasir v2, 8 classes of 1,000 images, no official split",
        classes=(
            "dyed-lifted-polyps",
            "dyed-resection-margins",
            "esophagitis",
            "normal-cecum",
            "normal-pylorus",
            "normal-z-line",
            "polyps",
            "ulcerative-colitis",
        ),
        split_files=(),
        counts={"all": 8000},
        folds=0,
        keyed_by_class=True,
        licence="for research and education",
        homepage="https://datasets.simula.no/kvasir/",
        citation="Pogorelov et al., KVASIR: a multi-class image dataset for computer aided gastrointestinal disease "
        "detection, MMSys 2017, doi:10.1145/3083187.3083212",
    ),
}


def find_benchmark(name: str) -> Benchmark:
    """A benchmark of the catalogue; a UsageError where there is none of this name."""
    if name not in BENCHMARKS:
        raise UsageError(f"No benchmark is called {name}: choose one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]

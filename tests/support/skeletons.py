"""Skeletons of the real archives: every file name of the official lists, as a tiny JPEG in the archive's own tree."""

import csv
import io
from pathlib import Path

from PIL import Image

from hf_mae.data import BENCHMARKS

HYPERKVASIR_TREE = {
    "lower-gi-tract/anatomical-landmarks": ("cecum", "ileum", "retroflex-rectum"),
    "lower-gi-tract/pathological-findings": (
        *("hemorrhoids", "polyps", "ulcerative-colitis-grade-0-1", "ulcerative-colitis-grade-1-2"),
        *("ulcerative-colitis-grade-2-3", "ulcerative-colitis-grade-1", "ulcerative-colitis-grade-2"),
        "ulcerative-colitis-grade-3",
    ),
    "lower-gi-tract/quality-of-mucosal-views": ("bbps-0-1", "bbps-2-3", "impacted-stool"),
    "lower-gi-tract/therapeutic-interventions": ("dyed-lifted-polyps", "dyed-resection-margins"),
    "upper-gi-tract/anatomical-landmarks": ("pylorus", "retroflex-stomach", "z-line"),
    "upper-gi-tract/pathological-findings": (
        *("barretts", "barretts-short-segment", "esophagitis-a", "esophagitis-b-d"),
    ),
}


def jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (150, 60, 60)).save(content, "JPEG")
    return content.getvalue()


def make_hyperkvasir(root: Path, splits: Path) -> Path:
    where = {name: f"labeled-images/{tree}/{name}" for tree, names in HYPERKVASIR_TREE.items() for name in names}
    folders = BENCHMARKS["hyperkvasir-23"].folders
    content = jpeg()
    for row in csv.DictReader(open(splits / "hyperkvasir/2_fold_split.csv"), delimiter=";"):
        name = row["class-name"]
        path = root / where[folders.get(name, name)] / row["file-name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # The archive also holds segmented images, which are labelled images again under the same name.
    (root / "segmented-images" / "images").mkdir(parents=True)
    polyp = next((root / where["polyps"]).iterdir())
    (root / "segmented-images" / "images" / polyp.name).write_bytes(content)
    return root


def make_gastrovision(root: Path, splits: Path) -> Path:
    content = jpeg()
    for row in csv.DictReader(open(splits / "gastrovision/GastroVision_metadata.csv")):
        path = root / row["Class"] / row["Filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def official(shared_data: Path, name: str) -> list[str]:
    """Copies of a benchmark's official CSVs."""
    folder = shared_data / "splits" / ("hyperkvasir" if name.startswith("hyper") else "gastrovision")
    return [str(folder / file.name) for file in BENCHMARKS[name].split_files]

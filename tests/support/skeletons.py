"""Skeletons of the real archives: all files of the official lists, as tiny JPEGs in the original folders."""

import csv
import io
import json
import os
from pathlib import Path

from PIL import Image

from hf_mae.settings.benchmarks import BENCHMARKS

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


def make_jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (150, 60, 60)).save(content, "JPEG")
    return content.getvalue()


def make_hyperkvasir(root: Path, splits: Path) -> Path:
    folder_by_class = {
        name: f"labeled-images/{tree}/{name}" for tree, names in HYPERKVASIR_TREE.items() for name in names
    }
    folders = BENCHMARKS["hyperkvasir-23"].folders
    content = make_jpeg()
    for row in csv.DictReader(open(splits / "hyperkvasir/2_fold_split.csv"), delimiter=";"):
        name = row["class-name"]
        path = root / folder_by_class[folders.get(name, name)] / row["file-name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # The archive also contains segmented images: copies of labelled images with the same names.
    (root / "segmented-images" / "images").mkdir(parents=True)
    polyp = next((root / folder_by_class["polyps"]).iterdir())
    (root / "segmented-images" / "images" / polyp.name).write_bytes(content)
    return root


def make_gastrovision(root: Path, splits: Path) -> Path:
    content = make_jpeg()
    for row in csv.DictReader(open(splits / "gastrovision/GastroVision_metadata.csv")):
        path = root / row["Class"] / row["Filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def list_official_split_files(shared_data: Path, name: str) -> list[str]:
    """Local copies of a benchmark's official split files."""
    stem = name.split("-11")[0].rsplit("-", 1)[0] if "-11" not in name else "kvasir_capsule"
    folder = shared_data / "splits" / stem.replace("-", "_")
    return [str(folder / file.name) for file in BENCHMARKS[name].split_files]


def make_linked_tree(root: Path, names: list[str]) -> Path:
    """A tree of hard links to one small image."""
    root.mkdir(parents=True, exist_ok=True)
    image = root / "one_image"
    image.write_bytes(make_jpeg())
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(image, path)
    image.unlink()
    return root


def make_gastrohun(root: Path, splits: Path) -> Path:
    with open(splits / "gastrohun/image_classification.csv", newline="") as file:
        names = [f"Labeled Images/{row['num patient']}/{row['filename']}" for row in csv.DictReader(file)]
    return make_linked_tree(root, names)


def make_kvasir_capsule(root: Path, splits: Path) -> Path:
    """The archive's folders, whose names differ from those in the table, with images of a class that is in no fold."""
    folders, names = BENCHMARKS["kvasir-capsule-11"].folders, {}
    for half in "01":
        with open(splits / f"kvasir_capsule/split_{half}.csv", newline="") as file:
            for row in csv.DictReader(file):
                names[row["filename"]] = folders.get(row["label"], row["label"])
    others = [f"labelled_images/Polyp/{'0' * 16}_{number}.jpg" for number in range(55)]
    return make_linked_tree(root, [f"labelled_images/{folder}/{name}" for name, folder in names.items()] + others)


def make_limuc(root: Path, splits: Path) -> Path:
    """The archive with the copies by patient, and 1,686 test images of other patients."""
    names = []
    for part in ("train", "val"):
        for label, files in json.loads((splits / f"limuc/fold_0/{part}.json").read_text()).items():
            names += [f"train_and_validation_sets/{label}/{name}" for name in files]
    for number in range(1686):
        names.append(f"test_set/Mayo {number % 4}/UC_patient_{1000 + number // 20}_{number}.bmp")
    copies = [f"patient_based_classified_images/1/{Path(name).parent.name}/{Path(name).name}" for name in names]
    return make_linked_tree(root, names + copies)

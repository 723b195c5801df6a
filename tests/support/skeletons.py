"""Skeletons of the real archives: every file name of the official lists, as a tiny JPEG in the archive's own tree."""

import csv
import io
import json
import os
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


def make_jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (150, 60, 60)).save(content, "JPEG")
    return content.getvalue()


def make_hyperkvasir(root: Path, splits: Path) -> Path:
    where = {name: f"labeled-images/{tree}/{name}" for tree, names in HYPERKVASIR_TREE.items() for name in names}
    folders = BENCHMARKS["hyperkvasir-23"].folders
    content = make_jpeg()
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
    content = make_jpeg()
    for row in csv.DictReader(open(splits / "gastrovision/GastroVision_metadata.csv")):
        path = root / row["Class"] / row["Filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def list_official_split_files(shared_data: Path, name: str) -> list[str]:
    """Copies of a benchmark's official CSVs."""
    stem = name.split("-11")[0].rsplit("-", 1)[0] if "-11" not in name else "kvasir_capsule"
    folder = shared_data / "splits" / stem.replace("-", "_")
    return [str(folder / file.name) for file in BENCHMARKS[name].split_files]


def make_linked_tree(root: Path, names: list[str]) -> Path:
    """A tree of these files, which are all one small image."""
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
    """In the archive's folders, whose names differ from the table's, with images of classes that are in no fold."""
    folders, names = BENCHMARKS["kvasir-capsule-11"].folders, {}
    for half in "01":
        with open(splits / f"kvasir_capsule/split_{half}.csv", newline="") as file:
            for row in csv.DictReader(file):
                names[row["filename"]] = folders.get(row["label"], row["label"])
    others = [f"labelled_images/Polyp/{'0' * 16}_{number}.jpg" for number in range(55)]
    return make_linked_tree(root, [f"labelled_images/{folder}/{name}" for name, folder in names.items()] + others)


def make_limuc(root: Path, splits: Path) -> Path:
    """Also with the copies by patient, and 1,686 test images of other patients."""
    names = []
    for part in ("train", "val"):
        for label, found in json.loads((splits / f"limuc/fold_0/{part}.json").read_text()).items():
            names += [f"train_and_validation_sets/{label}/{name}" for name in found]
    for number in range(1686):
        names.append(f"test_set/Mayo {number % 4}/UC_patient_{1000 + number // 20}_{number}.bmp")
    copies = [f"patient_based_classified_images/1/{Path(name).parent.name}/{Path(name).name}" for name in names]
    return make_linked_tree(root, names + copies)

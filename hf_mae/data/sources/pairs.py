"""CSVs of image pairs, as written by `hf-mae audit` or published."""

import csv
from pathlib import Path

from ...errors import UsageError
from ...files.atomic import restore_formula
from ..messages import DataMessage


def read_pair_rows(path: Path, require_labels: bool = False) -> list[dict[str, str]]:
    """Reads the rows of a CSV of image pairs: `filename1,label1,...,filename2,label2,...`."""
    if not path.is_file():
        raise UsageError(DataMessage.PAIRS_FILE_NOT_FOUND, path=path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = [{name: restore_formula(cell or "") for name, cell in row.items() if name} for row in reader]
    needed = ["filename1", "filename2", *(["label1", "label2"] if require_labels else [])]
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UsageError(DataMessage.PAIRS_COLUMNS_MISSING, path=path, columns=missing)
    return rows


def find_paired_images(path: Path, file_names: list[str], class_names: list[str], key: str = "file_name") -> list[bool]:
    """Returns whether each image is in a pair; the published quality exclusion excludes pairs with conflicting labels.

    Args:
        path: the CSV.
        file_names, class_names: file name and class of each image.
        key: what is compared: `file_name`, or its stem (`name`), or class and stem (`class and name`).
    """

    def make_key(name: str, label: str) -> tuple[str, str]:
        return (label if key == "class and name" else "", name if key == "file_name" else Path(name).stem)

    rows = read_pair_rows(path, require_labels=key == "class and name")
    paired = {make_key(row[f"filename{side}"], row.get(f"label{side}", "")) for row in rows for side in "12"}
    return [make_key(name, label) in paired for name, label in zip(file_names, class_names)]

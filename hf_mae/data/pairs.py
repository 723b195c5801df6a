"""CSVs of image pairs, as `hf-mae audit` writes them and as they are published."""

import csv
from pathlib import Path

from ..errors import UsageError

ImageKey = str | tuple[str, str]


def read_pair_rows(path: Path, require_labels: bool = False) -> list[dict[str, str]]:
    """The rows of a CSV of image pairs: `filename1,label1,...,filename2,label2,...`."""
    if not path.is_file():
        raise UsageError(f"The file of pairs {path} does not exist.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    needed = ["filename1", "filename2", *(["label1", "label2"] if require_labels else [])]
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UsageError(f"{path} is no list of pairs: it lacks the column {', '.join(missing)}.")
    return rows


def read_pair_keys(path: Path, keyed_by_class: bool) -> set[ImageKey]:
    """Both images of every pair, by key.

    Pairs with conflicting labels are what the published quality exclusion leaves out.
    """
    keys = set()
    for row in read_pair_rows(path, require_labels=keyed_by_class):
        for side in "12":
            stem = Path(row[f"filename{side}"]).stem
            keys.add((row[f"label{side}"], stem) if keyed_by_class else stem)
    return keys

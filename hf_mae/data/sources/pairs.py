"""CSVs of image pairs, as written by `hf-mae audit` or published."""

import csv
from pathlib import Path

from ...errors import UsageError
from ..messages import DataMessage

ImageKey = str | tuple[str, str]


def read_pair_rows(path: Path, require_labels: bool = False) -> list[dict[str, str]]:
    """Reads the rows of a CSV of image pairs: `filename1,label1,...,filename2,label2,...`."""
    if not path.is_file():
        raise UsageError(DataMessage.PAIRS_FILE_NOT_FOUND, path=path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    needed = ["filename1", "filename2", *(["label1", "label2"] if require_labels else [])]
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UsageError(DataMessage.PAIRS_COLUMNS_MISSING, path=path, columns=missing)
    return rows


def read_pair_keys(path: Path, keyed_by_class: bool) -> set[ImageKey]:
    """Reads the keys of both images of each pair.

    The published quality exclusion excludes the pairs with conflicting labels.
    """
    keys = set()
    for row in read_pair_rows(path, require_labels=keyed_by_class):
        for side in "12":
            stem = Path(row[f"filename{side}"]).stem
            keys.add((row[f"label{side}"], stem) if keyed_by_class else stem)
    return keys

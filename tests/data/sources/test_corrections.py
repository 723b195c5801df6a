"""Label corrections: changed labels, removed images, and invalid files."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from support.messages import raises

from hf_mae.data.exclusion_log import Exclusion, ExclusionReason, Relabelling, track_exclusions
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.corrections import Correction, apply_label_corrections, read_corrections

NAMES = ["lymph", "polyp", "ulcer"]
HEAD = "file_name,label,decision,suggested"


def make_splits(**labels_by_split) -> DatasetDict:
    features = Features({"file_name": Value("string"), "labels": ClassLabel(names=NAMES), "group": Value("string")})
    splits = {}
    for split, labels in labels_by_split.items():
        names = [f"{split}_{number}.jpg" for number in range(len(labels))]
        columns = {"file_name": names, "labels": labels, "group": ["p"] * len(labels)}
        splits[split] = Dataset.from_dict(columns, features)
    return DatasetDict(splits)


def write_corrections(path, *rows, head=HEAD) -> str:
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_labels_are_changed_and_images_are_removed(tmp_path):
    path = write_corrections(
        tmp_path / "reviewed.csv",
        "train_0.jpg,polyp,ulcer,lymph",
        "train_1.jpg,lymph,,polyp",  # not reviewed
        "train_2.jpg,ulcer,Keep,polyp",
        "validation_0.jpg,lymph, remove ,polyp",
        "train_3.jpg,polyp,polyp,ulcer",  # unchanged
    )
    with track_exclusions() as log:
        splits = apply_label_corrections(make_splits(train=[1, 0, 2, 1], validation=[0, 1]), path)
    assert splits["train"]["labels"] == [2, 0, 2, 1] and splits["validation"]["file_name"] == ["validation_1.jpg"]
    assert splits["train"].features["labels"].names == NAMES and splits["train"]["group"] == ["p"] * 4
    assert log.relabelled == Relabelling("reviewed.csv", 1)
    assert log.excluded == [Exclusion(ExclusionReason.REMOVED_BY_CORRECTIONS, 1, "reviewed.csv")]


def test_a_correction_may_be_applied_again(tmp_path):
    path = write_corrections(tmp_path / "reviewed.csv", "train_0.jpg,polyp,ulcer,")
    once = apply_label_corrections(make_splits(train=[1, 0]), path)
    assert apply_label_corrections(once, path)["train"]["labels"] == [2, 0]


def test_a_class_may_be_named_like_a_decision(tmp_path):
    path = write_corrections(tmp_path / "reviewed.csv", "a.jpg,polyp,remove,", "b.jpg,polyp,Remove,")
    corrections = read_corrections(path, ["polyp", "remove"])
    assert corrections == {"a.jpg": Correction("polyp", "remove"), "b.jpg": Correction("polyp", "remove")}


@pytest.mark.parametrize(
    "rows, head, message, attributes",
    [
        (
            ["train_0.jpg,polyp,ulcus,"],
            HEAD,
            DataMessage.CORRECTION_INVALID,
            {"line": 2, "decision": "ulcus", "suggestion": " (did you mean ulcer?)"},
        ),
        (
            ["train_9.jpg,polyp,ulcer,"],
            HEAD,
            DataMessage.CORRECTIONS_UNKNOWN_IMAGES,
            {"count": 1, "example": "train_9.jpg"},
        ),
        (
            ["train_0.jpg,lymph,ulcer,"],
            HEAD,
            DataMessage.CORRECTIONS_OUTDATED,
            {"file_name": "train_0.jpg", "label": "lymph", "current_label": "polyp"},
        ),
        (
            ["train_0.jpg,polyp,ulcer,", "train_0.jpg,polyp,remove,"],
            HEAD,
            DataMessage.CORRECTION_CONTRADICTORY,
            {"line": 3},
        ),
        (["train_0.jpg,polyp"], "file_name,label", DataMessage.CORRECTIONS_COLUMNS_MISSING, {"columns": ["decision"]}),
    ],
)
def test_invalid_corrections_are_rejected(tmp_path, rows, head, message, attributes):
    path = write_corrections(tmp_path / "reviewed.csv", *rows, head=head)
    with raises(message, path=path, **attributes):
        apply_label_corrections(make_splits(train=[1, 0]), path)


def test_missing_and_binary_files_are_reported(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("x.csv", "none.csv"):
        with raises(DataMessage.CORRECTIONS_UNREADABLE, path=tmp_path / name):
            read_corrections(tmp_path / name, NAMES)

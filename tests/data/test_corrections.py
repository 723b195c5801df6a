"""A reviewed list of labels: what it changes, what it takes out, and what is no such list."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_mae.data.corrections import Correction, apply_label_corrections, read_corrections
from hf_mae.data.exclusion_log import track_exclusions
from hf_mae.errors import UsageError

NAMES = ["lymph", "polyp", "ulcer"]


def splits_of(**labels) -> DatasetDict:
    features = Features({"file_name": Value("string"), "labels": ClassLabel(names=NAMES), "group": Value("string")})
    made = {}
    for split, own in labels.items():
        columns = {"file_name": [f"{split}_{n}.jpg" for n in range(len(own))], "labels": own, "group": ["p"] * len(own)}
        made[split] = Dataset.from_dict(columns, features)
    return DatasetDict(made)


def written(path, *rows, head="file_name,label,decision,suggested") -> str:
    path.write_text("\n".join([head, *rows]) + "\n")
    return str(path)


def test_labels_are_changed_and_images_taken_out(tmp_path):
    path = written(
        tmp_path / "reviewed.csv",
        "train_0.jpg,polyp,ulcer,lymph",
        "train_1.jpg,lymph,,polyp",  # not looked at
        "train_2.jpg,ulcer,Keep,polyp",
        "validation_0.jpg,lymph, remove ,polyp",
        "train_3.jpg,polyp,polyp,ulcer",  # as it was
    )
    with track_exclusions() as ledger:
        found = apply_label_corrections(splits_of(train=[1, 0, 2, 1], validation=[0, 1]), path)
    assert found["train"]["labels"] == [2, 0, 2, 1] and found["validation"]["file_name"] == ["validation_1.jpg"]
    assert found["train"].features["labels"].names == NAMES and found["train"]["group"] == ["p"] * 4
    assert ledger["relabelled"] == {"by": "reviewed.csv", "images": 1}
    assert ledger["excluded"] == [{"reason": "left out by reviewed.csv", "images": 1, "examples": []}]


def test_an_image_that_has_the_label_already_may_be_decided_on(tmp_path):
    path = written(tmp_path / "reviewed.csv", "train_0.jpg,polyp,ulcer,")
    once = apply_label_corrections(splits_of(train=[1, 0]), path)
    assert apply_label_corrections(once, path)["train"]["labels"] == [2, 0]


def test_a_class_may_be_called_as_a_decision_is(tmp_path):
    path = written(tmp_path / "reviewed.csv", "a.jpg,polyp,remove,", "b.jpg,polyp,Remove,")
    found = read_corrections(tmp_path / "reviewed.csv", ["polyp", "remove"])
    assert found == {"a.jpg": Correction("polyp", "remove"), "b.jpg": Correction("polyp", "remove")} and path


@pytest.mark.parametrize(
    "rows, head, sentence",
    [
        (["train_0.jpg,polyp,ulcus,"], None, "Line 2 of .* decides ulcus, which is no class .did you mean ulcer"),
        (["train_9.jpg,polyp,ulcer,"], None, "decides on 1 image that the data does not have, train_9.jpg"),
        (["train_0.jpg,lymph,ulcer,"], None, "was decided when train_0.jpg was lymph, and it is polyp now"),
        (["train_0.jpg,polyp,ulcer,", "train_0.jpg,polyp,remove,"], None, "Line 3 of .* again, and otherwise"),
        (["train_0.jpg,polyp"], "file_name,label", "lacks the column decision .hf-mae audit --labels writes one"),
    ],
)
def test_what_is_no_such_list_is_one_sentence(tmp_path, rows, head, sentence):
    path = written(tmp_path / "reviewed.csv", *rows, **({"head": head} if head else {}))
    with pytest.raises(UsageError, match=sentence):
        apply_label_corrections(splits_of(train=[1, 0]), path)


def test_a_missing_or_binary_file_is_one_sentence(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("x.csv", "none.csv"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_corrections(tmp_path / name, NAMES)

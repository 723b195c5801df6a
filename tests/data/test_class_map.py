"""Class maps: the classes of one dataset for a model trained on another."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from support.messages import raises

from hf_mae.data.class_map import read_class_map
from hf_mae.data.exclusion_log import ExclusionReason, track_exclusions
from hf_mae.data.messages import DataMessage
from hf_mae.evaluation.metrics import softmax
from hf_mae.reporting.run_sentences import describe_exclusion

MODEL = ["cecum", "oesophagitis-a", "oesophagitis-b-d", "polyp", "ulcer"]
MAP = "data,model\nEsophagitis,oesophagitis-a\nEsophagitis,oesophagitis-b-d\nAdenoma,polyp\nSerrated,polyp\nBlood,\n"


@pytest.fixture
def class_map(tmp_path):
    (tmp_path / "map.csv").write_text(MAP)
    return read_class_map(tmp_path / "map.csv", MODEL)


def make_splits(names):
    classes = sorted(set(names))
    features = Features({"labels": ClassLabel(names=classes), "file_name": Value("string")})
    columns = {"labels": [classes.index(name) for name in names], "file_name": [f"{i}.jpg" for i in range(len(names))]}
    return DatasetDict({"test": Dataset.from_dict(columns, features=features)})


def test_classes_that_one_side_splits_are_merged(class_map):
    assert class_map.class_names == ["cecum", "Esophagitis", "polyp", "ulcer"] and class_map.excluded_classes == (
        "Blood",
    )
    assert class_map.map_class("oesophagitis-b-d").data_classes == ("Esophagitis",)
    assert class_map.map_class("ulcer").data_classes == (), (
        "only the model has this class; predictions of it are errors"
    )


def test_probabilities_of_merged_classes_are_added(class_map):
    logits = np.random.default_rng(0).normal(size=(2, 6, 5))
    scores, merged = softmax(logits), softmax(class_map.merge_logits(logits))
    np.testing.assert_allclose(merged[..., 1], scores[..., 1] + scores[..., 2], rtol=1e-12)
    np.testing.assert_allclose(merged[..., [0, 2, 3]], scores[..., [0, 3, 4]], rtol=1e-12)


def test_images_are_relabelled_and_exclusions_are_counted(class_map):
    with track_exclusions() as log:
        splits, counts = class_map.relabel(
            make_splits(["Adenoma", "Blood", "Esophagitis", "Serrated", "Blood"]), "there", "test"
        )
    assert splits["test"]["labels"][:] == [2, 1, 2] and splits["test"]["file_name"][:] == ["0.jpg", "2.jpg", "3.jpg"]
    assert splits["test"].features["labels"].names == class_map.class_names and counts == {"Blood": 2}
    assert log.excluded[0].reason == ExclusionReason.CLASS_NOT_IN_MODEL
    assert describe_exclusion(log.excluded[0]) == "class Blood, which the model does not have"


@pytest.mark.parametrize(
    "text, message, attributes",
    [
        ("data,class\nx,y\n", DataMessage.CLASS_MAP_COLUMNS_MISSING, {"columns": ["model"]}),
        (
            "data,model\nAdenoma,polips\n",
            DataMessage.CLASS_MAP_UNKNOWN_CLASS,
            {"name": "polips", "suggestion": " (did you mean polyp?)"},
        ),
        ("data,model\nAdenoma,polyp\nAdenoma,\n", DataMessage.CLASS_MAP_CONTRADICTORY, {"names": ["Adenoma"]}),
    ],
)
def test_invalid_class_maps_are_rejected(text, message, attributes, tmp_path):
    (tmp_path / "map.csv").write_text(text)
    with raises(message, **attributes):
        read_class_map(tmp_path / "map.csv", MODEL)


def test_classes_that_are_not_in_the_map_are_rejected(class_map):
    with raises(DataMessage.CLASS_MAP_INCOMPLETE, source="there", names=["Nodule"]):
        class_map.relabel(make_splits(["Nodule", "Adenoma"]), "there", "test")
    with raises(DataMessage.CLASS_MAP_WITHOUT_IMAGES, source="there"):
        class_map.relabel(make_splits(["Blood"]), "there", "test")

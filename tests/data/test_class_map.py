"""Classes of one data set as those of a model that was trained on another."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_mae.data.class_map import read_class_map
from hf_mae.data.exclusion_log import track_exclusions
from hf_mae.errors import UsageError
from hf_mae.evaluation.scores import softmax

MODEL = ["cecum", "oesophagitis-a", "oesophagitis-b-d", "polyp", "ulcer"]
MAP = "data,model\nEsophagitis,oesophagitis-a\nEsophagitis,oesophagitis-b-d\nAdenoma,polyp\nSerrated,polyp\nBlood,\n"


@pytest.fixture
def joined(tmp_path):
    (tmp_path / "map.csv").write_text(MAP)
    return read_class_map(tmp_path / "map.csv", MODEL)


def labelled(names):
    classes = sorted(set(names))
    features = Features({"labels": ClassLabel(names=classes), "file_name": Value("string")})
    columns = {"labels": [classes.index(name) for name in names], "file_name": [f"{i}.jpg" for i in range(len(names))]}
    return DatasetDict({"test": Dataset.from_dict(columns, features=features)})


def test_classes_that_either_side_splits_are_one(joined):
    assert joined.class_names == ["cecum", "Esophagitis", "polyp", "ulcer"] and joined.excluded_classes == ("Blood",)
    assert joined.map_class("oesophagitis-b-d").data == ("Esophagitis",)
    assert joined.map_class("ulcer").data == (), "a class of the model alone can still be predicted, and is then wrong"


def test_scores_of_parts_are_added(joined):
    logits = np.random.default_rng(0).normal(size=(2, 6, 5))
    whole, merged = softmax(logits), softmax(joined.merge_logits(logits))
    np.testing.assert_allclose(merged[..., 1], whole[..., 1] + whole[..., 2], rtol=1e-12)
    np.testing.assert_allclose(merged[..., [0, 2, 3]], whole[..., [0, 3, 4]], rtol=1e-12)


def test_images_are_relabelled_and_what_is_left_out_is_counted(joined):
    with track_exclusions() as ledger:
        found, counts = joined.relabel(labelled(["Adenoma", "Blood", "Esophagitis", "Serrated", "Blood"]), "there")
    assert found["test"]["labels"][:] == [2, 1, 2] and found["test"]["file_name"][:] == ["0.jpg", "2.jpg", "3.jpg"]
    assert found["test"].features["labels"].names == joined.class_names and counts == {"Blood": 2}
    assert ledger["excluded"][0]["reason"] == "class Blood, which the model does not know"


@pytest.mark.parametrize(
    "text, message",
    [
        ("data,class\nx,y\n", "lacks the column model"),
        ("data,model\nAdenoma,polips\n", r"the model has no class polips \(did you mean polyp\?\)"),
        ("data,model\nAdenoma,polyp\nAdenoma,\n", "leaves Adenoma out, and maps it too"),
    ],
)
def test_a_map_that_cannot_be(text, message, tmp_path):
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_class_map(tmp_path / "map.csv", MODEL)


def test_classes_that_it_does_not_name(joined):
    with pytest.raises(UsageError, match="there has classes that the class map does not name: Nodule"):
        joined.relabel(labelled(["Nodule", "Adenoma"]), "there")
    with pytest.raises(UsageError, match="no image of a class that the model knows"):
        joined.relabel(labelled(["Blood"]), "there")

"""Epochs in which classes have other shares than among the images."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_mae import load_image_folder
from hf_mae.data.sampling import ClassBalancedSampler
from hf_mae.data.torch_datasets import TrainDataset, collate
from hf_mae.data.transforms import training_transform
from hf_mae.errors import UsageError

LABELS = np.repeat([0, 1, 2], [160, 40, 10])


@pytest.mark.parametrize("exponent, shares", [(1.0, [160, 40, 10]), (0.5, [120, 60, 30]), (0.0, [70, 70, 70])])
def test_classes_have_the_papers_shares_and_images_take_turns(exponent, shares):
    rows = ClassBalancedSampler(LABELS, exponent, seed=3).rows(0)
    assert np.bincount(LABELS[rows]).tolist() == shares
    times = np.bincount(rows, minlength=len(LABELS))
    for name in range(3):
        assert np.ptp(times[LABELS == name]) <= 1


def test_an_epoch_depends_on_seed_and_epoch_alone():
    first, again = ClassBalancedSampler(LABELS, 0.0, seed=3), ClassBalancedSampler(LABELS, 0.0, seed=3)
    of_epoch_1 = [first.row(place, 1) for place in range(len(LABELS))]
    again.row(0, 0)
    assert of_epoch_1 == [again.row(place, 1) for place in range(len(LABELS))] == first.rows(1).tolist()
    assert of_epoch_1 != first.rows(0).tolist()
    assert of_epoch_1 != ClassBalancedSampler(LABELS, 0.0, seed=4).rows(1).tolist()


def test_shares_that_are_no_whole_numbers_fill_the_epoch():
    labels = np.repeat([0, 3, 4], [5, 1, 1])  # two classes have no image
    rows = ClassBalancedSampler(labels, 0.0, seed=0).rows(0)
    assert len(rows) == 7 and set(np.bincount(labels[rows], minlength=5).tolist()) == {0, 2, 3}


def test_it_needs_class_ids():
    for labels in (None, np.eye(3)):
        with pytest.raises(UsageError, match="one class for each image"):
            ClassBalancedSampler(labels, 0.0, seed=0)


@pytest.fixture(scope="module")
def uneven(toy):
    """Seventeen images of the first class, three of the second."""
    train = load_image_folder(toy / "labelled")["train"]
    places = [np.flatnonzero(np.array(train["labels"]) == name)[:count] for name, count in ((0, 17), (1, 3))]
    return train.select(np.concatenate(places))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_comes_again_is_augmented_anew_and_named(uneven, workers):
    images = TrainDataset(uneven, training_transform("imagenet", 32), seed=5, sampling="class_balanced")
    epochs = []
    for epoch in (0, 1):
        images.set_epoch(epoch)
        batches = list(DataLoader(images, 7, collate_fn=collate, num_workers=workers))
        epochs.append({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
        assert epochs[-1]["index"].tolist() == images.sampling.rows(epoch).tolist()
        assert epochs[-1]["labels"].tolist() == [uneven[row]["labels"] for row in epochs[-1]["index"].tolist()]
        assert torch.bincount(epochs[-1]["labels"])[:2].tolist() == [10, 10]
        assert len(epochs[-1]["pixel_values"].unique(dim=0)) == 20
    assert not torch.equal(epochs[0]["pixel_values"], epochs[1]["pixel_values"])

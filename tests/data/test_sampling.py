"""Class-balanced sampling of an epoch."""

import numpy as np
import pytest
import torch
from support.messages import raises
from torch.utils.data import DataLoader

from hf_mae import load_image_folder
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.torch_datasets import TrainDataset, collate
from hf_mae.data.images.transforms import training_transform
from hf_mae.data.sampling import ClassBalancedSampler

LABELS = np.repeat([0, 1, 2], [160, 40, 10])


@pytest.mark.parametrize("exponent, counts", [(1.0, [160, 40, 10]), (0.5, [120, 60, 30]), (0.0, [70, 70, 70])])
def test_class_frequencies_follow_the_paper_and_images_alternate(exponent, counts):
    rows = ClassBalancedSampler(LABELS, exponent, seed=3).rows(0)
    assert np.bincount(LABELS[rows]).tolist() == counts
    repetitions = np.bincount(rows, minlength=len(LABELS))
    for name in range(3):
        assert np.ptp(repetitions[LABELS == name]) <= 1


def test_an_epoch_depends_on_seed_and_epoch_alone():
    first, again = ClassBalancedSampler(LABELS, 0.0, seed=3), ClassBalancedSampler(LABELS, 0.0, seed=3)
    epoch_1 = [first.row(position, 1) for position in range(len(LABELS))]
    again.row(0, 0)
    assert epoch_1 == [again.row(position, 1) for position in range(len(LABELS))] == first.rows(1).tolist()
    assert epoch_1 != first.rows(0).tolist()
    assert epoch_1 != ClassBalancedSampler(LABELS, 0.0, seed=4).rows(1).tolist()


def test_fractional_class_counts_fill_the_epoch():
    labels = np.repeat([0, 3, 4], [5, 1, 1])  # classes 1 and 2 have no images
    rows = ClassBalancedSampler(labels, 0.0, seed=0).rows(0)
    assert len(rows) == 7 and set(np.bincount(labels[rows], minlength=5).tolist()) == {0, 2, 3}


def test_sampling_requires_class_ids():
    for labels in (None, np.eye(3)):
        with raises(ImageMessage.SAMPLING_REQUIRES_CLASS_IDS):
            ClassBalancedSampler(labels, 0.0, seed=0)


@pytest.fixture(scope="module")
def imbalanced(toy):
    """Seventeen images of the first class, three of the second."""
    train = load_image_folder(toy / "labelled")["train"]
    rows = [np.flatnonzero(np.array(train["labels"]) == name)[:count] for name, count in ((0, 17), (1, 3))]
    return train.select(np.concatenate(rows))


@pytest.mark.parametrize("workers", [0, 2])
def test_repeated_images_have_different_augmentations_and_their_index(imbalanced, workers):
    images = TrainDataset(imbalanced, training_transform("imagenet", 32), seed=5, sampling="class_balanced")
    epochs = []
    for epoch in (0, 1):
        images.set_epoch(epoch)
        batches = list(DataLoader(images, 7, collate_fn=collate, num_workers=workers))
        epochs.append({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
        assert epochs[-1]["index"].tolist() == images.sampling.rows(epoch).tolist()
        assert epochs[-1]["labels"].tolist() == [imbalanced[row]["labels"] for row in epochs[-1]["index"].tolist()]
        assert torch.bincount(epochs[-1]["labels"])[:2].tolist() == [10, 10]
        assert len(epochs[-1]["pixel_values"].unique(dim=0)) == 20
    assert not torch.equal(epochs[0]["pixel_values"], epochs[1]["pixel_values"])

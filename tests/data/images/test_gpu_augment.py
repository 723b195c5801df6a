"""Batched augmentation equals torchvision on PIL images, and training with single images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.data import TrainDataset, load_image_folder, training_transform
from hf_mae.data.images.gpu_augment import flip_rotation_params
from hf_mae.data.images.torch_datasets import collate


@pytest.mark.parametrize("size", [32, 57, 224])
def test_batches_equal_torchvision_on_pil_images(size):
    rng = np.random.default_rng(size)
    transform = training_transform("endoscopy", size)
    images = rng.integers(0, 255, (48, size, size, 3), dtype=np.uint8)
    expected, params = [], []
    for number, image in enumerate(images):
        torch.manual_seed(number)
        expected.append(transform.augment(Image.fromarray(image)))
        torch.manual_seed(number)
        params.append(transform.batch_augment.sample_params(size, size))
    actual = transform.batch_augment(torch.from_numpy(images), torch.stack(params))
    assert actual.dtype == torch.float32 and actual.is_contiguous()
    assert torch.equal(actual, torch.stack(expected))
    assert len({(bool(h), bool(v)) for h, v, *_ in torch.stack(params)}) == 4


@pytest.mark.parametrize("angle", [0.0, 90.0, -90.0, 45.0, 1e-9])
def test_angles_that_pillow_handles_specially(angle):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 33, 33, 3), dtype=np.uint8))
    transform = training_transform("endoscopy", 33, (0, 0, 0), (1, 1, 1))
    actual = transform.batch_augment(pixels, flip_rotation_params(False, False, angle, 33, 33)[None])
    expected = np.asarray(Image.fromarray(pixels[0].numpy()).rotate(angle))
    assert np.array_equal((actual[0] * 255).round().permute(1, 2, 0).numpy(), expected)


def test_training_does_not_depend_on_batching(tiny_pth, toy, tmp_path):
    train = load_image_folder(toy / "labelled")["train"]
    losses = []
    for batched in (False, True):
        images = TrainDataset(train, training_transform("endoscopy", 32), seed=1, batched=batched)
        assert ("pixels" in images[0]) == batched
        args = FinetuningArguments(
            output_dir=str(tmp_path / str(batched)),
            num_train_epochs=2,
            warmup_epochs=0,
            per_device_train_batch_size=12,
            mixup=0.8,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
        )
        torch.manual_seed(0)  # initializes the head
        trainer = MaeFinetuner(
            build_classifier(tiny_pth, num_labels=3, num_attention_heads=3), args, train_dataset=images
        )
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == losses[1] and len(losses[0]) == 10


def test_workers_return_batches_of_uint8(toy):
    images = TrainDataset(
        load_image_folder(toy / "labelled")["train"], training_transform("endoscopy", 32), batched=True
    )
    batch = next(iter(DataLoader(images, 8, collate_fn=collate, num_workers=1)))
    assert batch["pixels"].dtype == torch.uint8 and batch["pixels"].shape == (8, 32, 32, 3)
    single = TrainDataset(load_image_folder(toy / "labelled")["train"], training_transform("endoscopy", 32))
    expected = torch.stack([single[index]["pixel_values"] for index in range(8)])
    assert torch.equal(images.transform.batch_augment(batch["pixels"], batch["augment_params"]), expected)

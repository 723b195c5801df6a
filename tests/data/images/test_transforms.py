"""Both families of transforms equal their sources, and evaluation equals the saved image processor."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from support.messages import raises
from timm.data import create_transform
from torchvision import transforms

from hf_mae.data import image_processor, load_image_folder, training_transform
from hf_mae.data.images.decoding import to_rgb
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.seeding import seed_all
from hf_mae.data.images.transforms import BoundedResize, measure_mean_std, parse_mean_std, pretraining_transform

MEAN, STD = (0.5575, 0.3902, 0.3250), (0.2522, 0.1944, 0.1745)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A smooth image with edges, 320 x 250."""
    y, x = np.mgrid[0:250, 0:320]
    pixels = np.stack([128 + 100 * np.sin(x / 17), (x * y / 320) % 256, np.where((x // 40 + y // 40) % 2, 220, 30)], -1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def apply_seeded(transform, image, seed):
    with seed_all(seed):
        return transform(image)


def test_endoscopy_training_equals_torchvision(photo):
    ours = training_transform("endoscopy", 224)
    source = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomRotation(90),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    for seed in range(12):
        expected = apply_seeded(source, photo, seed)
        assert torch.equal(apply_seeded(lambda image: ours.augment(ours.resize(image)), photo, seed), expected)


def test_imagenet_training_equals_the_timm_call_of_the_original_code(photo):
    ours = training_transform("imagenet", 224)
    source = create_transform(
        input_size=224,
        is_training=True,
        color_jitter=None,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=IMAGENET[0],
        std=IMAGENET[1],
    )
    assert ours.resize is None
    outputs = [apply_seeded(ours.augment, photo, seed) for seed in range(12)]
    for seed, output in enumerate(outputs):
        assert output.shape == (3, 224, 224)
        assert torch.equal(output, apply_seeded(source, photo, seed))
    assert not torch.equal(outputs[0], outputs[1])


def test_posterizing_to_zero_bits_gives_black(photo):
    """RandAugment does so at magnitude 10; Pillow 13 rejects 0 bits, earlier versions computed black."""
    from timm.data.auto_augment import posterize as source

    from hf_mae.compat.timm import posterize

    for bits in (1, 4, 8):
        assert posterize(photo, bits) == source(photo, bits)
    assert not np.asarray(posterize(photo, 0)).any() and posterize(photo, 0).size == photo.size
    steps = training_transform("imagenet", 224).augment.transforms
    functions = [op.aug_fn for step in steps for op in getattr(step, "ops", [])]
    assert posterize in functions and source not in functions


def test_pretraining_transforms_equal_their_sources(photo):
    bicubic = transforms.InterpolationMode.BICUBIC
    sources = {
        "imagenet": [
            transforms.RandomResizedCrop(64, (0.2, 1.0), interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
        ],
        "endoscopy": [
            transforms.RandomResizedCrop(64, (0.8, 1.0), interpolation=bicubic),
            transforms.RandomRotation(10),
        ],
    }
    for family, steps in sources.items():
        mean, std = IMAGENET if family == "imagenet" else (MEAN, STD)
        source = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
        ours = pretraining_transform(family, 64)
        for seed in range(6):
            assert torch.equal(apply_seeded(ours.augment, photo, seed), apply_seeded(source, photo, seed))


@pytest.mark.parametrize("size", [(720, 576), (768, 576), (1280, 1024), (1920, 1072), (160, 160), (320, 250)])
@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
def test_the_processor_evaluates_like_the_source(photo, family, size):
    """At the image sizes of endoscopy datasets. Some pixels differ by one grey level of 255, because torchvision rounds
    differently from PIL when it resizes a uint8 tensor. If half the margin of the centre crop is not an integer (320 x
    250 becomes 327 x 256), transformers rounds down and torchvision to even, so the crop is shifted by one pixel."""
    photo = photo.resize(size)
    if family == "endoscopy":
        steps, (mean, std) = [transforms.Resize((224, 224))], (MEAN, STD)
    else:
        bicubic = transforms.InterpolationMode.BICUBIC
        crop = transforms.CenterCrop(224)
        if size == (320, 250):
            crop = transforms.Lambda(lambda image: image.crop((51, 16, 51 + 224, 16 + 224)))
        steps, (mean, std) = [transforms.Resize(256, interpolation=bicubic), crop], IMAGENET
    expected = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])(photo)
    ours = image_processor(family, 224)(photo, return_tensors="pt")["pixel_values"][0]
    assert ours.shape == (3, 224, 224)
    levels = (ours - expected).abs() * torch.tensor(std)[:, None, None] * 255
    assert levels.max() < 1.01 and levels.mean() < 0.1


@pytest.mark.parametrize("family", ["endoscopy", "imagenet"])
def test_the_processor_survives_saving_with_every_field(tmp_path, family):
    from transformers import AutoImageProcessor

    processor = image_processor(family, 96, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path).to_dict()
    assert list(loaded["image_mean"]) == [0.1, 0.2, 0.3] and list(loaded["image_std"]) == [0.4, 0.5, 0.6]
    assert loaded["resample"] == (2 if family == "endoscopy" else 3)
    assert dict(loaded["size"]) == ({"height": 96, "width": 96} if family == "endoscopy" else {"shortest_edge": 109})


def with_exif_rotation(path):
    image = Image.new("RGB", (30, 10), (10, 20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    image.save(path, exif=exif)


@pytest.mark.parametrize(
    "mode, suffix", [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "png"), ("LA", "png")]
)
def test_every_colour_mode_becomes_rgb(tmp_path, mode, suffix):
    Image.new("RGB", (30, 10), (200, 100, 50)).convert(mode).save(tmp_path / f"x.{suffix}")
    image = to_rgb(Image.open(tmp_path / f"x.{suffix}"))
    assert image.mode == "RGB" and image.size == (30, 10)


def test_exif_rotation_is_applied(tmp_path):
    with_exif_rotation(tmp_path / "x.jpg")
    assert to_rgb(Image.open(tmp_path / "x.jpg")).size == (10, 30)


def test_mean_std_is_measured_or_parsed(toy):
    train = load_image_folder(toy / "labelled")["train"]
    mean, std = measure_mean_std(train, 32)
    pixels = np.stack(
        [np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)) for image in train["image"]]
    )
    assert mean == pytest.approx((pixels / 255).mean((0, 1, 2)), abs=1e-4)
    assert std == pytest.approx((pixels / 255).std((0, 1, 2)), abs=1e-4)
    assert parse_mean_std(["auto"], "endoscopy", train, 32) == (mean, std)
    assert parse_mean_std(None, "endoscopy", train, 32) == (MEAN, STD)
    assert parse_mean_std("imagenet", "endoscopy", train, 32) == IMAGENET
    numbers = parse_mean_std(["0.3464", "0.2280", "0.2228", "0.2520", "0.2128", "0.2093"], "endoscopy", train, 32)
    assert numbers == ((0.3464, 0.2280, 0.2228), (0.2520, 0.2128, 0.2093))
    for invalid in (["0.5"], ["a", "b"], ["0.1"] * 3 + ["0"] * 3):
        with raises(ImageMessage.INVALID_MEAN_STD, value=" ".join(invalid)):
            parse_mean_std(invalid, "endoscopy", train, 32)


def test_bounded_resize_does_not_change_small_images(photo):
    assert BoundedResize(250)(photo) is photo
    assert BoundedResize(125)(photo).size == (160, 125)


def test_seed_all_restores_the_random_state_of_the_caller():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seed_all(3, 4):
        inside = random.random(), np.random.rand(), torch.rand(1).item()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    with seed_all(3, 4):
        assert (random.random(), np.random.rand(), torch.rand(1).item()) == inside

"""`convert --processor`: image processors, also for programs that use `size` as the input size."""

import json

import numpy as np
from datasets import load_dataset
from support.cli_process import run_cli
from support.messages import raises
from torchvision.transforms import CenterCrop, Compose, Normalize, RandomResizedCrop, Resize, ToTensor
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

from hf_mae.conversion import ConversionError, convert_checkpoint
from hf_mae.conversion.messages import ConversionMessage


def example_input_size(processor):
    """Input size in transformers' run_image_classification.py: the shortest edge, or height and width."""
    if "shortest_edge" in processor.size:
        return processor.size["shortest_edge"]
    return processor.size["height"], processor.size["width"]


def test_the_example_of_transformers_trains_and_evaluates_a_converted_folder(tiny_pth, toy, tmp_path):
    run_cli("convert", tiny_pth, tmp_path / "model", "--num_labels", "3", "--processor", "square")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model", num_labels=3)
    size, normalize = example_input_size(processor), Normalize(processor.image_mean, processor.image_std)
    training = Compose([RandomResizedCrop(size), ToTensor(), normalize])
    evaluation = Compose([Resize(size), CenterCrop(size), ToTensor(), normalize])

    def apply(transform):
        return lambda rows: {
            "pixel_values": [transform(image.convert("RGB")) for image in rows["image"]],
            "labels": rows["label"],
        }

    images = load_dataset("imagefolder", data_dir=str(toy / "labelled"), cache_dir=str(tmp_path / "cache"))
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(tmp_path / "out"), max_steps=1, remove_unused_columns=False, report_to=[], use_cpu=True
        ),
        train_dataset=images["train"].with_transform(apply(training)),
        eval_dataset=images["validation"].with_transform(apply(evaluation)),
    )
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    image = images["validation"][0]["image"].convert("RGB")
    expected, actual = evaluation(image), processor(image, return_tensors="pt")["pixel_values"][0]
    assert expected.shape == actual.shape
    # The example uses bilinear interpolation, the original code bicubic.
    assert (expected - actual).abs().mean() < 0.02 * actual.std()


def test_the_mae_processor_is_the_default(tiny_pth, tmp_path):
    for kind in ("auto", "mae"):
        convert_checkpoint(tiny_pth, tmp_path / kind, processor=kind)
    one, two = ((tmp_path / kind / "preprocessor_config.json").read_text() for kind in ("auto", "mae"))
    assert one == two and "shortest_edge" in one


def test_mean_and_std_stay_the_same_for_another_processor(finetuned, tmp_path):
    before = json.loads((finetuned() / "preprocessor_config.json").read_text())
    assert "shortest_edge" not in before["size"]
    convert_checkpoint(finetuned(), tmp_path / "mae", processor="mae")
    convert_checkpoint(tmp_path / "mae", tmp_path / "square", processor="square")
    for kind in ("mae", "square"):
        after = json.loads((tmp_path / kind / "preprocessor_config.json").read_text())
        assert (after["image_mean"], after["image_std"]) == (before["image_mean"], before["image_std"])
        assert ("shortest_edge" in after["size"]) == (kind == "mae")


def test_an_unknown_processor_is_rejected(tiny_pth, tmp_path):
    with raises(ConversionMessage.NOT_A_CHOICE, ConversionError, flag="processor", value="round"):
        convert_checkpoint(tiny_pth, tmp_path / "out", processor="round")
    assert not (tmp_path / "out").exists()

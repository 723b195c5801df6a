"""`convert --processor`: an image processor for programs that take its `size` for the input size."""

import json

import numpy as np
import pytest
from datasets import load_dataset
from support.cli_process import run_cli
from torchvision.transforms import CenterCrop, Compose, Normalize, RandomResizedCrop, Resize, ToTensor
from transformers import AutoImageProcessor, AutoModelForImageClassification, Trainer, TrainingArguments

from hf_mae.conversion import ConversionError, convert_checkpoint


def size_as_the_example_reads_it(processor):
    """run_image_classification.py: the shorter side where there is one, else height and width."""
    if "shortest_edge" in processor.size:
        return processor.size["shortest_edge"]
    return processor.size["height"], processor.size["width"]


def test_transformers_example_trains_and_evaluates_a_converted_folder(tiny_pth, toy, tmp_path):
    run_cli("convert", tiny_pth, tmp_path / "model", "--num_labels", "3", "--processor", "square")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model", num_labels=3)
    size, normalize = size_as_the_example_reads_it(processor), Normalize(processor.image_mean, processor.image_std)
    training = Compose([RandomResizedCrop(size), ToTensor(), normalize])
    evaluation = Compose([Resize(size), CenterCrop(size), ToTensor(), normalize])

    def prepared(transform):
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
        train_dataset=images["train"].with_transform(prepared(training)),
        eval_dataset=images["validation"].with_transform(prepared(evaluation)),
    )
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    image = images["validation"][0]["image"].convert("RGB")
    theirs, ours = evaluation(image), processor(image, return_tensors="pt")["pixel_values"][0]
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().mean() < 0.02 * ours.std()  # the example resizes bilinearly, the reference not


def test_the_reference_processor_is_what_a_converted_folder_has_by_itself(tiny_pth, tmp_path):
    for kind in ("auto", "reference"):
        convert_checkpoint(tiny_pth, tmp_path / kind, processor=kind)
    one, two = ((tmp_path / kind / "preprocessor_config.json").read_text() for kind in ("auto", "reference"))
    assert one == two and "shortest_edge" in one


def test_means_are_kept_when_the_kind_changes(finetuned, tmp_path):
    before = json.loads((finetuned() / "preprocessor_config.json").read_text())
    assert "shortest_edge" not in before["size"]
    convert_checkpoint(finetuned(), tmp_path / "reference", processor="reference")
    convert_checkpoint(tmp_path / "reference", tmp_path / "square", processor="square")
    for kind in ("reference", "square"):
        after = json.loads((tmp_path / kind / "preprocessor_config.json").read_text())
        assert (after["image_mean"], after["image_std"]) == (before["image_mean"], before["image_std"])
        assert ("shortest_edge" in after["size"]) == (kind == "reference")


def test_a_kind_that_does_not_fit_is_refused(tiny_pth, tmp_path):
    with pytest.raises(ConversionError, match="--processor takes one of auto, square, reference"):
        convert_checkpoint(tiny_pth, tmp_path / "out", processor="round")
    assert not (tmp_path / "out").exists()

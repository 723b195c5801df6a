"""timm loads and evaluates exported models, as its `validate.py` does."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.cli_process import run_cli
from support.messages import raises, shows
from transformers import pipeline

from hf_mae.conversion import ConversionError, convert_checkpoint, export_checkpoint
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.conversion.metadata import CheckpointMetadata
from hf_mae.conversion.timm_layout import data_config, timm_name
from hf_mae.files.messages import FileMessage

reads_folders = pytest.mark.skipif(
    tuple(map(int, version("timm").split(".")[:3])) < (1, 0, 26),
    reason="timm before 1.0.26 opens local-dir: folders with torch.load, also safetensors",
)


def validate(exported: Path, images: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and labels of a folder of class folders, computed like timm's `validate.py`."""
    from timm.data import create_dataset, create_loader, resolve_data_config
    from timm.models import create_model

    model = create_model(f"local-dir:{exported}", pretrained=True).eval()
    config = resolve_data_config({}, model=model, use_test_size=True)
    dataset = create_dataset("", root=str(images), class_map=str(exported / "class_map.txt"))
    loader = create_loader(dataset, batch_size=8, use_prefetcher=False, num_workers=0, **config)
    with torch.inference_mode():
        batches = [(model(images).softmax(-1), labels) for images, labels in loader]
    return torch.cat([scores for scores, _ in batches]), torch.cat([labels for _, labels in batches])


@reads_folders
def test_timm_and_the_pipeline_give_the_same_scores_for_a_run(finetuned, toy, tmp_path):
    """With the endoscopy transforms: every image is resized to a square."""
    run, test = finetuned(), toy / "labelled" / "test"
    pipe = pipeline("image-classification", model=str(run))
    files = sorted(file for file in test.rglob("*") if file.is_file())
    expected_scores = [{row["label"]: row["score"] for row in pipe(str(file), top_k=None)} for file in files]
    names = list(pipe.model.config.id2label.values())
    export_checkpoint(run, tmp_path / "out", to="timm")
    scores, labels = validate(tmp_path / "out", test)
    assert [names[i] for i in labels] == [file.parent.name for file in files]
    for row, expected in zip(scores, expected_scores, strict=True):
        assert {name: pytest.approx(float(row[i]), abs=0.02) for i, name in enumerate(names)} == expected


@reads_folders
def test_timm_evaluates_the_original_crop_and_the_class_token(golden, tmp_path):
    from support.models import TINY

    labels = ["a 10", "a 2", "b"]
    convert_checkpoint(
        golden / "checkpoint-399.pth", tmp_path / "model", to="classifier", pooling="cls", labels=labels, **TINY
    )
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for name in labels:
        (folder / name).mkdir(parents=True)
        pixels = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((90, 70), Image.Resampling.BICUBIC).save(folder / name / "one.png")
    pipe = pipeline("image-classification", model=str(tmp_path / "model"))
    export_checkpoint(tmp_path / "model", tmp_path / "out", to="timm")
    scores, label_ids = validate(tmp_path / "out", folder)
    assert sorted(label_ids.tolist()) == [0, 1, 2]
    for row, label in zip(scores, label_ids, strict=True):
        results = pipe(str(folder / labels[label] / "one.png"), top_k=None)
        expected = {entry["label"]: entry["score"] for entry in results}
        assert [expected[name] for name in labels] == pytest.approx(row.tolist(), abs=1e-5)


@reads_folders
def test_an_encoder_is_exported_as_a_timm_model_without_head(golden, tmp_path):
    import timm
    from support.models import TINY, TINY_DECODER

    convert_checkpoint(golden / "checkpoint-399.pth", tmp_path / "model", **TINY, **TINY_DECODER)
    export_checkpoint(tmp_path / "model", tmp_path / "out", to="timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    before = torch.load(golden / "checkpoint-399.pth", weights_only=False)["model"]
    assert model.num_classes == 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("crop", range(16, 700, 4))
def test_timm_computes_the_intended_shortest_edge(crop):
    import math

    from hf_mae.conversion.architecture import Architecture
    from hf_mae.conversion.preprocessing import mae_image_processor

    processor = mae_image_processor(crop).to_dict()
    sizes = Architecture(16, 1, 1, 64, crop, 4, 3)
    crop_pct = data_config(CheckpointMetadata(image_processor=processor), sizes)["crop_pct"]
    assert math.floor(crop / crop_pct) == processor["size"]["shortest_edge"]


def test_preprocessing_that_timm_cannot_reproduce_is_rejected(tmp_path, golden):
    from hf_mae.conversion.architecture import Architecture

    sizes = Architecture(16, 1, 1, 64, 32, 4, 3)
    longest_edge = {"size": {"longest_edge": 32}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    no_mean = {"size": {"height": 32, "width": 32}, "resample": 3}
    for processor in (longest_edge, no_mean, {}):
        with raises(ConversionMessage.TIMM_PREPROCESSING, ConversionError):
            data_config(CheckpointMetadata(image_processor=processor), sizes)
    with raises(ConversionMessage.TIMM_PREPROCESSING, ConversionError):
        data_config(CheckpointMetadata(), Architecture(16, 1, 1, 64, 32, 4, 4))  # four channels without a processor
    assert timm_name(Architecture(768, 12, 12, 3072, 224, 16, 3, hidden_act="relu")) == "vit_base_patch16_224"
    relu = Architecture(384, 12, 6, 1536, 224, 16, 3, hidden_act="relu")
    assert timm_name(relu) == "vit_base_patch16_224" and timm_name(replace(relu, hidden_act="gelu")).startswith(
        "vit_small"
    )


def test_export_prints_the_flags_of_validate(finetuned, tmp_path):
    done = run_cli("export", finetuned(), tmp_path / "out", "--to", "timm")
    assert f"--pretrained --class-map {tmp_path / 'out'}/class_map.txt" in done.stdout
    done = run_cli("export", finetuned(), tmp_path / "out", "--to", "timm", status=1)
    assert shows(done.stderr, FileMessage.FOLDER_NOT_EMPTY, path=tmp_path / "out")

"""Every row of docs/sanity_checks.md: the problem is detected, and the message on the page is the actual one."""

import argparse
import json
import logging
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.messages import logged
from support.models import TINY, TINY_DECODER, tiny_pretrainer
from support.paths import ROOT
from support.records import ENVIRONMENT

from hf_mae import FinetuningArguments, load_image_folder
from hf_mae.compat.messages import CompatMessage
from hf_mae.conversion import convert_checkpoint, convert_to_model, export_model, read_checkpoint
from hf_mae.conversion.messages import ConversionMessage
from hf_mae.data.messages import DataMessage
from hf_mae.data.splits import holdout_mask
from hf_mae.errors import Message, UsageError
from hf_mae.files.messages import FileMessage
from hf_mae.models.loading import load_classifier
from hf_mae.models.messages import ModelMessage
from hf_mae.reporting.conversion_summary import describe_fact
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.record import DataSource, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.runs.split_consistency import align_with_training_split
from hf_mae.runs.temperature import fit_and_write_temperature
from hf_mae.settings.arguments import check_selection_metric
from hf_mae.settings.evaluation import EvaluationArguments
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.resume import check_training_length, require_optimizer_state

PAGE = ROOT / "docs" / "sanity_checks.md"
CHECKS = {}  # problem -> expected message (text if it is a note of a conversion or a line of information), function


def check(problem: str, message: Message | str):
    """Registers a function that causes a problem; it returns notes, raises or logs."""

    def register(function):
        CHECKS[problem] = message, function
        return function

    return register


def page_row(problem: str) -> str:
    """The row of the page: the problem and the first sentence of the message, with `<name>` for its attributes."""
    message = CHECKS[problem][0]
    text = message if isinstance(message, str) else re.sub(r"\{(\w+)[^{}]*\}", r"<\1>", message.value)
    first_sentence = re.split(r"(?<=\.) (?=[A-Z])", text)[0]
    return f"| {problem} | `{first_sentence}` |"


@pytest.fixture(scope="module")
def mae_state():
    return export_model(tiny_pretrainer(), "pretraining")


@pytest.fixture
def make(tmp_path, mae_state):
    """Builders of checkpoints, images and tables."""

    class Make:
        folder = tmp_path

        def weights(self, extra_state=(), head=False, pooling="cls", **content):
            state = {n: t for n, t in mae_state.items() if head is False or not n.startswith(("decoder", "mask_token"))}
            if head:
                state |= {"head.weight": torch.randn(5, 48), "head.bias": torch.randn(5)}
            if pooling == "mean":
                state = {n.replace("norm.", "fc_norm.") if n.startswith("norm.") else n: t for n, t in state.items()}
            path = tmp_path / "x.pth"
            torch.save({"model": state | dict(extra_state)} | content, path)
            return path

        def images(self, *names):
            for name in names:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name)
            return tmp_path

        def table(self, rows, encoding="utf-8", columns="file_name,label"):
            self.images("files/0.png", "files/1.png", "files/2.png", "files/3.png")
            (tmp_path / "manifest.csv").write_bytes(f"{columns}\n{rows}".encode(encoding))
            return tmp_path

    return Make()


def conversion_notes(source, **options):
    return "\n".join(describe_fact(note, "note") for note in convert_to_model(source, **options)[1].notes)


@check("The number of attention heads is neither in the file nor known for the width", ConversionMessage.HEADS_UNKNOWN)
def _(make):
    convert_to_model(make.weights(), to="backbone")


@check("It is assumed from the width", "num_attention_heads = 12 is assumed")
def _(make):
    from hf_mae.conversion.initialization import initial_value

    block = {"norm1": (768,), "attn.qkv": (2304, 768), "attn.proj": (768, 768), "norm2": (768,)}
    block |= {"mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}
    shapes = {"cls_token": (1, 1, 768), "pos_embed": (1, 17, 768), "patch_embed.proj.weight": (768, 3, 8, 8)}
    shapes |= {"patch_embed.proj.bias": (768,), "norm.weight": (768,), "norm.bias": (768,)}
    shapes |= {f"blocks.0.{n}.{p}": s if p == "weight" else s[:1] for n, s in block.items() for p in ("weight", "bias")}
    torch.save({name: initial_value(name, shape) for name, shape in shapes.items()}, make.folder / "b.pth")
    return conversion_notes(make.folder / "b.pth")


@check("A flag contradicts the checkpoint", ConversionMessage.HEADS_CONTRADICT)
def _(make):
    convert_to_model(make.weights(args=argparse.Namespace(num_heads=3)), to="backbone", num_attention_heads=6)


@check(
    "It is unknown whether the decoder predicts normalized patches",
    "norm_pix_loss = false is assumed; the file does not contain it",
)
def _(make):
    return conversion_notes(make.weights(), **TINY, **TINY_DECODER)


@check("A weight is NaN", ConversionMessage.NOT_FINITE)
def _(make):
    read_checkpoint(make.weights({"norm.bias": torch.tensor([float("nan")] + [0.0] * 47)}))


@check("The head was trained with another pooling", ConversionMessage.POOLING_UNSUPPORTED)
def _(make):
    convert_to_model(make.weights(head=True, args={"global_pool": "avg"}), **TINY)


@check("RETFound with mean pooling, which applies its norm twice", ConversionMessage.RETFOUND_MEAN_POOLING)
def _(make):
    convert_to_model(make.weights(head=True, pooling="mean", args={"model": "RETFound_mae"}), **TINY)


@check(
    "The head is kept, but the checkpoint has no class names",
    "the names and the order of its 5 classes are taken from --labels",
)
def _(make):
    return conversion_notes(make.weights(head=True), labels=list("abcde"), **TINY)


@check(
    "The checkpoint contains both plain and averaged weights",
    "the file also contains averaged weights (model_ema); pass --weights ema",
)
def _(make):
    state = read_checkpoint(make.weights(head=True)).state
    return conversion_notes(make.weights(head=True, model_ema=dict(state)), **TINY)


@check("The file is a Git LFS pointer", ConversionMessage.FILE_IS_LFS_POINTER)
def _(make):
    (make.folder / "x.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    read_checkpoint(make.folder / "x.pth")


@check("The head of a model was never trained", ModelMessage.HEAD_IS_UNTRAINED)
def _(make):
    convert_checkpoint(make.weights(), make.folder / "out", to="classifier", num_labels=3, **TINY)
    load_classifier(str(make.folder / "out"))


@check("Only some folders are named like splits", DataMessage.SPLITS_INCOMPLETE)
def _(make):
    load_image_folder(make.images("train/a/1.png", "other/b/1.png"))


@check("A column and a folder name different splits", DataMessage.SPLITS_CONTRADICT)
def _(make):
    make.images("test/1.png")
    load_image_folder(make.table("files/0.png,a,train\ntest/1.png,b,train\n", columns="file_name,label,split"))


@check("Class names differ in case", DataMessage.CLASS_NAMES_SIMILAR)
def _(make):
    load_image_folder(make.images("polyp/1.png", "Polyp/2.png"))


@check("A column has the name of another column", DataMessage.COLUMN_REPEATED)
def _(make):
    load_image_folder(make.table("files/0.png,a,b\n", columns="file_name,label,label"))


@check("Two folders that may be splits contain the same classes", DataMessage.SAME_CLASSES_IN_TWO_FOLDERS)
def _(make):
    load_image_folder(make.images("first/a/1.png", "first/b/2.png", "second/a/3.png", "second/b/4.png"))


@check("Patient folders are below or above the class folders", DataMessage.GROUPS_FROM_FOLDERS)
def _(make):
    load_image_folder(make.images("a/patient_1/1.png", "a/patient_2/2.png", "b/patient_1/3.png"))


@check("A class name has a typo in one split", DataMessage.CLASSES_IN_ONE_SPLIT)
def _(make):
    load_image_folder(make.images("train/polyp/1.png", "train/polpy/2.png", "val/polyp/3.png"))


@check("Files are ignored", DataMessage.FILES_IGNORED)
def _(make):
    make.images("a/1.png", "b/2.png", "b/._3.png")
    (make.folder / "a" / "more.zip").write_text("x")
    load_image_folder(make.folder)


@check("A table is in Latin-1", FileMessage.NOT_UTF8)
def _(make):
    load_image_folder(make.table("files/0.png,gerötet\n", "latin-1"))


@check("A label is NaN", DataMessage.LABEL_MISSING)
def _(make):
    load_image_folder(make.table("files/0.png,nan\n"))


@check("A file has two labels, under two spellings of its path", DataMessage.MANIFEST_CONTRADICTORY)
def _(make):
    load_image_folder(make.table("files/0.png,a\nfiles/1.png,b\n./files/0.png,b\n"))


@check("A label of a saved dataset is -1", DataMessage.ROWS_WITHOUT_LABEL)
def _(make):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    make.images("f/0.png", "f/1.png", "f/2.png")
    columns = {"image": [str(make.folder / "f" / f"{n}.png") for n in range(3)], "label": [0, 1, -1]}
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=["a", "b"])})
    Dataset.from_dict(columns, features=features).save_to_disk(make.folder / "saved")
    load_image_folder(make.folder / "saved")


@check("One image is in two splits, compressed differently", "1 image in two splits")
def _(make):
    make.images("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    Image.open(make.folder / "train/a/1.png").save(make.folder / "test/a/5.bmp")
    load_image_folder(make.folder)


@check("Patients do not divide into the requested fraction", DataMessage.GROUPS_HELD_OUT)
def _(make):
    holdout_mask([0] * 90 + [1] * 10, ["one"] * 90 + [f"p{number}" for number in range(10)], 0.2, 0)


@check("The metric for the best epoch is unknown", SettingsMessage.UNKNOWN_METRIC)
def _(make):
    args = FinetuningArguments(output_dir=str(make.folder), use_cpu=True, metric_for_best_model="f1")
    check_selection_metric(args, ordered=False)


@check("An option of the Trainer has no effect", SettingsMessage.LABEL_SMOOTHING_FACTOR)
def _(make):
    FinetuningArguments(output_dir=str(make.folder), use_cpu=True, label_smoothing_factor=0.5)


@check("A run is resumed without its optimizer state", TrainingMessage.OPTIMIZER_STATE_MISSING)
def _(make):
    require_optimizer_state(make.folder)


@check("A run is resumed with fewer epochs", TrainingMessage.CHECKPOINT_BEYOND_EPOCHS)
def _(make):
    state = {"epoch": 2.0, "num_train_epochs": 2, "global_step": 8}
    (make.folder / "trainer_state.json").write_text(json.dumps(state))
    check_training_length(make.folder, 1.0, -1)


@check("A model is evaluated on images that it was trained on", RunMessage.HOLDOUT_DIFFERS)
def _(make):
    data, environment = (
        DataSource(str(make.folder), val_fraction=0.5, seed=3),
        ENVIRONMENT,
    )
    write_record(RunRecord("finetune", "mae.pth", data, {"train": 8}, environment, {"val_fraction": 0.5}), make.folder)
    options = EvaluationArguments(data_dir=str(make.folder), val_fraction=0.5, seed=1)
    align_with_training_split(options, {"val_fraction": 0.5, "seed": 1}, str(make.folder))


@check("A temperature cannot be estimated", RunMessage.TEMPERATURE_AT_BOUND)
def _(make):
    fit_and_write_temperature(make.folder, 5 * np.eye(3), np.arange(3), "validation", False, ["a", "b", "c"])


@check("LOCAL_RANK is set without a launcher", CompatMessage.LAUNCHER_ENVIRONMENT_INCOMPLETE)
def _(make):
    FinetuningArguments(output_dir=str(make.folder), use_cpu=True)


def test_the_page_lists_the_checks():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| .+ \| `.+` \|$", line)]
    assert rows == [page_row(problem) for problem in CHECKS]


@pytest.mark.parametrize("problem", CHECKS)
def test_problems_are_detected(make, problem, caplog, monkeypatch):
    if "LOCAL_RANK" in problem:
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LOCAL_RANK", "0")
    message, cause = CHECKS[problem]
    code, text = None, ""
    with caplog.at_level(logging.INFO, logger="hf_mae"):
        try:
            text = cause(make) or ""
        except UsageError as error:
            code, text = error.code, str(error)
    if isinstance(message, str):
        expected = ".*".join(re.escape(part) for part in message.split("..."))
        assert re.search(expected, text + caplog.text), (text, caplog.text)
    else:
        assert code is message or logged(caplog.records, message), (text, caplog.text)

"""Every row of docs/what_is_checked.md happens, and says what the page says."""

import argparse
import json
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image
from support.models import TINY, TINY_DECODER, tiny_pretrainer
from support.paths import ROOT

from hf_mae import FinetuningArguments, load_image_folder
from hf_mae.conversion import convert_checkpoint, convert_to_model, export_model, read_checkpoint
from hf_mae.data.splitting import holdout_mask
from hf_mae.errors import UsageError
from hf_mae.models.loading import load_classifier
from hf_mae.runs.record import DataSource, Environment, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.runs.split_consistency import align_with_training_split
from hf_mae.runs.temperature import fit_and_write_temperature
from hf_mae.settings.evaluation import EvaluationArguments
from hf_mae.training.finetuner import check_metric_for_best_model
from hf_mae.training.resume import check_training_length, require_optimizer_state

PAGE = ROOT / "docs" / "what_is_checked.md"
ROWS = dict(re.findall(r"^\| ([^|`]+?) \| `(.+)` \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
HAPPENS = {}


def happens(row: str):
    """Registers what makes a row of the page happen; it returns notes, or raises, or logs."""

    def register(function):
        HAPPENS[row] = function
        return function

    return register


@pytest.fixture(scope="module")
def whole():
    return export_model(tiny_pretrainer(), "pretraining")


@pytest.fixture
def make(tmp_path, whole):
    """What the rows build with."""

    class Make:
        folder = tmp_path

        def weights(self, more=(), head=False, pooling="cls", **content):
            state = {n: t for n, t in whole.items() if head is False or not n.startswith(("decoder", "mask_token"))}
            if head:
                state |= {"head.weight": torch.randn(5, 48), "head.bias": torch.randn(5)}
            if pooling == "mean":
                state = {n.replace("norm.", "fc_norm.") if n.startswith("norm.") else n: t for n, t in state.items()}
            path = tmp_path / "x.pth"
            torch.save({"model": state | dict(more)} | content, path)
            return path

        def images(self, *names):
            for name in names:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(abs(hash(name)) % 2**32).integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name)
            return tmp_path

        def table(self, rows, encoding="utf-8"):
            self.images("files/0.png", "files/1.png", "files/2.png", "files/3.png")
            (tmp_path / "manifest.csv").write_bytes(f"file_name,label\n{rows}".encode(encoding))
            return tmp_path

    return Make()


def notes_of(source, **options):
    return "\n".join(convert_to_model(source, **options)[1].notes)


@happens("The number of heads is in no file, and the width is no known one")
def _(make):
    convert_to_model(make.weights(), to="backbone")


@happens("It is supposed from a known width")
def _(make):
    from hf_mae.conversion.initialization import initial_value

    block = {"norm1": (768,), "attn.qkv": (2304, 768), "attn.proj": (768, 768), "norm2": (768,)}
    block |= {"mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}
    shapes = {"cls_token": (1, 1, 768), "pos_embed": (1, 17, 768), "patch_embed.proj.weight": (768, 3, 8, 8)}
    shapes |= {"patch_embed.proj.bias": (768,), "norm.weight": (768,), "norm.bias": (768,)}
    shapes |= {f"blocks.0.{n}.{p}": s if p == "weight" else s[:1] for n, s in block.items() for p in ("weight", "bias")}
    torch.save({name: initial_value(name, shape) for name, shape in shapes.items()}, make.folder / "b.pth")
    return notes_of(make.folder / "b.pth")


@happens("A flag contradicts the file")
def _(make):
    convert_to_model(make.weights(args=argparse.Namespace(num_heads=3)), to="backbone", num_attention_heads=6)


@happens("Nobody said whether the decoder predicts normalised patches")
def _(make):
    return notes_of(make.weights(), **TINY, **TINY_DECODER)


@happens("A weight is NaN")
def _(make):
    read_checkpoint(make.weights({"norm.bias": torch.tensor([float("nan")] + [0.0] * 47)}))


@happens("A head was trained on another pooling")
def _(make):
    convert_to_model(make.weights(head=True, args={"global_pool": "avg"}), **TINY)


@happens("RETFound's mean pooling, which norms twice")
def _(make):
    convert_to_model(make.weights(head=True, pooling="mean", args={"model": "RETFound_mae"}), **TINY)


@happens("A head is kept for classes that the file does not name")
def _(make):
    return notes_of(make.weights(head=True), labels=list("abcde"), **TINY)


@happens("Averaged weights lie beside the plain ones")
def _(make):
    state = read_checkpoint(make.weights(head=True)).state
    return notes_of(make.weights(head=True, model_ema=dict(state)), **TINY)


@happens("The file is a Git LFS pointer")
def _(make):
    (make.folder / "x.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    read_checkpoint(make.folder / "x.pth")


@happens("The head of a model was never trained")
def _(make):
    convert_checkpoint(make.weights(), make.folder / "out", to="classifier", num_labels=3, **TINY)
    load_classifier(str(make.folder / "out"))


@happens("Split folders stand beside others")
def _(make):
    load_image_folder(make.images("train/a/1.png", "other/b/1.png"))


@happens("Two folders that may be splits hold the same classes")
def _(make):
    load_image_folder(make.images("first/a/1.png", "first/b/2.png", "second/a/3.png", "second/b/4.png"))


@happens("Folders of patients lie below the classes")
def _(make):
    load_image_folder(make.images("a/patient_1/1.png", "a/patient_2/2.png", "b/patient_1/3.png"))


@happens("A class has a typo in one split")
def _(make):
    load_image_folder(make.images("train/polyp/1.png", "train/polpy/2.png", "val/polyp/3.png"))


@happens("Files are left out")
def _(make):
    make.images("a/1.png", "b/2.png", "b/._3.png")
    (make.folder / "a" / "more.zip").write_text("x")
    load_image_folder(make.folder)


@happens("A table is in Latin-1")
def _(make):
    load_image_folder(make.table("files/0.png,gerötet\n", "latin-1"))


@happens("A row has NaN for a label")
def _(make):
    load_image_folder(make.table("files/0.png,nan\n"))


@happens("A file has two labels, under two spellings of its path")
def _(make):
    load_image_folder(make.table("files/0.png,a\nfiles/1.png,b\n./files/0.png,b\n"))


@happens("A set's label is -1")
def _(make):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn

    make.images("f/0.png", "f/1.png", "f/2.png")
    columns = {"image": [str(make.folder / "f" / f"{n}.png") for n in range(3)], "label": [0, 1, -1]}
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=["a", "b"])})
    Dataset.from_dict(columns, features=features).save_to_disk(make.folder / "saved")
    load_image_folder(make.folder / "saved")


@happens("One image stands in two splits, compressed in two ways")
def _(make):
    make.images("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    Image.open(make.folder / "train/a/1.png").save(make.folder / "test/a/5.bmp")
    load_image_folder(make.folder)


@happens("A share of patients cannot be what was asked for")
def _(make):
    holdout_mask([0] * 90 + [1] * 10, ["one"] * 90 + [f"p{number}" for number in range(10)], 0.2, 0)


@happens("The epoch is to be chosen by a metric that is not there")
def _(make):
    check_metric_for_best_model(
        FinetuningArguments(output_dir=str(make.folder), use_cpu=True, metric_for_best_model="f1")
    )


@happens("An option of the Trainer would do nothing")
def _(make):
    FinetuningArguments(output_dir=str(make.folder), use_cpu=True, label_smoothing_factor=0.5)


@happens("A run goes on without its optimizer")
def _(make):
    require_optimizer_state(make.folder)


@happens("A run goes on to an earlier end")
def _(make):
    state = {"epoch": 2.0, "num_train_epochs": 2, "global_step": 8}
    (make.folder / "trainer_state.json").write_text(json.dumps(state))
    check_training_length(make.folder, 1.0, -1)


@happens("A model is judged on a share that it was trained on")
def _(make):
    data, made = DataSource(str(make.folder), val_fraction=0.5, seed=3), Environment("a CPU", "torch")
    write_record(RunRecord("finetune", "mae.pth", data, {"train": 8}, made, {"val_fraction": 0.5}), make.folder)
    options = EvaluationArguments(data_dir=str(make.folder), val_fraction=0.5, seed=1)
    align_with_training_split(options, {"val_fraction": 0.5, "seed": 1}, str(make.folder))


@happens("A temperature says nothing")
def _(make):
    fit_and_write_temperature(make.folder, 5 * np.eye(3), np.arange(3), "validation", False, ["a", "b", "c"])


@happens("A launcher's LOCAL_RANK is left over")
def _(make):
    FinetuningArguments(output_dir=str(make.folder), use_cpu=True)


def test_the_page_and_what_happens_have_the_same_rows():
    assert ROWS.keys() == HAPPENS.keys() and len(ROWS) > 25


@pytest.mark.parametrize("row", ROWS)
def test_it_happens_and_is_said(make, row, caplog, monkeypatch):
    if "LOCAL_RANK" in row:
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LOCAL_RANK", "0")
    with caplog.at_level(logging.INFO, logger="hf_mae"):
        try:
            said = HAPPENS[row](make) or ""
        except UsageError as error:
            said = str(error)
    expected = ".*".join(re.escape(part) for part in ROWS[row].split("..."))
    assert re.search(expected, said + caplog.text, flags=re.DOTALL), (ROWS[row], said, caplog.text)

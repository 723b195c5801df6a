"""Reads damaged files and reports failures: `python scripts/fuzz.py [--count 10000] [--seed 0] [--only TARGET]`.

Checkpoints, model folders, configurations, recipes, tables and images are damaged at random: bytes, or content (a
number becomes text, a key is removed, a tensor changes shape or type). The command that reads such a file must give a
result or one error message, within limits of time and memory, and leave no partial output. Cases are reproducible:
`--seed S --only TARGET --case N` tries one file again.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a damaged name is not looked up on the Hub
MAX_SECONDS, MAX_MEGABYTES, MAX_LETTERS = (
    60,
    700,
    1200,
)  # limits per case: seconds, memory in addition to the imports, length of the message
ODD_VALUES = (
    *(None, True, False, -1, 0, 1, 3, 7, 1.5, 10**6, 10**12, -(10**30), 1e308, float("nan"), float("inf")),
    *("", " ", "0", "-1", "nan", "x" * 5000, "a/b", "../../etc/passwd", "/dev/zero", "\x00", "é\u2028\x1b[31m", "true"),
    *([], {}, [1, 2], [[[]]], {"a": {"b": None}}, [None], ["x"] * 50),
)


@dataclass(frozen=True)
class FuzzTarget:
    """A file type, how it is damaged, and the function that reads it.

    Args:
        make: writes a valid file into a folder and returns the path of the file to damage.
        damage: damages that file.
        read: reads it, given folder and file.
    """

    make: Callable[[Path], Path]
    damage: Callable[[random.Random, Path], None]
    read: Callable[[Path, Path], Any]


# Damage


def damage_bytes(rng: random.Random, path: Path) -> None:
    """Changes, truncates, inserts, removes or duplicates bytes."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content) + 1)
    how = rng.randrange(6)
    if how == 0:
        for _ in range(rng.choice((1, 2, 16, 200))):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif how == 1:
        del content[place:]
    elif how == 2:
        content[place:place] = rng.randbytes(rng.choice((1, 8, 5000)))
    elif how == 3:
        del content[place : place + rng.choice((1, 8, 500))]
    elif how == 4:
        content[place:place] = content[place : place + rng.choice((4, 64, 4000))]
    else:
        end = min(len(content), place + rng.choice((4, 64, 4000)))
        content[place:end] = bytes(end - place)
    path.write_bytes(content)


def mutate(rng: random.Random, value: Any) -> Any:
    """Changes, removes or renames an item of nested dicts and lists."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        copy = value.copy()
        how = rng.random()
        if how < 0.15:
            copy.pop(key)
        elif how < 0.25 and isinstance(copy, dict):
            copy[rng.choice(("", "x", str(rng.choice(keys)), str(key) + " "))] = copy.pop(key)
        else:
            copy[key] = mutate(rng, value[key])
        return copy
    return rng.choice(ODD_VALUES)


def damage_json(rng: random.Random, path: Path) -> None:
    """Damages the content of a JSON file, or its bytes."""
    if rng.random() < 0.25:
        return damage_bytes(rng, path)
    path.write_text(json.dumps(mutate_repeatedly(rng, json.loads(path.read_text()))))


def damage_yaml(rng: random.Random, path: Path) -> None:
    """Damages the content of a YAML file, or its bytes."""
    import yaml

    if rng.random() < 0.3:
        return damage_bytes(rng, path)
    path.write_text(yaml.safe_dump(mutate_repeatedly(rng, yaml.safe_load(path.read_text()))))


def mutate_repeatedly(rng: random.Random, values: Any) -> Any:
    """Applies `mutate` one to four times."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        values = mutate(rng, values)
    return values


def damage_table(rng: random.Random, path: Path) -> None:
    """Damages a cell, a row or the header of a table, or its bytes."""
    if rng.random() < 0.3:
        return damage_bytes(rng, path)
    lines = path.read_text().splitlines()
    place = rng.randrange(len(lines))
    cells = lines[place].split(",")
    how = rng.randrange(5)
    if how == 0:
        cells[rng.randrange(len(cells))] = str(rng.choice(ODD_VALUES))
    elif how == 1:
        cells.append("x")
    elif how == 2:
        cells.pop()
    lines[place] = ",".join(cells)
    if how == 3:
        del lines[place]
    elif how == 4:
        lines.insert(place, lines[rng.randrange(len(lines))])
    path.write_text("\n".join(lines) + "\n")


def damage_parquet(rng: random.Random, path: Path) -> None:
    """Damages cells, columns or metadata of a parquet file, or its bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.25:
        return damage_bytes(rng, path)
    table = pq.read_table(path)
    columns, fields = table.to_pydict(), {key.decode(): json.loads(text) for key, text in table.schema.metadata.items()}
    if rng.random() < 0.4:
        fields = mutate_repeatedly(rng, fields)
    elif rng.random() < 0.3:
        columns = mutate_repeatedly(rng, columns)
    else:  # a table with the same types
        field = rng.choice([field for field in table.schema if columns[field.name]])
        numbers = pa.types.is_integer(field.type)
        odd = [one for one in ODD_VALUES if one is None or type(one) is (int if numbers else str)] + (
            [-1, 2**62] * numbers
        )
        columns[field.name][rng.randrange(len(table))] = rng.choice(odd)
    try:
        damaged = pa.table(columns, schema=table.schema if columns.keys() == set(table.column_names) else None)
        metadata = {str(key): json.dumps(value) for key, value in fields.items()}
        pq.write_table(damaged.replace_schema_metadata(metadata), path)
    except (pa.ArrowException, AttributeError, TypeError, ValueError, OverflowError):  # not a table any more
        path.write_bytes(repr(columns).encode())


def damage_pth(rng: random.Random, path: Path) -> None:
    """Damages tensors and arguments of a checkpoint, or its bytes."""
    import torch

    if rng.random() < 0.3:
        return damage_bytes(rng, path)
    found = torch.load(path, weights_only=False)
    state = dict(found["model"])
    for _ in range(rng.choice((1, 1, 3))):
        if rng.random() < 0.25:
            values = mutate(rng, vars(found["args"]))
            named = isinstance(values, dict) and all(isinstance(name, str) for name in values)
            found["args"] = argparse.Namespace(**values) if named else values
            break
        name = rng.choice(sorted(name for name, value in state.items() if isinstance(value, torch.Tensor)))
        how = rng.random()
        if how < 0.2:
            del state[name]
        elif how < 0.4:
            other = rng.choice((f"module.{name}", name.replace("0", "9"), name.upper(), "blocks.77.x", "head.weight"))
            state[other] = state.pop(name)
        else:
            state[name] = mutate_tensor(rng, state[name])
    found["model"] = state
    if rng.random() < 0.1:
        found = rng.choice(
            (state, {"state_dict": found}, [state], {"model": [state]}, state["cls_token"], found["args"])
        )
    torch.save(found, path)


def mutate_tensor(rng: random.Random, tensor: Any) -> Any:
    """Returns a tensor with another shape, type or content, or None."""
    import torch

    choices: tuple[Callable[[], Any], ...] = (
        lambda: tensor.flatten(),
        lambda: tensor[..., :-1],
        lambda: tensor[None],
        lambda: torch.cat([tensor, tensor]),
        lambda: tensor.new_zeros(0),
        lambda: tensor.new_zeros(()),
        lambda: torch.full_like(tensor, float("nan")),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.to(torch.int8),
        lambda: tensor > 0,
        lambda: tensor.to(torch.float64),
        lambda: tensor.to(torch.bfloat16),
        lambda: tensor.to_sparse(),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda: tensor.to("meta"),
        lambda: torch.nested.nested_tensor([tensor, tensor]),
        lambda: tensor[:1].expand(100_000, *tensor.shape[1:]),
        lambda: tensor.tolist(),
        lambda: rng.choice(ODD_VALUES),
    )
    return rng.choice(choices)()


# Valid files, and functions that read them


def make_pth(folder: Path) -> Path:
    """Writes a tiny MAE in the layout of facebookresearch/mae."""
    import torch

    from hf_mae.conversion import export_model
    from hf_mae.models.building import build_pretrainer

    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 96}
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_intermediate_size": 64}
    torch.manual_seed(0)
    heads = {"num_attention_heads": 3, "decoder_num_attention_heads": 4}
    model = build_pretrainer(**sizes, **decoder, **heads, norm_pix_loss=True)
    args = argparse.Namespace(model="mae_tiny", mask_ratio=0.75, norm_pix_loss=True, blr=1e-3, **heads)
    path = folder / "x.pth"
    torch.save({"model": export_model(model, "pretraining"), "epoch": 3, "args": args}, path)
    return path


def make_folder(folder: Path, damaged: str) -> Path:
    """Writes a tiny classifier with its image processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 1, "intermediate_size": 96}
    names = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    model = ViTForImageClassification(ViTConfig(**sizes, num_attention_heads=3, layer_norm_eps=1e-6, **names))
    model.save_pretrained(folder / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    return folder / "model" / damaged


def make_beit(folder: Path) -> Path:
    """Writes a tiny BEiT in the layout of microsoft/unilm."""
    import torch
    from timm.models.beit import Beit

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 2, "num_classes": 2}
    model = Beit(**sizes, use_rel_pos_bias=True, init_values=0.1)
    torch.save({"model": model.state_dict(), "epoch": 3, "args": argparse.Namespace(model="beit")}, folder / "x.pth")
    return folder / "x.pth"


def make_other_network(folder: Path, kind: str) -> Path:
    """Writes a tiny timm classifier or a ConvNeXt of transformers, with its image processor."""
    from transformers import ConvNextConfig, ConvNextForImageClassification, ViTImageProcessor

    from hf_mae.models.building import build_classifier

    if kind == "timm":
        model = build_classifier("timm/test_convnext3", id2label={0: "a", 1: "b"}, image_size=32, random_weights=True)
    else:
        sizes = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "image_size": 32}
        model = ConvNextForImageClassification(ConvNextConfig(**sizes, id2label={0: "a", 1: "b"}))
    model.save_pretrained(folder / "model")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "model")
    return folder / "model" / "config.json"


def make_images(folder: Path) -> Path:
    """Writes two classes with two images each, a manifest, and a prediction table."""
    from PIL import Image

    rng, lines = random.Random(0), ["file_name,label,split,patient"]
    for label in ("a", "b"):
        for number, split in enumerate(("train", "train", "validation", "validation")):
            path = folder / "images" / f"{label}{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.frombytes("RGB", (16, 16), rng.randbytes(768)).save(path)
            lines.append(f"{path.name},{label},{split},{label}{number}")
    manifest = folder / "images" / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def make_archive(folder: Path, suffix: str) -> Path:
    """Writes an archive of class folders."""
    images = make_images(folder).parent
    for path in list(images.glob("*.png")):
        (images / path.stem[0]).mkdir(exist_ok=True)
        path.rename(images / path.stem[0] / path.name)
    (folder / "archives").mkdir()
    return Path(shutil.make_archive(str(folder / "archives" / "x"), suffix[1:], images))


def make_shards(folder: Path) -> Path:
    """Writes shards of class folders, with their index."""
    from hf_mae.workflows.shard import shard

    archive = make_archive(folder, ".zip")
    shard(data_dir=str(archive.parent), output_dir=str(folder / "shards"))
    return folder / "shards" / "index.parquet"


def make_image(folder: Path, suffix: str) -> Path:
    """Writes one image of a format."""
    from PIL import Image

    path = folder / f"x{suffix}"
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(path)
    return path


def make_recipe(folder: Path) -> Path:
    """Copies a recipe of the package."""
    from hf_mae.settings.recipes import find_recipe

    return Path(shutil.copy(find_recipe("hyperkvasir-23"), folder / "x.yaml"))


def make_labels(folder: Path) -> Path:
    """Writes class names by id."""
    (folder / "x.json").write_text(json.dumps({"0": "polyp", "1": "ulcer", "2": "normal"}))
    return folder / "x.json"


def make_record(folder: Path) -> Path:
    """Writes the record and the predictions of an evaluation."""
    import numpy as np

    from hf_mae.evaluation.metrics import score_split
    from hf_mae.runs.environment import get_environment
    from hf_mae.runs.predictions import write_predictions
    from hf_mae.runs.record import DataSource, RunRecord
    from hf_mae.runs.record_io import write_record

    run, names, labels = folder / "run", ["a", "b", "c"], np.arange(30) % 3
    run.mkdir()
    logits = np.random.default_rng(0).normal(size=(30, 3))
    write_predictions(run, "test", [f"{i}.png" for i in range(30)], logits, labels, names)
    record = RunRecord(
        kind="evaluate",
        base="x",
        data=DataSource(data_dir="images"),
        images={"test": 30},
        environment=get_environment(),
        settings={},
        classes=names,
        scores={"test": score_split(logits, labels, names)},
    )
    write_record(record, run)
    return next(run.glob("*results*.json"))


def make_benchmark(folder: Path) -> Path:
    """Copies a benchmark of the package."""
    from hf_mae.settings.benchmarks import BENCHMARKS_DIR

    return Path(shutil.copy(BENCHMARKS_DIR / "gastrohun-23.yaml", folder / "x.yaml"))


def make_prediction_table(folder: Path) -> Path:
    """Writes the predictions of another program."""
    lines = ["file_name,label,prediction,group,score:a,score:b"]
    for number in range(24):
        label, score = "ab"[number % 2], round(0.2 + 0.6 * (number % 2) + 0.01 * (number % 5), 3)
        lines.append(f"{number}.png,{label},{'ab'[score < 0.83]},{number // 3},{1 - score:.3f},{score}")
    (folder / "run").mkdir()
    (folder / "run" / "predictions_test.csv").write_text("\n".join(lines) + "\n")
    return folder / "run" / "predictions_test.csv"


def make_costs(folder: Path) -> Path:
    """Writes the costs of mistakes."""
    (folder / "costs.csv").write_text("label,a,b,c\na,0,1,2\nb,1,0,5\nc,3,1,0\n")
    return folder / "costs.csv"


def make_class_map(folder: Path) -> Path:
    """Writes a class map."""
    (folder / "map.csv").write_text("data,model\npolyp,a\nadenoma,a\nnormal,b\n")
    return folder / "map.csv"


def make_dicom(folder: Path) -> Path:
    """Writes a DICOM file of 64 x 64 pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    header = FileMetaDataset()
    header.TransferSyntaxUID, header.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    header.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["x"])
    image = Dataset()
    image.file_meta = header
    image.Rows = image.Columns = 64
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = bytes(range(256)) * 48
    image.save_as(folder / "x.dcm", enforce_file_format=True)
    return folder / "x.dcm"


def read_by_benchmark(folder: Path, path: Path) -> None:
    """Reads a benchmark."""
    from hf_mae.settings.benchmarks import read_benchmark

    read_benchmark(path)


def read_by_costs(folder: Path, path: Path) -> None:
    """Reads the costs of mistakes like `--costs`."""
    from hf_mae.runs.cost_table import read_costs

    read_costs(path)


def read_by_class_map(folder: Path, path: Path) -> None:
    """Reads a class map like `--class_map`."""
    from hf_mae.data.class_map import read_class_map

    read_class_map(path, ["a", "b"])


def read_by_convert(folder: Path, path: Path) -> None:
    """Runs the conversion; it must write a complete folder or nothing."""
    from hf_mae.conversion import convert_checkpoint

    source = path if path.suffix == ".pth" else path.parent
    try:
        convert_checkpoint(source, folder / "out")
    except Exception:
        assert not (folder / "out").exists() and not list(folder.glob(".*")), "partial output was left"
        raise


def read_by_finetune(folder: Path, path: Path) -> None:
    """Builds the model of `hf-mae finetune` from the folder of the file."""
    from hf_mae.models.building import build_classifier

    build_classifier(path.parent, id2label={0: "a", 1: "b", 2: "c"})


def read_by_predict(folder: Path, path: Path) -> None:
    """Predicts one image."""
    from PIL import Image

    from hf_mae.models.loading import load_classifier

    model, processor = load_classifier(str(path.parent))
    model(**processor([Image.new("RGB", (40, 30))], return_tensors="pt"))


def read_by_splits(folder: Path, path: Path) -> None:
    """Loads labelled images from a manifest."""
    from hf_mae.data.sources.split_loading import load_splits
    from hf_mae.settings.data import DataArguments

    load_splits(DataArguments(data_dir=str(path.parent), manifest=str(path)), 0)


def read_by_folder(folder: Path, path: Path) -> None:
    """Loads labelled images from the folder of the file."""
    from hf_mae.data.sources.split_loading import load_splits
    from hf_mae.settings.data import DataArguments

    load_splits(DataArguments(data_dir=str(path.parent)), 0)


def read_by_shards(folder: Path, path: Path) -> None:
    """Loads labelled images from the folder of the file and reads every image."""
    from hf_mae.data.images.image_error import summarize_image_error
    from hf_mae.data.images.torch_datasets import PixelReader
    from hf_mae.data.sources.split_loading import load_splits
    from hf_mae.errors import UsageError
    from hf_mae.settings.data import DataArguments

    for split in load_splits(DataArguments(data_dir=str(path.parent)), 0).values():
        pixels = PixelReader(split, None)
        for row in range(len(split)):
            try:
                pixels[row]
            except Exception as error:
                raise UsageError(summarize_image_error(error, str(path))) from None


def read_by_image_io(folder: Path, path: Path) -> None:
    """Reads an image; `ImageError` and the errors of Pillow count as a message."""
    from hf_mae.data.images.image_error import summarize_image_error
    from hf_mae.data.images.image_io import read_rgb
    from hf_mae.errors import UsageError

    try:
        read_rgb(path)
    except Exception as error:
        raise UsageError(summarize_image_error(error, str(path))) from None


def read_by_recipe(folder: Path, path: Path) -> None:
    """Parses the settings of a recipe."""
    from hf_mae.settings.parse import parse_settings

    paths = {"model_name_or_path": "x.pth", "data_dir": "images", "output_dir": str(folder / "out")}
    parse_settings("finetune", str(path), **paths)


def read_by_labels(folder: Path, path: Path) -> None:
    """Reads class names like `--labels`."""
    from hf_mae.conversion.labels import read_labels

    read_labels(path)


def read_by_report(folder: Path, path: Path) -> None:
    """Builds a report."""
    from hf_mae.workflows.report import report

    report(runs=[str(path.parent)], output_dir=str(folder / "out"))


FUZZ_TARGETS = {
    "checkpoint .pth": FuzzTarget(make_pth, damage_pth, read_by_convert),
    "BEiT .pth": FuzzTarget(make_beit, damage_pth, read_by_convert),
    **{
        f"config.json of {name}, {message}": FuzzTarget(
            lambda f, kind=kind: make_other_network(f, kind), damage_json, read
        )
        for kind, name in (("timm", "timm"), ("convnext", "a ConvNeXt"))
        for message, read in (("predicting", read_by_predict), ("fine-tuned", read_by_finetune))
    },
    "config.json, converted": FuzzTarget(lambda f: make_folder(f, "config.json"), damage_json, read_by_convert),
    "config.json, predicting": FuzzTarget(lambda f: make_folder(f, "config.json"), damage_json, read_by_predict),
    "preprocessor_config.json": FuzzTarget(
        lambda f: make_folder(f, "preprocessor_config.json"), damage_json, read_by_predict
    ),
    "model.safetensors": FuzzTarget(lambda f: make_folder(f, "model.safetensors"), damage_bytes, read_by_convert),
    "manifest": FuzzTarget(make_images, damage_table, read_by_splits),
    "archive .tar": FuzzTarget(lambda f: make_archive(f, ".tar"), damage_bytes, read_by_folder),
    "archive .zip": FuzzTarget(lambda f: make_archive(f, ".zip"), damage_bytes, read_by_folder),
    "index of shards": FuzzTarget(make_shards, damage_parquet, read_by_shards),
    "recipe": FuzzTarget(make_recipe, damage_yaml, read_by_recipe),
    "labels": FuzzTarget(make_labels, damage_json, read_by_labels),
    "benchmark": FuzzTarget(make_benchmark, damage_yaml, read_by_benchmark),
    "prediction table": FuzzTarget(make_prediction_table, damage_table, read_by_report),
    "costs": FuzzTarget(make_costs, damage_table, read_by_costs),
    "class map": FuzzTarget(make_class_map, damage_table, read_by_class_map),
    "DICOM": FuzzTarget(make_dicom, damage_bytes, read_by_image_io),
    "record of a run": FuzzTarget(make_record, damage_json, read_by_report),
    **{
        f"image {suffix}": FuzzTarget(lambda f, suffix=suffix: make_image(f, suffix), damage_bytes, read_by_image_io)
        for suffix in (".jpg", ".png", ".tif", ".webp", ".gif", ".bmp", ".jp2", ".ppm")
    },
}


# Cases, each in its own process


def try_case(name: str, seed: int, number: int) -> tuple[str, str]:
    """Tries one damaged file.

    The caller imports the packages; the case runs in a fork, so that a crash is a failure and does not end the fuzzer.

    Returns:
        Outcome (`result`, `usage_error` or `failure`) and the message or traceback.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            outcome, message = _run_in_child(name, seed, number)
        except BaseException:
            outcome, message = "failure", f"the fuzzer itself: {traceback.format_exc()}"
        os.write(writing, json.dumps([outcome, message[:3000]]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answer:
        return (
            "failure",
            f"the process ended with {status} ({'out of time' if status == -signal.SIGALRM else 'a crash'})",
        )
    outcome, message = json.loads(answer)
    return outcome, message


def _run_in_child(name: str, seed: int, number: int) -> tuple[str, str]:
    kind, rng = FUZZ_TARGETS[name], random.Random(f"{name}, {seed}, {number}")
    signal.alarm(MAX_SECONDS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    from hf_mae.errors import UsageError

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = kind.make(folder)
        kind.damage(rng, path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            kind.read(folder, path)
            outcome, message = "result", ""
        except UsageError as error:
            outcome, message = "usage_error", str(error)
            if len(message) > MAX_LETTERS or not message.strip():
                outcome = "failure"
        except BaseException:
            outcome, message = "failure", traceback.format_exc()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if grown > MAX_MEGABYTES:
            outcome, message = "failure", f"{grown:.0f} MB more memory"
    return outcome, message


def warm_up(names: list[str]) -> None:
    """Imports the packages once, and checks that a valid file of each type gives a result."""
    import datasets
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name, kind in ((name, FUZZ_TARGETS[name]) for name in names):
        with tempfile.TemporaryDirectory() as place:
            path = kind.make(Path(place))
            try:
                kind.read(Path(place), path)
            except Exception as error:
                raise AssertionError(f"a valid {name} gives no result") from error


def fuzz(count: int, seed: int, names: list[str]) -> dict[str, Counter[str]]:
    """Tries `count` cases of all types in one process per core; prints failures and returns outcome counts by type."""
    from tqdm.auto import tqdm

    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    cases = [(names[number % len(names)], seed, number) for number in range(count)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), warm_up, (names,)) as pool:
        found = pool.imap_unordered(_run_pooled_case, cases, chunksize=10)
        for name, number, outcome, message in tqdm(found, total=count, unit="file", disable=None):
            counts[name][outcome] += 1
            if outcome == "failure":
                print(f"{name}, case {number} (--seed {seed} --only {name!r} --case {number}):\n{message}", flush=True)
    return counts


def _run_pooled_case(case: tuple[str, int, int]) -> tuple[str, int, str, str]:
    name, seed, number = case
    return (name, number, *try_case(name, seed, number))


def main() -> int:
    """Runs the fuzzer; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=FUZZ_TARGETS, help="one type of file")
    parser.add_argument("--case", type=int, help="one case of that type")
    args = parser.parse_args()
    if args.case is not None:
        warm_up([args.only])
        print(*try_case(args.only, args.seed, args.case), sep="\n")
        return 0
    counts = fuzz(args.count, args.seed, [args.only] if args.only else list(FUZZ_TARGETS))
    print("\n| file type | files | result | error message | failures |\n|---|---:|---:|---:|---:|")
    for name, found in counts.items():
        print(f"| {name} | {found.total():,} | {found['result']:,} | {found['usage_error']:,} | {found['failure']:,} |")
    failures = sum(found["failure"] for found in counts.values())
    print(f"\n{args.count:,} files, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

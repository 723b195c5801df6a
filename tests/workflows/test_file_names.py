"""Names with characters of URLs, globs and formats are file names, in each command and each kind of source."""

import csv
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import hf_mae
from hf_mae.models.loading import load_classifier
from hf_mae.workflows.demo import load_training_images

NAMES = ["a:b", "c[1]", "d?e", "f%20g", "%s", "{h}", "i#j", "k*l", "-m", "n o", "file:p", "cafe\u0301"]
ROOT = "http:[x]?{y}#%d*"
SPLITS = ("train", "validation")


def make_folder(root):
    """Writes one image per name and class of each split; returns the names relative to the root, as posix paths."""
    generator, names = np.random.default_rng(0), []
    for split in SPLITS:
        for label in ("class {0}", "class:#1"):
            (root / split / label).mkdir(parents=True)
            for name in NAMES:
                path = root / split / label / f"{name}.png"
                Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
                names.append(path.relative_to(root).as_posix())
    return names


def pack(folder, names, path):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.write(folder / name, name)
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.add(folder / name, name)


@pytest.fixture(scope="module", params=["folder", "tar", "zip", "manifest"])
def source(request, tmp_path_factory):
    """A source with images in two splits, and the names of all images."""
    place = tmp_path_factory.mktemp(request.param) / ROOT
    place.mkdir()
    names = make_folder(place / "images")
    if request.param == "folder":
        return place / "images", names
    if request.param == "manifest":
        table = place / "images" / "metadata.csv"
        with open(table, "w", newline="", encoding="utf-8") as file:
            rows = [(name, *name.split("/")[:2]) for name in names]
            csv.writer(file).writerows([("file_name", "split", "label"), *rows])
        return table, names
    path = place / f"images.{request.param}"
    pack(place / "images", names, path)
    return path, names


@pytest.fixture(scope="module")
def run(source, tiny_pth, tmp_path_factory):
    """A model that was trained for one step on the source."""
    path, _ = source
    out = tmp_path_factory.mktemp("runs") / ROOT
    options = {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": [], "transforms": "endoscopy"}
    hf_mae.finetune(model_name_or_path=tiny_pth, data_dir=path, output_dir=out, **options)
    return out


def read_column(path, column):
    with open(path, newline="", encoding="utf-8") as file:
        return [row[column] for row in csv.DictReader(file)]


def last_parts(names):
    """Split, class and name of each image, in order."""
    return sorted(tuple(name.replace("::", "/").split("/")[-3:]) for name in names)


def test_training_and_evaluation_read_every_image(source, run, tmp_path):
    path, names = source
    hf_mae.evaluate(model_name_or_path=run, data_dir=path, split="validation", output_dir=tmp_path / ROOT)
    for folder in (run, tmp_path / ROOT):
        predicted = read_column(folder / "predictions_validation.csv", "file_name")
        assert last_parts(predicted) == last_parts(name for name in names if name.startswith("validation"))


def test_predict_reads_every_image(source, run, tmp_path):
    path, names = source
    images = path.parent if path.suffix == ".csv" else path
    hf_mae.predict(model_name_or_path=run, images=[images], output=tmp_path / f"{ROOT}.csv")
    assert last_parts(read_column(tmp_path / f"{ROOT}.csv", "file_name")) == last_parts(names)


def test_data_commands_read_every_image(source, tmp_path):
    path, names = source
    assert hf_mae.audit(data_dir=path, output_dir=tmp_path / "audit").num_images == len(names)
    splits = hf_mae.prepare(data_dir=path).splits
    assert last_parts([*splits["train"]["file_name"], *splits["validation"]["file_name"]]) == last_parts(names)
    counts = hf_mae.shard(data_dir=path, output_dir=tmp_path / ROOT).images_by_split
    assert counts == {split: len(names) // 2 for split in SPLITS}
    packed = hf_mae.prepare(data_dir=tmp_path / ROOT).splits
    assert last_parts(packed["train"]["file_name"]) == last_parts(splits["train"]["file_name"])


def test_commands_of_models_read_every_image(source, run, tiny_pth, tmp_path):
    path, names = source
    probe = hf_mae.probe(model_name_or_path=run, data_dir=path)
    assert sum(probe.images.values()) == len(names)
    images = path.parent if path.suffix == ".csv" else path
    explained = hf_mae.explain(model_name_or_path=run, images=[images], output_dir=tmp_path / "explain")
    assert explained.num_explained == len(names) and not explained.errors
    assert len(load_training_images(str(path), *load_classifier(str(run)))) == len(names) // 2
    steps = {"max_steps": 1, "per_device_train_batch_size": 4}
    record = hf_mae.pretrain(data_dir=path, model_name_or_path=tiny_pth, output_dir=tmp_path / ROOT, **steps)
    assert record.images == {"train": len(names)}

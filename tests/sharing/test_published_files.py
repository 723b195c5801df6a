"""Names of patients, users, machines and folders that are planted everywhere are in nothing that is uploaded."""

import csv
import getpass
import io
import json
import shutil
import socket
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file
from support.messages import logged, raises

from hf_mae import push_dataset
from hf_mae.data.cohort import Cohort, SplitDescription
from hf_mae.data.exclusion_log import Exclusion, ExclusionReason, Relabelling
from hf_mae.reporting.model_card import write_model_card
from hf_mae.runs.identifiers import IdentifierKind, NameRules, Pseudonyms
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.predictions import read_prediction_table, write_predictions
from hf_mae.runs.record_io import read_record, write_record
from hf_mae.settings.recipes import render_recipe
from hf_mae.sharing.image_metadata import list_metadata, remove_metadata
from hf_mae.sharing.messages import SharingMessage
from hf_mae.sharing.published_files import Publication, build_published_files, open_pseudonyms

NAME, USER, HOST, MRN = "Zuckmayer", "qwertzuser", "klinikhost", "83719264"
PRIVATE = (NAME, USER, HOST, MRN, "1970-01-02", "19700102", "/home")
HOME = f"/home/{USER}/{NAME}_19700102"
GROUPS = [f"{NAME} {number}" for number in range(3)]
FILES = [f"{NAME}_{number}/train/IMG_{MRN}_{number}.jpg" for number in range(3)] + [
    "blob_001.jpg",
    "frame-02.png#t=1.500",
]
SETTINGS = {
    "model_name_or_path": f"{HOME}/{NAME}.pth",
    "data_dir": HOME,
    "manifest": f"{HOME}/{NAME}.csv",
    "class_map": f"{HOME}/{NAME}_map.csv",
    "output_dir": f"{HOME}/run",
    "group_column": NAME,
    "run_name": f"{USER}@{HOST}",
    "deepspeed": f"{HOME}/ds.json",
    "layer_decay": 0.5,
    "report_to": ["tensorboard"],
}


@pytest.fixture
def planted(finetuned, tmp_path, monkeypatch):
    """A completed run with private names in every file and field."""
    monkeypatch.setattr(getpass, "getuser", lambda: USER)
    monkeypatch.setattr(socket, "gethostname", lambda: f"{HOST}.example.org")
    run = tmp_path / f"{NAME}_19700102"
    shutil.copytree(finetuned(), run, ignore=shutil.ignore_patterns("checkpoint-*"))
    record = read_record(run)
    counts = {"test": SplitDescription(3, 3, dict.fromkeys(record.classes, 1))}
    excluded = [Exclusion(ExclusionReason.UNREADABLE, 1, NAME, [f"{NAME}.jpg"])]
    record = replace(
        record,
        base=SETTINGS["model_name_or_path"],
        settings=SETTINGS,
        data=replace(record.data, data_dir=HOME, manifest=SETTINGS["manifest"], class_map=SETTINGS["class_map"]),
        selection=replace(
            record.selection, checkpoint=f"{HOME}/run/checkpoint-1", teacher=f"{HOME}/{NAME}", teacher_weight=0.5
        ),
        study=Cohort(3, excluded, counts, {NAME: {"test": {NAME: 3}}}, Relabelling(f"{HOME}/{NAME}.csv", 1)),
        members=[HOME],
        licences=[replace(fact, source=f"{HOME}/{NAME}.pth") for fact in record.licences],
    )
    recipe = render_recipe(SETTINGS, {"versions": "torch 2", NAME: HOME})
    (run / "recipe.yaml").write_text(recipe)
    write_model_card(run, record, "BeitForImageClassification", recipe)
    write_record(record, run)
    logits = np.random.default_rng(0).normal(size=(len(FILES), len(record.classes))).astype(np.float32)
    for split in ("validation", "test"):
        groups = [*GROUPS, "1", "1"]
        write_predictions(run, split, FILES, logits, np.zeros(len(FILES), int), record.classes, groups)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"_name_or_path": HOME}))
    save_file(load_file(run / "model.safetensors"), run / "model.safetensors", {"format": "pt", "author": NAME})
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", NAME, zip=True)
    Image.new("RGB", (8, 8)).save(run / "figures" / "roc_test.png", pnginfo=texts)
    (run / "onnx").mkdir()
    (run / "onnx" / "check.json").write_text(json.dumps({"images": 3, "split": "test", "data_dir": HOME}))
    for name in (
        "trainer_state.json",
        "training_args.bin",
        "figures/roc_test.pdf",
        "figures/roc_test.svg",
        "report.md",
    ):
        (run / name).write_text(f"{NAME} {HOME}")
    for name in ("runs/host/events.out", "onnx/example.jpg", "step-1.png", "corrections.csv", "pseudonyms.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("{}" if name == "pseudonyms.json" else f"{NAME} {HOME}")
    return run


def publish(run, allow_identifiers=False, key=None):
    pseudonyms = open_pseudonyms(run, key, read_record(run).classes)
    publication = Publication(run, f"{USER}/polyps", None, allow_identifiers, False, pseudonyms)
    build_published_files(publication)
    return {name: p.read_bytes() if isinstance(p, Path) else p for name, p in publication.files.items()}


def unpack(name, content):
    """The bytes of a file, and those of its compressed parts."""
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(content))
        return str([table.to_pylist(), table.schema.metadata]).encode()
    if name.endswith(".png") and content:
        return content + str(Image.open(io.BytesIO(content)).info).encode()
    return content


def test_no_private_name_is_published(planted, caplog):
    caplog.set_level("INFO")
    files = publish(planted)
    for name, content in files.items():
        text = (name.encode() + unpack(name, content).replace(f"{USER}/polyps".encode(), b"")).lower()
        assert [word for word in PRIVATE if word.lower().encode() in text] == [], name
    assert {"model.safetensors", "README.md", "all_results.json", "recipe.yaml", "predictions_test.csv"} <= set(files)
    assert not [name for name in files if name.endswith((".pdf", ".svg", ".bin", ".jpg")) or name.startswith("step")]
    assert logged(caplog.records, SharingMessage.IDENTIFIERS_REPLACED, key=planted / "pseudonyms.json")
    assert yaml.safe_load(files["recipe.yaml"]) == {"layer_decay": 0.5, "report_to": ["tensorboard"]}
    assert "# polyps" in files["README.md"].decode()


def test_published_predictions_are_read_like_the_original_ones(planted, tmp_path, caplog):
    files = publish(planted)
    public = tmp_path / "public"
    public.mkdir()
    for name in ("predictions_test.csv", "predictions_test.parquet"):
        (public / name).write_bytes(files[name])
    before, after = read_prediction_table(planted, "test"), read_prediction_table(public, "test")
    assert not logged(caplog.records, RunMessage.PREDICTIONS_CSV_CHANGED) and after.groups is None
    assert np.array_equal(before.class_scores, after.class_scores) and len(set(after.file_names)) == len(FILES)
    assert after.file_names[-2:] == FILES[-2:] and after.file_names[0].endswith(".jpg")
    names = [row["file_name"] for row in csv.DictReader(io.StringIO(files["predictions_test.csv"].decode()))]
    assert names == after.file_names


def test_a_name_has_the_same_code_in_every_file_and_in_a_second_push(planted):
    first = publish(planted)
    key = planted / "pseudonyms.json"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and key.name not in first
    assert publish(planted)["predictions_test.csv"] == first["predictions_test.csv"]
    assert first["predictions_test.csv"].count(b"id-") == 6 and b"/train/id-" in first["predictions_test.csv"]
    key.write_text("[]")
    with raises(RunMessage.PSEUDONYMS_DAMAGED, path=key):
        publish(planted)


def test_names_are_published_on_request(planted, caplog):
    files = publish(planted, allow_identifiers=True)
    assert FILES[0].encode() in files["predictions_test.csv"] and b"group" not in files["predictions_test.csv"]
    assert logged(caplog.records, SharingMessage.IDENTIFIERS_PUBLISHED)


@pytest.mark.parametrize("text", ["from `/srv/data/images`", f"by {USER}", f"on {HOST}", f"of {NAME}-2", r"C:\data\x"])
def test_text_that_the_user_adds_to_the_card_is_searched(planted, text):
    card = planted / "README.md"
    card.write_text(card.read_text() + text)
    with raises(SharingMessage.PRIVATE_TEXT, file="README.md"):
        publish(planted)


@pytest.mark.unit
@pytest.mark.parametrize(
    "name, kind",
    [
        ("ring_000", None),
        ("0f886d51-8576-4208-a850-98aefb696241", None),
        ("cju2nnqrqzp580855z8mhzgd6", None),
        ("bca26705313a4644_20404", None),
        ("frame_000123", None),
        ("100H0028", None),
        ("UC_patient_155_28", IdentifierKind.PATIENT_WORD),
        ("polyp-1970-01-02", IdentifierKind.DATE),
        ("IMG02011970", IdentifierKind.DATE),
        ("img_123456", IdentifierKind.LONG_NUMBER),
        ("polyp_Jane_Roe", IdentifierKind.UNKNOWN_WORD),
        ("JaneRoe", IdentifierKind.UNKNOWN_WORD),
        ("Müller", IdentifierKind.UNKNOWN_WORD),
        ("video 12_frame_3", IdentifierKind.GROUP),
    ],
)
def test_names_that_may_identify_a_patient(name, kind):
    assert NameRules.from_data(["ring", "polyp"], ["Video-12"]).find_identifier(name) is kind


@pytest.mark.unit
def test_a_patient_has_one_code_however_the_name_is_written(tmp_path):
    codes = Pseudonyms.open(tmp_path / "key.json", NameRules.from_data([], ["Doe Jane", "P-1", "P 1"]))
    assert codes.file_name("DOE_JANE/img_1.jpg") == f"{codes.code('Doe Jane')}/img_1.jpg"
    assert codes.code("P-1") != codes.code("P 1")


def encode(kind, seed=1, **options):
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 9, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def images_with_metadata():
    exif = Image.Exif()
    exif[0x0112], exif[0x013B], exif[0x010E] = 6, NAME, NAME
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Patient", NAME)
    texts.add_itxt("XML:com.adobe.xmp", NAME)
    xmp = f"<x:xmpmeta>{NAME}</x:xmpmeta>".encode()
    yield encode("JPEG", exif=exif, comment=NAME.encode(), xmp=xmp) + NAME.encode() + b"\xff\xd9"
    yield encode("JPEG", exif=exif, progressive=True)
    yield encode("PNG", pnginfo=texts, exif=exif) + NAME.encode()
    yield encode("WEBP", exif=exif, xmp=xmp, lossless=True)
    yield encode("TIFF", description=NAME, artist=NAME)
    yield encode("GIF", comment=NAME.encode())
    yield encode("BMP") + NAME.encode()


@pytest.mark.unit
@pytest.mark.parametrize("content", images_with_metadata())
def test_metadata_is_removed_and_the_pixels_stay(content):
    from hf_mae.data.images.image_io import read_rgb

    cleaned = remove_metadata(content)
    assert NAME.encode() not in cleaned and list_metadata(cleaned) == []
    assert list_metadata(content) or content[:2] == b"BM"
    assert read_rgb(cleaned).tobytes() == read_rgb(content).tobytes()


@pytest.mark.unit
def test_images_without_metadata_do_not_change():
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True, "quality": 40}), ("PNG", {})):
        content = encode(kind, **options)
        assert remove_metadata(content) == content and list_metadata(content) == []


def make_dicom(path):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, MRN, "19700102"
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelData = bytes(range(64))
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.private_block(0x11, NAME, create=True).add_new(1, "LO", NAME)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.unit
def test_a_published_dataset_contains_no_identifier(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    data, rows = tmp_path / f"{NAME}_data", []
    exif = Image.Exif()
    exif[0x013B] = NAME
    for index in range(8):
        name = f"{NAME}_{index // 2}/{MRN}_{index}.jpg"
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode("JPEG", seed=index, exif=exif))
        rows.append((name, ("polyp", "mucosa")[index % 2], ("train", "test")[index // 4], f"{NAME} {index // 2}"))
    make_dicom(data / "IM0001.dcm")
    rows.append(("IM0001.dcm", "polyp", "test", f"{NAME} 3"))
    with open(data / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file_name", "label", "split", "group"), *rows])
    flags = {"data_dir": str(data), "manifest": str(data / "list.csv"), "pseudonym_key": str(tmp_path / "key.json")}
    push_dataset(**flags, output_dir=str(tmp_path / "out"))
    assert logged(caplog.records, SharingMessage.METADATA_REMOVED)
    assert logged(caplog.records, SharingMessage.IDENTIFIERS_REPLACED)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert not [word for word in PRIVATE if word.encode() in unpack(path.name, path.read_bytes())], path
    table = pq.read_table(tmp_path / "out" / "data" / "test-00000-of-00001.parquet").to_pylist()
    assert len({row["group"] for row in table}) == 2 and table[-1]["image"]["bytes"].startswith(b"\x89PNG")
    assert table[0]["file_name"].split("/")[0] == table[0]["group"], "one code per patient"
    assert Dataset.from_parquet(str(tmp_path / "out" / "data" / "test-00000-of-00001.parquet"))[-1]["image"].size == (
        8,
        8,
    )
    push_dataset(**flags, output_dir=str(tmp_path / "again"))
    again = pq.read_table(tmp_path / "again" / "data" / "test-00000-of-00001.parquet").to_pylist()
    assert again == table
    push_dataset(**flags, output_dir=str(tmp_path / "open"), allow_identifiers=True)
    opened = pq.read_table(tmp_path / "open" / "data" / "test-00000-of-00001.parquet").to_pylist()
    assert opened[0]["group"] == f"{NAME} 2" and NAME.encode() in opened[0]["image"]["bytes"]

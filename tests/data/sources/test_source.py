"""The same images in every kind of source have the same samples, splits, classes and groups, or the same error."""

import io
import json
import re
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from support.messages import logged, raises
from support.paths import ROOT

from hf_mae import load_image_folder
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.assign import container_split
from hf_mae.data.sources.unlabelled import load_unlabelled
from hf_mae.settings.sources import SOURCES


def make_png(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def make_rows(splits=("train", "test"), labels=("polyp", "mucosa"), each=2):
    """Images as (path, content, label, split)."""
    names = [(split, label, number) for split in splits for label in labels for number in range(each)]
    return [
        SimpleNamespace(path=f"{split}/{label}/{number}.png", content=make_png(seed), label=label, split=split)
        for seed, (split, label, number) in enumerate(names)
    ]


def write_folder(root, rows):
    for row in rows:
        (root / row.path).parent.mkdir(parents=True, exist_ok=True)
        (root / row.path).write_bytes(row.content)
    return root


def write_csv(root, rows, separator=","):
    write_folder(root / "files", [SimpleNamespace(path=f"{n}.png", content=row.content) for n, row in enumerate(rows)])
    lines = [separator.join(["file_name", "label", "split"])]
    lines += [separator.join([f"files/{n}.png", row.label, row.split]) for n, row in enumerate(rows)]
    path = root / ("metadata.csv" if separator == "," else "metadata.tsv")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_jsonl(root, rows):
    write_csv(root, rows).unlink()
    lines = [
        json.dumps({"file_name": f"files/{n}.png", "label": row.label, "split": row.split})
        for n, row in enumerate(rows)
    ]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


def write_zip(root, rows):
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for row in rows:
            archive.writestr(row.path, row.content)
    return root / "images.zip"


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_tar_of_folders(root, rows):
    return write_tar(root / "images.tar", [(row.path, row.content) for row in rows])


def write_webdataset(root, rows):
    members = []
    for number, row in enumerate(rows):
        members += [(f"{number:03d}.png", row.content)]
        members += [(f"{number:03d}.json", json.dumps({"label": row.label, "split": row.split}).encode())]
    return write_tar(root / "images.tar", members)


def write_named_shards(root, rows):
    for split in {row.split for row in rows}:
        members = []
        for number, row in enumerate(row for row in rows if row.split == split):
            members += [(f"{number:03d}.png", row.content), (f"{number:03d}.cls", row.label.encode())]
        write_tar(root / f"set-{split}-000.tar", members)
    return root


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path, rows, columns=("image", "label", "split")):
    values = {
        "image": pa.array([{"bytes": row.content, "path": None} for row in rows], IMAGE),
        "label": [row.label for row in rows],
        "split": [row.split for row in rows],
    }
    pq.write_table(pa.table({name: values[name] for name in columns}), path)
    return path


def write_table_with_splits(root, rows):
    return write_parquet(root / "data.parquet", rows)


def write_named_tables(root, rows):
    for split in {row.split for row in rows}:
        write_parquet(root / f"kvasir_{split}.parquet", [row for row in rows if row.split == split], ("image", "label"))
    return root


def write_saved(root, rows):
    columns = {
        "image": [{"bytes": row.content, "path": None} for row in rows],
        "label": [row.label for row in rows],
        "split": [row.split for row in rows],
    }
    features = Features({"image": ImageColumn(), "label": Value("string"), "split": Value("string")})
    Dataset.from_dict(columns, features=features).save_to_disk(root / "saved")
    return root / "saved"


WRITERS = {
    "folder": write_folder,
    "csv": write_csv,
    "tsv": lambda root, rows: write_csv(root, rows, "\t"),
    "jsonl": write_jsonl,
    "zip": write_zip,
    "tar": write_tar_of_folders,
    "webdataset": write_webdataset,
    "named shards": write_named_shards,
    "parquet": write_table_with_splits,
    "named tables": write_named_tables,
    "saved": write_saved,
}
WITHOUT_SUFFIX = ("csv", "zip", "tar", "webdataset", "parquet")


def summarize(splits):
    """Split -> sorted class names."""
    return {split: sorted(part.features["labels"].int2str(part["labels"][:])) for split, part in sorted(splits.items())}


@pytest.mark.parametrize("kind", WRITERS)
def test_splits_and_classes_are_those_of_the_folder(kind, tmp_path):
    rows = make_rows()
    source = WRITERS[kind](tmp_path, rows)
    expected = {split: ["mucosa"] * 2 + ["polyp"] * 2 for split in ("test", "train")}
    assert summarize(load_image_folder(source)) == expected
    assert len(load_unlabelled(str(source), "error")) == len(rows)


@pytest.mark.parametrize("kind", WITHOUT_SUFFIX)
def test_the_content_decides_what_a_file_is(kind, tmp_path):
    source = WRITERS[kind](tmp_path, make_rows())
    assert summarize(load_image_folder(source.rename(tmp_path / "data")))["test"] == ["mucosa"] * 2 + ["polyp"] * 2


@pytest.mark.parametrize("character", [":", "[", "[a]", "?", "%41", "{x}", "#", "*", " ", "é"])
@pytest.mark.parametrize("kind", WRITERS)
def test_names_are_neither_urls_nor_patterns(kind, character, tmp_path):
    root = tmp_path / f"a{character}b"
    root.mkdir()
    rows = make_rows(labels=(f"p{character}", "mucosa"), each=1)
    source = WRITERS[kind](root, rows)
    if source.is_file():
        source = source.rename(root / f"x{character}y{source.suffix}")
    expected = sorted(["mucosa", f"p{character}".strip()])
    assert summarize(load_image_folder(source)) == {"test": expected, "train": expected}
    assert len(load_unlabelled(str(source), "error")) == len(rows)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("names", [("Polyp", "polyp"), ("La\u0308sion", "l\u00e4sion"), ("STRASSE", "straße")])
def test_similar_class_names_are_rejected(kind, names, tmp_path):
    with raises(DataMessage.CLASS_NAMES_SIMILAR):
        load_image_folder(WRITERS[kind](tmp_path, make_rows(labels=names, each=1)))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "webdataset", "parquet", "saved"])
def test_images_without_a_split_among_others_are_rejected(kind, tmp_path):
    rows = make_rows()
    rows[0].split = ""
    with raises(DataMessage.SPLITS_INCOMPLETE, count=1):
        load_image_folder(WRITERS[kind](tmp_path, rows))


def test_one_archive_without_a_split_among_others_is_rejected(tmp_path):
    write_named_shards(tmp_path, make_rows())
    (tmp_path / "set-test-000.tar").rename(tmp_path / "more.tar")
    with raises(DataMessage.SPLITS_INCOMPLETE, reading="archive: set-train-000.tar", count=4) as caught:
        load_image_folder(tmp_path)
    assert caught.value.attributes["other"].endswith(" in more.tar")


CONTRADICTIONS = {
    "column and path": lambda root, rows: write_csv_of_paths(root, rows),
    "path and archive": lambda root, rows: write_zip(root, rows).rename(root / "kvasir_test.zip"),
    "column and table": lambda root, rows: write_parquet(root / "val.parquet", rows),
}


def write_csv_of_paths(root, rows):
    write_folder(root, rows)
    lines = [f"{row.path},{row.label},train" for row in rows]
    (root / "metadata.csv").write_text("file_name,label,split\n" + "\n".join(lines))
    return root


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictory_splits_are_rejected_and_split_from_decides(kind, tmp_path):
    source = CONTRADICTIONS[kind](tmp_path, make_rows())
    with raises(DataMessage.SPLITS_CONTRADICT) as caught:
        load_image_folder(source)
    assert len(caught.value.attributes["readings"]) == 2
    for reading in caught.value.attributes["choices"].split(" or "):
        assert load_image_folder(source, split_from=reading)
    assert list(load_image_folder(source, split_from="none")) == ["train"]


@pytest.mark.parametrize(
    "name, split",
    [
        *(("kvasir_test.zip", "test"), ("test-00001.tar", "test"), ("imagenet-validation-0.tar", "validation")),
        *(
            ("val.parquet", "validation"),
            ("KvasirTest.zip", "test"),
            ("train_val.tar", "train"),
            ("val/0.tar", "validation"),
        ),
        *(("latest.zip", None), ("contest.tar", None), ("train_test.zip", None), ("images.tar", None)),
    ],
)
def test_names_of_archives_state_splits(name, split):
    assert container_split(name) == split


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("layout", ["{split}/{patient}/{label}", "{split}/{label}/{patient}", "{patient}/{label}"])
def test_folders_of_patients_are_groups(kind, layout, tmp_path, caplog):
    rows = []
    for seed, (patient, label) in enumerate((p, c) for p in range(1, 7) for c in ("polyp", "mucosa")):
        split = "train" if patient < 4 else "test"
        folder = layout.format(split=split, patient=f"Patient-{patient}", label=label)
        rows.append(SimpleNamespace(path=f"{folder}/1.png", content=make_png(seed)))
    with caplog.at_level("INFO"):
        splits = load_image_folder(WRITERS[kind](tmp_path, rows))
    groups = {group for part in splits.values() for group in part["group"]}
    assert groups == {f"Patient-{number}" for number in range(1, 7)}
    assert splits["train"].features["labels"].names == ["mucosa", "polyp"]
    assert logged(caplog.records, DataMessage.GROUPS_FROM_FOLDERS)


@pytest.mark.parametrize(
    "members",
    [
        ["1.jpg", "1.seg.png", "1.cls"],
        ["1.2.jpg", "1.3.jpg", "1.2.cls", "1.3.cls"],
        ["a/1.jpg", "a/1.mask.png"],
        ["1.jpg", "1.a.cls", "1.b.cls"],
        ["1.jpg", "1.png", "1.json"],
    ],
)
def test_a_tar_key_has_one_image_and_one_label(members, tmp_path):
    content = {".cls": b"0", ".json": b"{}"}
    members = [(name, content.get(name[name.rindex(".") :], make_png(seed))) for seed, name in enumerate(members)]
    path = write_tar(tmp_path / "x.tar", members)
    for load in (load_image_folder, lambda source: load_unlabelled(str(source), "error")):
        with raises(DataMessage.TAR_KEY_AMBIGUOUS):
            load(path)


@pytest.mark.parametrize("header", [f"file_name,label,{name},{name}" for name in ("split", "note")])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_repeated_columns_are_rejected(header, suffix, tmp_path):
    write_folder(tmp_path, make_rows())
    names = header.split(",")
    text = "\t".join(names) if suffix == ".tsv" else header
    if suffix == ".jsonl":
        text = "{" + ", ".join(f'"{name}": "train"' for name in names) + "}"
    (tmp_path / f"metadata{suffix}").write_text(text + "\n")
    with raises(DataMessage.COLUMN_REPEATED, columns=[names[-1]]):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_other_line_separators_do_not_end_a_row(separator, tmp_path):
    write_folder(tmp_path, make_rows(splits=("files",)))
    names = [f"files/{label}/{number}.png" for label in ("polyp", "mucosa") for number in range(2)]
    lines = [f"{name},{name.split('/')[1]},a{separator}b" for name in names]
    (tmp_path / "metadata.csv").write_text("file_name,label,note\n" + "\n".join(lines), encoding="utf-8", newline="")
    assert summarize(load_image_folder(tmp_path)) == {"train": ["mucosa"] * 2 + ["polyp"] * 2}


def test_the_table_of_sources_in_the_docs_is_that_of_the_code():
    page = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page.split("## Check the data")[0], re.MULTILINE)
    assert rows == [(kind.name, kind.description) for kind in SOURCES.values()]

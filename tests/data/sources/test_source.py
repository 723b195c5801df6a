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
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from support.messages import logged, raises
from support.paths import ROOT

from hf_mae import load_image_folder
from hf_mae.data.cohort import describe_cohort
from hf_mae.data.exclusion_log import track_exclusions
from hf_mae.data.images.image_io import encoded_bytes
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources import location, predict_inputs
from hf_mae.data.sources.assign import container_split
from hf_mae.data.sources.predict_inputs import find_input_paths, iter_inputs
from hf_mae.data.sources.split_loading import read_splits
from hf_mae.data.sources.streams import find_stream_files, iter_stream_images
from hf_mae.data.sources.tables import normalize_class_name
from hf_mae.data.sources.unlabelled import load_unlabelled
from hf_mae.settings.data import DataSourceArguments
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


@pytest.mark.parametrize("train, test", [("trainset", "testset"), ("TrainData", "TESTDATA"), ("x-train-1", "x_test_2")])
@pytest.mark.parametrize("kind", ["zip", "tar", "parquet"])
def test_compound_names_of_splits(kind, train, test, tmp_path):
    rows = make_rows()
    for split, name in (("train", train), ("test", test)):
        part = [
            SimpleNamespace(**{**vars(row), "path": row.path.partition("/")[2]}) for row in rows if row.split == split
        ]
        if kind == "parquet":
            write_parquet(tmp_path / f"{name}.parquet", part, ("image", "label"))
        elif kind == "tar":
            write_tar(tmp_path / f"{name}.tar", [(row.path, row.content) for row in part])
        else:
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                for row in part:
                    archive.writestr(row.path, row.content)
    assert {split: len(part) for split, part in load_image_folder(tmp_path).items()} == {"train": 4, "test": 4}


@pytest.mark.parametrize("name", ["train_test", "kvasir-train-val-test", "TestAndTrain"])
def test_a_name_of_several_splits_is_rejected(name, tmp_path):
    rows = [(row.path.partition("/")[2], row.content) for row in make_rows(splits=("train",))]
    write_tar(tmp_path / f"{name}.tar", rows)
    with raises(DataMessage.SEVERAL_SPLITS_IN_NAME):
        load_image_folder(tmp_path)
    assert list(load_image_folder(tmp_path, split_from="none")) == ["train"]


def test_archives_with_the_same_name_in_two_folders_give_distinct_file_names(tmp_path):
    rows = make_rows()
    for split in ("train", "test"):
        members = [(row.path.partition("/")[2], row.content) for row in rows if row.split == split]
        (tmp_path / split).mkdir()
        write_tar(tmp_path / split / "data.tar", members)
    names = [name for part in load_image_folder(tmp_path).values() for name in part["file_name"]]
    assert len(set(names)) == len(names) == 8
    assert set(load_unlabelled(str(tmp_path), "error")["file_name"]) == set(names)


@pytest.mark.parametrize("name", ["polyp", "polyp.tar", "polyp.bin"])
def test_a_class_may_have_the_name_of_its_archive(name, tmp_path):
    write_tar(tmp_path / name, [(f"{label}/1.png", make_png(seed)) for seed, label in enumerate([name, "mucosa"])])
    assert load_image_folder(tmp_path / name)["train"].features["labels"].names == ["mucosa", name]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize("folder", ["more", "a/b"])
def test_archives_and_tables_in_all_subfolders_are_read(kind, folder, tmp_path):
    (tmp_path / folder).mkdir(parents=True)
    for split, root in (("train", tmp_path), ("test", tmp_path / folder)):
        rows = [row for row in make_rows() if row.split == split]
        if kind == "parquet":
            write_parquet(root / f"{split}.parquet", rows, ("image", "label"))
        else:
            write_tar(root / f"{split}.tar", [(row.path, row.content) for row in rows])
    assert {split: len(part) for split, part in load_image_folder(tmp_path).items()} == {"train": 4, "test": 4}


@pytest.mark.parametrize("column", ["split", "subset", "Partition"])
def test_a_sidecar_file_states_the_split_in_the_same_columns_as_a_table(column, tmp_path):
    members = []
    for number, row in enumerate(make_rows()):
        values = json.dumps({"label": row.label, column: row.split}).encode()
        members += [(f"{number}.png", row.content), (f"{number}.json", values)]
    write_tar(tmp_path / "shard.tar", members)
    assert {split: len(part) for split, part in load_image_folder(tmp_path).items()} == {"train": 4, "test": 4}


def test_another_group_column_than_that_of_sidecar_files_is_rejected(tmp_path):
    values = json.dumps({"label": "polyp", "group": "centre", "patient": "p1"}).encode()
    write_tar(tmp_path / "shard.tar", [("1.png", make_png(1)), ("1.json", values)])
    with raises(DataMessage.GROUP_COLUMN_WITHOUT_MANIFEST):
        load_image_folder(tmp_path, group_column="patient")


@pytest.mark.parametrize("names", [("a ", "b"), ("La\u0308sion", "b"), ("1.0", "2.0"), ("0", "-0.00")])
def test_stated_class_names_are_normalized_like_labels(names, tmp_path):
    rows = {"image": [{"bytes": make_png(seed), "path": None} for seed in range(2)], "label": [0, 1]}
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=list(names))})
    Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    train = load_image_folder(tmp_path / "saved")["train"]
    assert train["labels"][:] == [0, 1]
    assert train.features["labels"].names == [normalize_class_name(name) for name in names]


def test_a_class_that_only_a_part_with_text_labels_has_is_kept(tmp_path):
    def make_part(labels, feature, seed):
        rows = {"image": [{"bytes": make_png(seed + n), "path": None} for n in range(2)], "label": labels}
        return Dataset.from_dict(rows, features=Features({"image": ImageColumn(), "label": feature}))

    parts = {
        "train": make_part([1, 0], ClassLabel(names=["b", "a"]), 0),
        "test": make_part(["a", "c"], Value("string"), 2),
    }
    DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    with raises(DataMessage.CLASSES_IN_ONE_SPLIT):
        load_image_folder(tmp_path / "saved")
    splits = load_image_folder(tmp_path / "saved", on_missing_class="keep")
    assert splits["test"].features["labels"].names == ["b", "a", "c"]
    assert splits["test"]["labels"][:] == [1, 2]


@pytest.mark.parametrize("is_labelled", [True, False])
def test_repeated_names_in_a_table_are_made_unique(is_labelled, tmp_path):
    images = [{"bytes": make_png(seed), "path": "image.png"} for seed in range(4)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 2}), tmp_path / "x.parquet")
    path = str(tmp_path / "x.parquet")
    data = load_image_folder(path)["train"] if is_labelled else load_unlabelled(path, "error")
    assert data["file_name"][:] == [f"train/{row}/image.png" for row in range(4)]


@pytest.mark.parametrize("column", ["split", "group"])
def test_a_column_that_only_later_rows_of_json_lines_have_counts(column, tmp_path):
    write_folder(tmp_path, [SimpleNamespace(path=f"{n}.png", content=make_png(n)) for n in range(2)])
    rows = [{"file_name": "0.png", "label": "a"}, {"file_name": "1.png", "label": "b", column: "test"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with raises(DataMessage.SPLITS_INCOMPLETE if column == "split" else DataMessage.MANIFEST_VALUE_MISSING):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_two_columns_of_splits_are_rejected(kind, tmp_path):
    content = make_png(0)
    values = {"label": "a", "split": "train", "subset": "test"}
    if kind == "csv":
        (tmp_path / "0.png").write_bytes(content)
        (tmp_path / "metadata.csv").write_text("file_name,label,split,subset\n0.png,a,train,test\n")
    elif kind == "json":
        write_tar(tmp_path / "shard.tar", [("0.png", content), ("0.json", json.dumps(values).encode())])
    else:
        columns = {name: [value] for name, value in values.items()}
        pq.write_table(pa.table({"image": [{"bytes": content, "path": None}], **columns}), tmp_path / "x.parquet")
    with raises(DataMessage.SPLITS_CONTRADICT):
        load_image_folder(tmp_path)


def test_images_that_no_manifest_lists(tmp_path, caplog):
    caplog.set_level("INFO")
    names = ["train/1.png", "train/2.png", "test/a/1.png"]
    write_folder(tmp_path, [SimpleNamespace(path=name, content=make_png(n)) for n, name in enumerate(names)])
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n1.png,a\n")
    with raises(DataMessage.MANIFESTS_IN_PART):
        load_image_folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/1.png,a\n")
    assert len(load_image_folder(tmp_path)["train"]) == 1
    ignored = [record.attributes["ignored"] for record in caplog.records if record.code is DataMessage.FILES_IGNORED]
    assert ignored == [["2 images that are not in metadata.csv"]]
    (tmp_path / "manifest.csv").write_text("file_name,label\ntrain/2.png,a\n")
    with raises(DataMessage.SEVERAL_MANIFESTS):
        load_image_folder(tmp_path)
    (tmp_path / "manifest.csv").write_text("patient,age\n1,2\n")
    assert len(load_image_folder(tmp_path)["train"]) == 1


@pytest.mark.parametrize("layout", ["data/{number}", "data/{split}/{number}", "{split}/data/{number}"])
def test_numbers_below_a_single_folder_may_be_classes(layout, tmp_path):
    names = [layout.format(split=split, number=n) for split in ("train", "test") for n in range(3)]
    rows = [SimpleNamespace(path=f"{name}/{n}.png", content=make_png(n)) for n, name in enumerate(names)]
    write_folder(tmp_path, rows)
    with raises(DataMessage.NUMBERS_IN_ONE_FOLDER):
        load_image_folder(tmp_path)
    assert load_image_folder(tmp_path, class_level=2)["train"].features["labels"].names == ["0", "1", "2"]
    assert load_image_folder(tmp_path, class_level=1)["train"].features["labels"].names == ["data"]


@pytest.mark.parametrize("link", ["Alias", "zalias", "test"])
def test_a_link_to_a_folder_of_the_tree_is_not_listed_under_its_name(link, tmp_path):
    write_folder(
        tmp_path, [SimpleNamespace(path=f"{c}/1.png", content=make_png(n)) for n, c in enumerate(["polyp", "x"])]
    )
    (tmp_path / link).symlink_to(tmp_path / "polyp")
    assert load_image_folder(tmp_path)["train"]["file_name"][:] == ["polyp/1.png", "x/1.png"]


def test_a_link_to_a_hidden_or_outer_folder_is_followed(tmp_path):
    root = tmp_path / "root"
    for number, target in enumerate(["outer/a", "root/.store/b"]):
        write_folder(tmp_path, [SimpleNamespace(path=f"{target}/1.png", content=make_png(number))])
        (root / target[-1]).parent.mkdir(exist_ok=True)
        (root / target[-1]).symlink_to(tmp_path / target)
    assert load_image_folder(root)["train"]["file_name"][:] == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_saved_part_keeps_its_split(split, tmp_path):
    images = [{"bytes": make_png(0), "path": None}]
    part = Dataset.from_dict({"image": images, "label": ["a"]}, split=split).cast_column("image", ImageColumn())
    part.save_to_disk(str(tmp_path / "saved"))
    assert list(load_image_folder(tmp_path / "saved")) == [split]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("0.json", b'{"label": "a", "label": "b"}', DataMessage.COLUMN_REPEATED),
        ("0.cls", "Läsion".encode("latin-1"), DataMessage.ARCHIVE_DAMAGED),
    ],
)
def test_ambiguous_sidecar_files_are_rejected(name, content, message, tmp_path):
    write_tar(tmp_path / "shard.tar", [("0.png", make_png(0)), (name, content)])
    with raises(message):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["shard0", "shard.part", "data.tar", "data.pq", "data.parquet"])
def test_predict_and_streams_know_archives_and_tables(name, tmp_path):
    path = str(tmp_path / name)
    if name.startswith("data.p"):
        write_parquet(path, make_rows(), ("image",))
    else:
        write_tar(path, [(row.path, row.content) for row in make_rows()])
    assert len(list(iter_inputs(find_input_paths([path], include_videos=True)))) == 8


@pytest.mark.parametrize("other", ["b.zip", "b.parquet", "b"])
def test_a_stream_leaves_no_archive_or_table_out(other, tmp_path):
    """It reads the same images as everything else, whatever the names and suffixes of files and images are."""
    jpeg = io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    members = [
        *((f"{index:02d}.png", row.content) for index, row in enumerate(make_rows())),
        *(("x.jpg", jpeg.getvalue()), ("x.json", b'{"file_name": "patient/x.jpg"}'), ("x.txt", b"no image")),
        *(("._x.jpg", b"of macOS"), (".hidden/y.png", make_png(0))),
    ]
    write_tar(tmp_path / "a.tar", members)
    rows = [SimpleNamespace(**(vars(row) | {"path": f"more/{row.path}"})) for row in make_rows()]
    if other == "b.parquet":
        write_parquet(tmp_path / other, rows, ("image",))
    elif other == "b.zip":
        write_zip(tmp_path, rows).rename(tmp_path / other)
    else:
        write_tar(tmp_path / other, [(row.path, row.content) for row in rows])
    files, _ = find_stream_files(str(tmp_path))
    streamed = dict(image for file in files for image in iter_stream_images(file))
    assert len(streamed) == 17 and "patient/x.jpg" in streamed
    if other != "b.parquet":
        loaded = load_unlabelled(str(tmp_path), "error").cast_column("image", ImageColumn(decode=False))
        assert {name: encoded_bytes(image) for name, image in streamed.items()} == {
            row["file_name"]: encoded_bytes(row["image"]) for row in loaded
        }


@pytest.mark.parametrize("order", [{"class_order": ["polyp", "mucosa"]}, {}], ids=["class_order", "checkpoint"])
def test_a_source_is_read_once(order, tmp_path, monkeypatch, caplog):
    """The folder is walked, and each manifest is read, once: for the kind, the images, another order of the classes,
    and the record of the run."""
    write_folder(tmp_path, make_rows(each=1))
    for split in ("train", "test"):
        rows = []
        for label in ("mucosa", "polyp"):
            rows.append(f"{label}/0.png,{label},{split},{'day' if label == 'polyp' else 'night'}\n")
        (tmp_path / split / "manifest.csv").write_text("file_name,label,split,time\n" + "".join(rows))
    read: list[str] = []
    for name in ("walk_images", "read_table"):
        original = getattr(location, name)
        monkeypatch.setattr(location, name, lambda path, f=original: read.append(str(path)) or f(path))
    options = DataSourceArguments(data_dir=str(tmp_path), **order)
    with caplog.at_level("INFO"), track_exclusions() as exclusion_log:
        splits = read_splits(options, model_class_names=["polyp", "mucosa"])
    describe_cohort(exclusion_log, splits)
    assert splits["train"].features["labels"].names == ["polyp", "mucosa"]
    manifests = [str(tmp_path / split / "manifest.csv") for split in ("test", "train")]
    assert sorted(read) == sorted([str(tmp_path), *manifests])
    assert exclusion_log.manifest is None, "there are two"


def test_the_manifest_of_a_run_is_that_of_its_source(tmp_path):
    write_folder(tmp_path, [SimpleNamespace(path=f"{number}.png", content=make_png(number)) for number in range(2)])
    (tmp_path / "metadata.csv").write_text("file_name,label,time\n0.png,mucosa,day\n1.png,polyp,night\n")
    with track_exclusions() as exclusion_log:
        splits = read_splits(DataSourceArguments(data_dir=str(tmp_path)))
    assert describe_cohort(exclusion_log, splits).columns == {"time": {"train": {"day": 1, "night": 1}}}


def test_the_folder_of_predictions_is_walked_once(tmp_path, monkeypatch):
    write_folder(tmp_path, [SimpleNamespace(path="1.png", content=make_png(1))])
    walked: list[str] = []
    for module in (location, predict_inputs):
        original = module.walk_images
        monkeypatch.setattr(module, "walk_images", lambda path, f=original: walked.append(str(path)) or f(path))
    assert find_input_paths([str(tmp_path)], include_videos=True) == [str(tmp_path / "1.png")]
    assert find_input_paths([str(tmp_path)]) == [str(tmp_path / "1.png")]
    assert walked == [str(tmp_path)] * 2

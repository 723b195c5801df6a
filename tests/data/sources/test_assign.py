"""No statement of a split, label or group is ignored silently, in any kind of source; no image is decoded."""

import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from support.messages import logged, raises

from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.folder_layout import NAMED_PATIENT, PATIENT_FOLDER
from hf_mae.data.sources.kinds import SourceOptions
from hf_mae.data.sources.predict_inputs import find_input_paths
from hf_mae.data.sources.source import open_source
from hf_mae.data.sources.split_loading import assign_samples


def read(source, **options):
    """The samples as (split, label, group)."""
    assigned = assign_samples(open_source(str(source), SourceOptions(**options)))
    return list(zip(assigned.splits, assigned.labels, assigned.groups or [None] * len(assigned.labels)))


def read_splits(source, **options):
    return [split for split, _, _ in read(source, **options)]


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo()  # its constructor normalizes names
            info.filename = name
            archive.writestr(info, content)
    return path


def write_files(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def write_csv(root, rows):
    write_files(root, [row["file_name"].replace("\\", "/") for row in rows])
    lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
    (root / "metadata.csv").write_text("\n".join(lines))
    return root


def write_jsonl(root, rows):
    write_csv(root, rows)
    (root / "metadata.csv").unlink()
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def write_webdataset(root, rows):
    members = []
    for number, row in enumerate(rows):
        members += [(f"{number}.png", b"x"), (f"{number}.json", row)]
    return write_tar(root / "images.tar", members)


def write_parquet(root, rows, paths=None):
    images = [{"bytes": b"x", "path": path} for path in paths or [None] * len(rows)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table({"image": images, **columns}), root / "images.parquet")
    return root / "images.parquet"


def write_saved(root, rows):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    Dataset.from_dict({"image": [{"bytes": b"x", "path": None}] * len(rows), **columns}).save_to_disk(root / "saved")
    return root / "saved"


TABLES = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "webdataset": write_webdataset,
    "parquet": write_parquet,
    "saved": write_saved,
}


def make_rows(**columns):
    count = len(next(iter(columns.values())))
    rows = [{"file_name": f"{number}.png", "label": "ab"[number % 2]} for number in range(count)]
    return [row | {name: values[number] for name, values in columns.items()} for number, row in enumerate(rows)]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "name", ["split", "Set", "subset", "PARTITION", "phase", "fold", "usage", "data_split", "Dataset-Split", "any name"]
)
def test_columns_with_words_of_splits_state_splits(kind, name, tmp_path):
    rows = make_rows(**{name: ["train", "Val", "TEST"]})
    assert read_splits(TABLES[kind](tmp_path, rows)) == ["train", "validation", "test"]


@pytest.mark.parametrize("kind", TABLES)
def test_columns_of_booleans_state_splits(kind, tmp_path):
    flags = [True, False, False]
    rows = make_rows(is_train=flags, isVal=flags[::-1], IS_TEST=[0, 1, 0])
    assert read_splits(TABLES[kind](tmp_path, rows)) == ["train", "test", "validation"]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "columns, message",
    [
        ({"is_test": [True, False]}, DataMessage.SPLITS_INCOMPLETE),
        ({"is_train": ["yes", "no"]}, DataMessage.SPLITS_INCOMPLETE),
        ({"is_train": [0, 0]}, DataMessage.UNKNOWN_SPLIT_NAMES),
        ({"is_test": [1, 1], "split": ["train", "test"]}, DataMessage.SPLITS_CONTRADICT),
        ({"is_test": [0, 0], "split": ["train", "test"]}, DataMessage.SPLITS_CONTRADICT),
        ({"split": ["train", "test"], "phase": ["train", "train"]}, DataMessage.SPLITS_CONTRADICT),
        ({"set": ["train", "external"]}, DataMessage.UNKNOWN_SPLIT_NAMES),
        ({"partition": ["a", "b"]}, DataMessage.UNKNOWN_SPLIT_NAMES),
        ({"split": ["1", "2"], "set": ["train", "test"]}, DataMessage.UNKNOWN_SPLIT_NAMES),
    ],
)
def test_columns_that_leave_the_split_open_are_rejected(kind, columns, message, tmp_path):
    source = TABLES[kind](tmp_path, make_rows(**columns))
    with raises(message):
        read(source)
    assert read_splits(source, split_from="none") == ["train", "train"]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "columns", [{"set": ["kvasir", "hyper"]}, {"is_test": [0, 0]}, {"test": ["x-ray", "biopsy"]}, {"invalid": [0, 1]}]
)
def test_other_columns_state_nothing(kind, columns, tmp_path):
    assert read_splits(TABLES[kind](tmp_path, make_rows(**columns))) == ["train", "train"]


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["fold", "cv_fold", "split_index"])
def test_numbers_of_folds_are_logged(kind, name, tmp_path, caplog):
    caplog.set_level("INFO")
    assert read_splits(TABLES[kind](tmp_path, make_rows(**{name: [1, 2]}))) == ["train", "train"]
    assert logged(caplog.records, DataMessage.SPLIT_COLUMNS_UNUSED, columns=[name])


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize(
    "member, file_name",
    [("test/0", "0.png"), ("0", "test/0.png"), ("0", r"test\0.png"), ("test/0", "test/1.png"), ("test/0", "/x/0.png")],
)
def test_members_and_their_sidecar_files_state_splits(write, member, file_name, tmp_path):
    sidecar = json.dumps({"file_name": file_name, "label": "a"}).encode()
    source = write(tmp_path / "x", [(f"{member}.png", b"x"), (f"{member}.json", sidecar)])
    assert read_splits(source) == ["test"]
    source = write(tmp_path / "y", [("train/0.png", b"x"), ("train/0.json", sidecar)])
    if "test" in file_name:
        with raises(DataMessage.SPLITS_CONTRADICT) as caught:
            read(source)
        assert sorted(text.split()[0] for text in caught.value.attributes["readings"]) == ["test", "train"]


@pytest.mark.parametrize("name, path", [("test/0.png", "0.png"), ("0.png", "test/0.png"), ("0.png", r"a\test\0.png")])
def test_names_and_paths_of_a_table_state_splits(name, path, tmp_path):
    rows = [{"file_name": name, "label": "a"}]
    assert read_splits(write_parquet(tmp_path, rows, [path])) == ["test"]


@pytest.mark.parametrize(
    "names, splits",
    [
        (["/x/train/0.png", "/x/test/1.png"], ["train", "test"]),
        ([r"C:\x\train\a\0.png", r"C:\x\test\b\1.png"], ["train", "test"]),
        (["C:/x/train/0.png", "C:/x/test/1.png"], ["train", "test"]),
        (["s3://x/train/0.png", "s3://x/test/1.png"], ["train", "test"]),
        ([r"\\server\x\train\0.png", r"\\server\x\test\1.png"], ["train", "test"]),
        (["/test/x/0.png", "/test/x/1.png"], ["train", "train"]),
        ([r"C:\test\0.png", r"C:\test\1.png"], ["train", "train"]),
        ([r"train\0.png", r"test\1.png"], ["train", "test"]),
        (["/x/train/0.png", "test/1.png"], None),
    ],
)
def test_absolute_paths_state_splits_below_their_common_folder(names, splits, tmp_path):
    source = write_parquet(tmp_path, [{"file_name": name, "label": "a"} for name in names])
    if splits is None:
        with raises(DataMessage.SPLITS_INCOMPLETE):
            read(source)
    else:
        assert read_splits(source) == splits
    source = write_parquet(tmp_path, [{"file_name": name, "label": "a", "split": "val"} for name in names])
    if all("/" in name[:3] or "\\" in name[:3] or "://" in name for name in names):  # not below the root
        assert read_splits(source) == ["validation"] * 2


def test_paths_of_manifests_may_be_absolute_or_written_on_windows(tmp_path):
    outer = write_files(tmp_path / "outer", ["train/0.png", "test/1.png"])
    root = write_csv(
        tmp_path / "root", [{"file_name": rf"{split}\{split}.png", "label": "a"} for split in ("val", "test")]
    )
    assert read_splits(root) == ["validation", "test"]
    rows = [f"{outer}/{name},a" for name in ("train/0.png", "test/1.png")]
    (root / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    assert read_splits(root) == ["train", "test"]
    (root / "metadata.csv").write_text("\n".join(["file_name,label,split", *(f"{row},test" for row in rows)]))
    assert read_splits(root) == ["test", "test"]


@pytest.mark.parametrize(
    "cls, label",
    [("polyp", "ulcer"), ("1", "2"), ("1", 2), ("polyp", "Polyp"), ("", "polyp"), ("2", "0"), ("1", 1.5), ("-1", "a")],
)
def test_a_key_with_two_labels_is_rejected(cls, label, tmp_path):
    write_tar(tmp_path / "x.tar", [("0.png", b"x"), ("0.cls", cls.encode()), ("0.json", {"label": label})])
    with raises(DataMessage.TAR_KEY_AMBIGUOUS if cls not in ("", "-1") else DataMessage.LABEL_MISSING):
        read(tmp_path / "x.tar")


@pytest.mark.parametrize(
    "cls, label", [("polyp", "polyp"), ("1", 1), ("1", "1.0"), ("3", "polyp"), ("polyp", " polyp ")]
)
def test_a_key_may_have_its_label_twice(cls, label, tmp_path):
    write_tar(tmp_path / "x.tar", [("0.png", b"x"), ("0.cls", cls.encode()), ("0.json", {"label": label})])
    assert read(tmp_path / "x.tar")[0][1] == str(label).strip().removesuffix(".0")


@pytest.mark.parametrize("labels", [[("0", "a"), ("0", "b")], [("0", "a"), ("1", "a")], [("a", "0"), ("b", "0")]])
@pytest.mark.parametrize("num_archives", [1, 2])
def test_class_ids_and_names_must_agree(labels, num_archives, tmp_path):
    members = [
        [(f"{n}.png", b"x"), (f"{n}.cls", cls.encode()), (f"{n}.json", {"label": name})]
        for n, (cls, name) in enumerate(labels)
    ]
    for number in range(num_archives):
        write_tar(tmp_path / f"{number}.tar", sum(members[number::num_archives], []))
    with raises(DataMessage.TAR_KEY_AMBIGUOUS):
        read(tmp_path)


def write_numbered(path, class_names=None):
    files = [] if class_names is None else [("classes.txt", class_names)]
    return write_tar(path, [("0.png", b"x"), ("0.cls", b"1"), ("1.png", b"x"), ("1.cls", b"0"), *files])


@pytest.mark.parametrize("is_inside", [True, False])
@pytest.mark.parametrize("is_direct", [True, False])
def test_class_names_in_an_archive_or_its_folder_are_used(is_inside, is_direct, tmp_path):
    source = write_numbered(tmp_path / "x.tar", b"polyp\r\nulcer\n" if is_inside else None)
    if not is_inside:
        (tmp_path / "classes.txt").write_text("polyp\nulcer\n")
    assert [label for _, label, _ in read(source if is_direct else tmp_path)] == ["ulcer", "polyp"]
    (tmp_path / "classes.txt").write_text("ulcer\npolyp\n")
    if is_inside:
        with raises(DataMessage.CLASS_NAMES_DIFFER):
            read(source)
    else:
        assert [label for _, label, _ in read(source)] == ["polyp", "ulcer"]


PATIENTS = ["patient_normal0", "patient-001_left", "case 12", "P0001", "Patient No. 3", "pat01", "case #12", "id_7"]
PATIENTS += ["patientAB12", "subject_A_3", "video3", "vid-12", "study.4", "p_T1", "case12b", "patient-001-left-2", "v2"]
CLASSES = [
    "pT1",
    "IDH1",
    "vgg16",
    "normal",
    "polyp_1",
    "grade 2",
    "patient",
    "case",
    "pathology1",
    "pattern2",
    "patch3",
]
CLASSES += ["subepithelial1", "persons", "videocapsule", "invalid", "preview1", "type-1", "stage 3", "p53wt", "T1a"]


@pytest.mark.parametrize("name", PATIENTS)
def test_names_of_patients(name):
    assert NAMED_PATIENT.fullmatch(name) and PATIENT_FOLDER.fullmatch(name)


@pytest.mark.parametrize("name", CLASSES)
def test_names_of_classes(name):
    assert not PATIENT_FOLDER.fullmatch(name)


@pytest.mark.parametrize("kind", ["folder", "tar", "csv"])
@pytest.mark.parametrize("layout", ["{patient}/{label}/1.png", "{label}/{patient}/1.png"])
@pytest.mark.parametrize("patients", [["patient_1", "patient_2", "other"], ["case 1", "case 2", "normal"]])
def test_patient_folders_of_some_images_are_a_warning(kind, layout, patients, tmp_path, caplog):
    names = [layout.format(patient=patient, label=label) for patient, label in zip(patients, "abc")]
    if kind == "csv":
        source = write_csv(tmp_path, [{"file_name": name, "label": "a"} for name in names])
    else:
        members = [(name, b"x") for name in names]
        source = write_tar(tmp_path / "x.tar", members) if kind == "tar" else write_files(tmp_path, names)
    if kind != "csv" and layout.startswith("{label}"):
        with raises(DataMessage.PATIENT_FOLDERS_IN_PART):
            read(source)
    else:
        assert {group for _, _, group in read(source)} == {None}
        assert logged(caplog.records, DataMessage.PATIENTS_IN_PART, count=2, others=1)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize("name", ["val", "Test", "dev", "training", "test_images"])
def test_a_class_may_be_named_like_a_split(kind, name, tmp_path):
    def write(names):
        if kind == "folder":
            return write_files(tmp_path / str(len(names)), names)
        write_packed = write_tar if kind == "tar" else write_zip
        return write_packed(tmp_path / f"{len(names)}.x", [(name, b"x") for name in names])

    source = write([f"{name}/1.png", "polyp/2.png"])
    with raises(DataMessage.SPLITS_INCOMPLETE):
        read(source)
    assert {label for _, label, _ in read(source, split_from="none")} == {name, "polyp"}
    source = write([f"{split}/{label}/1.png" for split in ("train", "test") for label in (name, "polyp")])
    with raises(DataMessage.SPLITS_AT_TWO_LEVELS, level=1):
        read(source)
    assert {row[:2] for row in read(source, class_level=1)} == {
        (s, c) for s in ("train", "test") for c in (name, "polyp")
    }
    source = write([f"{label}/1.png" for label in (name, "train", "testing")])  # all classes are
    with raises(DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS):
        read(source)
    assert {label for _, label, _ in read(source, split_from="none")} == {name, "train", "testing"}


@pytest.mark.parametrize("kind", TABLES)
def test_labels_of_a_table_may_be_named_like_splits(kind, tmp_path):
    rows = [{"file_name": f"{number}.png", "label": label} for number, label in enumerate(("val", "test", "polyp"))]
    assert {row[:2] for row in read(TABLES[kind](tmp_path, rows))} == {("train", c) for c in ("val", "test", "polyp")}


def test_names_of_a_table_must_exist_and_repeated_names_are_a_warning(tmp_path, caplog):
    for missing in (None, "", " "):
        with raises(DataMessage.MANIFEST_VALUE_MISSING, column="file_name"):
            read(write_parquet(tmp_path, [{"file_name": name, "label": "a"} for name in (missing, "1.png")]))
    source = open_source(str(write_parquet(tmp_path, [{"file_name": "1.png", "label": "a"}] * 2)))
    assert source.samples.data["file_name"][:] == ["train/0/1.png", "train/1/1.png"]
    assert logged(caplog.records, DataMessage.TABLE_NAMES_REPEATED, count=1, name="1.png")


def test_names_of_parts_must_be_splits_unless_a_column_states_them(tmp_path):
    part = Dataset.from_dict({"image": [{"bytes": b"x", "path": None}], "label": ["a"], "fold": [1]})
    DatasetDict({"a": part, "b": part}).save_to_disk(tmp_path / "saved")
    with raises(DataMessage.UNKNOWN_SPLIT_NAMES):
        read(tmp_path / "saved")


def test_zip_members_may_be_written_on_windows(tmp_path):
    source = write_zip(tmp_path / "x.zip", [(rf"{split}\polyp\1.png", b"x") for split in ("train", "test")])
    assert sorted(read(source)) == [("test", "polyp", None), ("train", "polyp", None)]


@pytest.mark.parametrize("kind", ["folder", "csv", "tar", "parquet", "predict"])
def test_other_files_in_the_folder_of_a_source_are_counted(kind, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = make_rows(split=["train", "test"])
    if kind in ("folder", "predict"):
        write_files(tmp_path, ["train/a/1.png", "test/b/1.png"])
    else:
        (write_webdataset if kind == "tar" else TABLES[kind])(tmp_path, rows)
    write_files(tmp_path, ["more/x.rar", "notes.txt"])
    if kind in ("folder", "csv", "predict"):
        write_files(tmp_path, ["old.zip", "old.tar"])
    if kind == "predict":
        assert len(find_input_paths([str(tmp_path)], include_videos=True)) == 2
    else:
        assert read_splits(tmp_path) == ["train", "test"] or kind == "folder"
    packed = ["1 .rar (extract them first)", "1 .tar (extract them first)", "1 .txt", "1 .zip (extract them first)"]
    ignored = packed[::2] if kind in ("tar", "parquet") else packed
    assert logged(caplog.records, DataMessage.FILES_IGNORED, ignored=ignored)


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize("name", ["kvasir_eval", "evaluation", "eval-set", "train_test"])
def test_archives_whose_name_is_unclear_are_rejected(write, name, tmp_path):
    write(tmp_path / f"{name}.zip", [("a/1.png", b"x")])
    with raises(DataMessage.SEVERAL_SPLITS_IN_NAME):
        read(tmp_path)


@pytest.mark.parametrize(
    "names",
    [["eval/a/1.png"], ["a/train_1.png", "a/test_2.png"], ["a/Val 1.png", "b/train-2.png"], ["a/eval set/1.png"]],
)
@pytest.mark.parametrize("kind", ["folder", "tar", "csv", "parquet"])
def test_names_of_folders_and_files_that_are_unclear_are_rejected(kind, names, tmp_path):
    rows = [{"file_name": name, "label": "a"} for name in names]
    if kind == "tar":
        source = write_tar(tmp_path / "x.tar", [(name, b"x") for name in names])
    else:
        source = write_files(tmp_path, names) if kind == "folder" else TABLES[kind](tmp_path, rows)
    with raises(DataMessage.SEVERAL_SPLITS_IN_NAME):
        read(source)
    assert set(read_splits(source, split_from="none")) == {"train"}


@pytest.mark.parametrize("labels", [["polyp_train", "polyp_test"], ["train-a", "VAL-a"], ["a (test)", "a (train)"]])
@pytest.mark.parametrize("kind", ["folder", *TABLES])
def test_class_names_that_differ_in_their_split_are_rejected(kind, labels, tmp_path):
    rows = [{"file_name": f"{label}/1.png", "label": label} for label in labels]
    source = (
        write_files(tmp_path, [row["file_name"] for row in rows]) if kind == "folder" else TABLES[kind](tmp_path, rows)
    )
    with raises(DataMessage.SPLITS_IN_CLASS_NAMES):
        read(source)
    assert {label for _, label, _ in read(source, split_from="none")} == set(labels)


@pytest.mark.parametrize("label", ["polyp\u200b", "Polyp", "ｐolyp", " polyp", "\ufeffpolyp"])
@pytest.mark.parametrize("kind", TABLES)
def test_labels_that_look_equal_are_rejected(kind, label, tmp_path):
    rows = [{"file_name": f"{n}.png", "label": text} for n, text in enumerate([label, "polyp"])]
    if label.strip() == "polyp":
        assert {row[1] for row in read(TABLES[kind](tmp_path, rows))} == {"polyp"}
    else:
        with raises(DataMessage.CLASS_NAMES_SIMILAR):
            read(TABLES[kind](tmp_path, rows))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "saved"])
@pytest.mark.parametrize("name", ["patient", "Patient_ID", "video", "case-id", "lesion id"])
def test_a_column_of_patients_that_is_not_used_is_a_warning(kind, name, tmp_path, caplog):
    source = TABLES[kind](tmp_path, make_rows(**{name: [1, 1, 2]}))
    assert {group for _, _, group in read(source)} == {None}
    assert logged(caplog.records, DataMessage.GROUP_COLUMN_UNUSED, column=name)
    assert [group for _, _, group in read(source, group_column=name)] == ["1", "1", "2"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "saved"])
def test_the_column_of_groups_has_any_case(kind, tmp_path):
    assert [group for _, _, group in read(TABLES[kind](tmp_path, make_rows(Group=["x", "y"])))] == ["x", "y"]


def test_values_of_json_files_that_are_not_used_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    read(write_webdataset(tmp_path, make_rows(patient=[1, 1], category=["x", "y"])))
    (record,) = [record for record in caplog.records if getattr(record, "code", None) is DataMessage.FILES_IGNORED]
    assert [text.split(" (")[0] for text in record.attributes["ignored"]] == [
        f"2 values of {key} in .json files" for key in ("category", "patient")
    ]


@pytest.mark.parametrize("name", ["path", "file_path", "filename"])
def test_columns_of_paths_state_splits(name, tmp_path):
    rows = [{"label": "a", name: "train/1.png"}, {"label": "b", name: "test/1.png"}]
    assert read_splits(write_parquet(tmp_path, rows)) == ["train", "test"]

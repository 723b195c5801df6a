"""Images in archives are read in place, and equal those of the folder."""

import gzip
import io
import json
import tarfile
import zipfile
import zlib

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.messages import raises

from hf_mae.data.fingerprint import data_fingerprint
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.images.torch_datasets import TrainDataset
from hf_mae.data.images.transforms import training_transform
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.kinds import SourceOptions
from hf_mae.data.sources.shard_writer import verify_shards, write_shards
from hf_mae.data.sources.source import open_source
from hf_mae.data.sources.split_loading import load_image_folder
from hf_mae.data.sources.unlabelled import load_unlabelled
from hf_mae.files.archive_members import Member, decompress_deflate, parse_member, read_member


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ and test/ with two classes; names with dots, spaces and non-ASCII letters."""
    root, generator = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("polyp", "ulcer é"):
            (root / split / label).mkdir(parents=True)
            for number in range(6):
                pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{split}.{number} ä.jpg")
    return root


def make_tar(folder, path):
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".")
    return path


def make_zip(folder, path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*.jpg"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def read_pixels(dataset):
    images = TrainDataset(dataset, training_transform("endoscopy", 32), cache=False)
    return [np.asarray(images.pixels[index]).tolist() for index in range(len(images))]


def assert_equal_splits(splits, expected):
    assert set(splits) == set(expected)
    for split in splits:
        assert splits[split]["file_name"][:] == expected[split]["file_name"][:]
        assert splits[split]["labels"][:] == expected[split]["labels"][:]
        assert splits[split].features["labels"] == expected[split].features["labels"]
        assert read_pixels(splits[split]) == read_pixels(expected[split])


@pytest.mark.parametrize("make", [make_tar, make_zip, lambda f, p: make_zip(f, p, zipfile.ZIP_STORED)])
def test_archives_equal_their_folder(folder, tmp_path, make):
    path = make(folder, tmp_path / ("all.tar" if make is make_tar else "all.zip"))
    expected = load_image_folder(folder)
    assert_equal_splits(load_image_folder(path), expected)
    assert_equal_splits(load_image_folder(tmp_path), expected)  # the folder of the archive
    images, expected = load_unlabelled(str(path), "error"), load_unlabelled(str(folder), "error")
    assert images["file_name"][:] == expected["file_name"][:] and read_pixels(images) == read_pixels(expected)


def test_shards_equal_their_folder(folder, tmp_path):
    splits = load_image_folder(folder, group_pattern=r"(\d+) ä")
    packed = write_shards(splits, tmp_path / "out", 8_000, 0, 2)
    assert packed.images_by_split == {"train": 12, "test": 12} and packed.num_shards > 4
    loaded = load_image_folder(tmp_path / "out")
    assert_equal_splits(loaded, splits)
    assert loaded["train"]["group"][:] == splits["train"]["group"][:]
    assert data_fingerprint(loaded) == data_fingerprint(splits)
    assert verify_shards(tmp_path / "out") == packed
    rows = pq.read_table(packed.folder / "index.parquet").to_pylist()
    stored = [row["file_name"] for row in sorted(rows, key=lambda row: (row["shard"], row["offset"]))]
    assert stored != sorted(stored), "the images are shuffled"
    for split in ("train", "test"):  # as a reader of WebDataset's layout does
        names, labels = {}, {}
        for shard in sorted((tmp_path / "out").glob(f"{split}-*.tar")):
            with tarfile.open(shard) as archive:
                for member in archive:
                    key, _, suffix = member.name.partition(".")
                    content = archive.extractfile(member).read()
                    if suffix == "json":
                        names[key] = json.loads(content)["file_name"]
                    elif suffix == "cls":
                        labels[key] = int(content)
        by_name = {names[key]: labels[key] for key in names}
        assert by_name == dict(zip(splits[split]["file_name"][:], splits[split]["labels"][:]))
    write_shards(splits, tmp_path / "again", 8_000, 0, 1)
    for file in (tmp_path / "out").glob("*.tar"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_sidecar_files_replace_a_missing_index(folder, tmp_path):
    splits = load_image_folder(folder, group_pattern=r"(\d+) ä")
    write_shards(splits, tmp_path / "out", 8_000, 0, 2)
    (tmp_path / "out" / "index.parquet").unlink()
    loaded = load_image_folder(tmp_path / "out")
    assert_equal_splits(loaded, splits)
    assert loaded["train"]["group"][:] == splits["train"]["group"][:]


def test_interrupted_packing_resumes(folder, tmp_path, monkeypatch):
    splits, out = load_image_folder(folder), tmp_path / "out"
    written = []
    original_addfile = tarfile.TarFile.addfile

    def interrupted_addfile(tar, info, content=None):
        written.append(info.name)
        if len(written) == 20:
            raise KeyboardInterrupt
        original_addfile(tar, info, content)

    monkeypatch.setattr(tarfile.TarFile, "addfile", interrupted_addfile)
    with pytest.raises(KeyboardInterrupt):
        write_shards(splits, out, 8_000, 0, 1)
    inodes = {file.name: file.stat().st_ino for file in out.glob("*.tar")}
    assert inodes and not (out / "index.parquet").exists()
    with raises(ImageMessage.SHARD_FOLDER_DIFFERS, folder=out):
        write_shards(splits, out, 9_000, 0, 1)
    write_shards(splits, out, 8_000, 0, 1)
    assert all((out / name).stat().st_ino == inode for name, inode in inodes.items())
    assert_equal_splits(load_image_folder(out), splits)
    assert not (out / "plan.json").exists() and not (out / ".parts").exists()
    with raises(ImageMessage.SHARD_FOLDER_NOT_EMPTY, folder=out):
        write_shards(splits, out, 8_000, 0, 1)


def test_archives_may_use_the_same_names(folder, tmp_path):
    image = next(folder.rglob("*.jpg")).read_bytes()
    for shard in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / shard, "w") as archive:
            add_member(archive, "0.jpg", b"replaced by the next member of the same name")
            add_member(archive, "0.jpg", image)
    assert load_unlabelled(str(tmp_path), "error")["file_name"][:] == ["a.tar/0.jpg", "b.tar/0.jpg"]


def test_numeric_labels_get_the_names_of_classes_txt(folder, tmp_path):
    image = next(folder.rglob("*.jpg")).read_bytes()
    with tarfile.open(tmp_path / "train-000.tar", "w") as archive:
        for number, label in enumerate((2, 0, 10)):
            add_member(archive, f"{number:04d}.jpg", image)
            add_member(archive, f"{number:04d}.cls", str(label).encode())
    assert load_image_folder(tmp_path)["train"].features["labels"].names == ["0", "10", "2"]
    (tmp_path / "classes.txt").write_text("".join(f"class {number}\n" for number in range(11)))
    train = load_image_folder(tmp_path)["train"]
    assert [train.features["labels"].names[label] for label in train["labels"]] == ["class 2", "class 0", "class 10"]


def add_member(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_remote_shards_are_read(folder, tmp_path):
    """With fsspec's file system in memory in place of S3."""
    splits = load_image_folder(folder)
    write_shards(splits, tmp_path / "out", 8_000, 0, 2)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "out") + "/", "/bucket/set", recursive=True)
    memory.put(str(make_zip(folder, tmp_path / "all.zip")), "/bucket/other/all.zip")
    assert_equal_splits(load_image_folder("memory://bucket/set"), splits)
    assert_equal_splits(load_image_folder("memory://bucket/other"), splits)
    assert_equal_splits(load_image_folder("memory://bucket/other/*.zip"), splits)
    with raises(DataMessage.NO_DATA_AT_URL, source="memory://bucket/none"):
        load_image_folder("memory://bucket/none")
    with raises(DataMessage.SOURCE_UNREACHABLE, source="nosuchprotocol://bucket"):
        load_image_folder("nosuchprotocol://bucket")


def truncate(path):
    path.write_bytes(path.read_bytes()[:2000])


def overwrite(path):
    path.write_bytes(b"not a tar file" * 100)


def compress(path):
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    "damage, message",
    [
        (overwrite, DataMessage.ARCHIVE_DAMAGED),
        (compress, DataMessage.TAR_COMPRESSED),
        (truncate, DataMessage.ARCHIVE_DAMAGED),
    ],
)
def test_damaged_tar_files_are_reported(folder, tmp_path, damage, message):
    damage(make_tar(folder, tmp_path / "all.tar"))
    with raises(message, archive=tmp_path / "all.tar"):
        load_image_folder(tmp_path)


def test_damaged_shards_are_reported(folder, tmp_path):
    out = tmp_path / "out"
    write_shards(load_image_folder(folder), out, 8_000, 0, 2)
    shard = sorted(out.glob("*.tar"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with raises(DataMessage.SHARDS_CHANGED, count=1, names="test-00000.tar"):
        load_image_folder(out)
    shard.write_bytes(content[:5000] + b"x" + content[5001:])
    with raises(ImageMessage.DAMAGED_SHARDS, count=1, names="test-00000.tar"):
        verify_shards(out)
    for metadata, message in (
        (b"[1]", DataMessage.INDEX_INCOMPATIBLE),
        (b'{"version": 1, "shards": []}', DataMessage.INDEX_INCOMPATIBLE),
        (b'{"version": 1, "shards": {"../a.tar": 1}}', DataMessage.INDEX_INCOMPATIBLE),
        (b"{", DataMessage.INDEX_DAMAGED),
    ):
        table = pq.read_table(out / "index.parquet").replace_schema_metadata({"hf_mae": metadata})
        pq.write_table(table, out / "index.parquet")
        with raises(message, index=out / "index.parquet"):
            load_image_folder(out)
    (out / "index.parquet").write_bytes(b"not a parquet file")
    with raises(DataMessage.INDEX_DAMAGED, index=out / "index.parquet"):
        load_image_folder(out)
    with raises(ImageMessage.INVALID_SHARD_INDEX, folder=out):
        verify_shards(out)


@pytest.mark.parametrize("column", ["shard", "offset", "size", "file_name", "split"])
def test_an_index_with_empty_cells_is_rejected(folder, tmp_path, column):
    out = write_shards(load_image_folder(folder), tmp_path / "out", 10**6, 0, 1).folder
    table = pq.read_table(out / "index.parquet")
    number, field = table.column_names.index(column), table.schema.field(column)
    values = pa.array([None, *table[column].to_pylist()[1:]], field.type)
    pq.write_table(table.set_column(number, field, values), out / "index.parquet")
    with raises(DataMessage.INDEX_DAMAGED if column != "shard" else DataMessage.INDEX_UNKNOWN_SHARDS):
        load_image_folder(out)


def test_an_index_may_not_refer_to_other_folders(folder, tmp_path):
    out = write_shards(load_image_folder(folder), tmp_path / "out", 10**6, 0, 1).folder
    table = pq.read_table(out / "index.parquet")
    shards = pa.array(["../../secret.tar"] * len(table)).dictionary_encode().cast(table.schema.field("shard").type)
    pq.write_table(table.set_column(0, table.schema.field("shard"), shards), out / "index.parquet")
    with raises(DataMessage.INDEX_UNKNOWN_SHARDS, index=out / "index.parquet"):
        load_image_folder(out)


def test_damaged_images_in_archives_are_listed(folder, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        add_member(archive, "polyp/good.jpg", next(folder.rglob("*.jpg")).read_bytes())
        add_member(archive, "polyp/bad.jpg", b"no image")
    with raises(DataMessage.INVALID_IMAGES) as caught:
        load_image_folder(tmp_path)
    assert "bad.jpg (not an image" in caught.value.attributes["problems"]
    with raises(DataMessage.UNREADABLE_IMAGES, count=1) as caught:
        load_unlabelled(str(tmp_path), "error", decode=False)
    assert "bad.jpg (not an image" in caught.value.attributes["images"]
    assert load_image_folder(tmp_path, on_bad_image="skip")["train"]["file_name"][:] == ["polyp/good.jpg"]
    assert load_unlabelled(str(tmp_path), "skip")["file_name"][:] == ["polyp/good.jpg"]


def test_archives_without_classes_are_rejected_as_labelled_data(folder, tmp_path):
    write_shards(load_image_folder(folder), tmp_path / "labelled", 10**6, 0, 1)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        add_member(archive, "1.jpg", next(folder.rglob("*.jpg")).read_bytes())
    with raises(DataMessage.IMAGES_OUTSIDE_CLASS_FOLDERS, names="1.jpg"):
        load_image_folder(tmp_path / "all.tar")


@pytest.mark.parametrize(
    "member, reason", [(Member("a.tar", 0, 9, False), "is truncated"), (Member("a.tar", 0, 4, True), "damaged")]
)
def test_missing_members_are_reported(tmp_path, monkeypatch, member, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"\xffabc")
    with pytest.raises(OSError, match=reason):
        read_member(member)


def test_member_paths_differ_from_file_paths():
    member = Member("/a b/c::d.tar", 3, 4, True)
    assert parse_member(str(member)) == member
    assert parse_member("/a/b.jpg") is None and parse_member("/a::3+4/b.jpg") is None


def test_members_that_are_no_plain_files_are_never_read_or_extracted(tmp_path):
    """Devices, links out of the archive, sparse files, absolute names and `..` are names only."""
    content, path = io.BytesIO(), tmp_path / "set.tar"
    Image.new("RGB", (16, 16)).save(content, "PNG")
    kinds = {tarfile.CHRTYPE: "", tarfile.BLKTYPE: "", tarfile.FIFOTYPE: "", tarfile.SYMTYPE: "/etc/passwd"}
    special = [(f"a/{kind!r}.png", kind, link) for kind, link in kinds.items()]
    special += [("a/hard.png", tarfile.LNKTYPE, "/etc/passwd"), ("a/up.png", tarfile.LNKTYPE, "../../etc/passwd")]
    with tarfile.open(path, "w") as tar:
        for name in ("a/0.png", "b/1.png", "/b/2.png", "../b/3.png"):
            info = tarfile.TarInfo(name)
            info.size = content.tell()
            tar.addfile(info, io.BytesIO(content.getvalue()))
        for name, kind, link in special:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
        sparse = tarfile.TarInfo("a/sparse.png")
        sparse.size, sparse.pax_headers = 512, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        sparse.pax_headers |= {"GNU.sparse.name": "a/sparse.png", "GNU.sparse.realsize": "1000000000000"}
        tar.addfile(sparse, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0")))
    before = sorted(tmp_path.parent.rglob("*"))
    samples = open_source(str(path), SourceOptions(labelled=False)).samples
    assert sorted(samples.paths()) == ["../b/3.png", "a/0.png", "b/1.png", "b/2.png"]
    assert sorted(tmp_path.parent.rglob("*")) == before
    huge = tarfile.TarInfo("a/huge.png")
    huge.size = 10**12
    path.write_bytes(path.read_bytes()[:1024] + huge.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with raises(DataMessage.ARCHIVE_DAMAGED, archive=path):
        open_source(str(path), SourceOptions(labelled=False)).samples.paths()


def test_a_deflated_member_that_expands_without_end_is_rejected():
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join([packer.compress(bytes(1 << 22)) for _ in range(60)] + [packer.flush()])
    with pytest.raises(OSError, match="larger than 200,000,000 bytes"):
        decompress_deflate(packed)

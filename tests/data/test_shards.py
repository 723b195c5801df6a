"""Images within archives are read at their place, and are the images of the folder."""

import io
import json
import tarfile
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_mae.data.fingerprint import data_fingerprint
from hf_mae.data.folders import load_image_folder
from hf_mae.data.shard_writer import verify_shards, write_shards
from hf_mae.data.torch_datasets import TrainDataset
from hf_mae.data.transforms import training_transform
from hf_mae.data.unlabelled import load_unlabelled
from hf_mae.errors import UsageError
from hf_mae.files.archive_members import Member, parse_member, read_member


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ and test/ with two classes; names with dots, spaces and letters beyond ASCII."""
    root, draws = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("polyp", "ulcer é"):
            (root / split / label).mkdir(parents=True)
            for number in range(6):
                pixels = draws.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{split}.{number} ä.jpg")
    return root


def as_tar(folder, path):
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".")
    return path


def as_zip(folder, path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*.jpg"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return path


def pixels(dataset):
    images = TrainDataset(dataset, training_transform("endoscopy", 32), cache=False)
    return [np.asarray(images.pixels[place]).tolist() for place in range(len(images))]


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for split in ours:
        assert ours[split]["file_name"][:] == theirs[split]["file_name"][:]
        assert ours[split]["labels"][:] == theirs[split]["labels"][:]
        assert ours[split].features["labels"] == theirs[split].features["labels"]
        assert pixels(ours[split]) == pixels(theirs[split])


@pytest.mark.parametrize("make", [as_tar, as_zip, lambda f, p: as_zip(f, p, zipfile.ZIP_STORED)])
def test_an_archive_is_the_folder(folder, tmp_path, make):
    path = make(folder, tmp_path / ("all.tar" if make is as_tar else "all.zip"))
    ours, theirs = load_image_folder(path), load_image_folder(folder)
    assert_same(ours, theirs)
    assert_same(load_image_folder(tmp_path), theirs)  # the folder that holds it
    ours, theirs = load_unlabelled(str(path), "error"), load_unlabelled(str(folder), "error")
    assert ours["file_name"][:] == theirs["file_name"][:] and pixels(ours) == pixels(theirs)


def test_shards_are_the_folder(folder, tmp_path):
    splits = load_image_folder(folder, group_pattern=r"(\d+) ä")
    packed = write_shards(splits, tmp_path / "out", 8_000, 0, 2)
    assert packed.images_by_split == {"train": 12, "test": 12} and packed.num_shards > 4
    ours = load_image_folder(tmp_path / "out")
    assert_same(ours, splits)
    assert ours["train"]["group"][:] == splits["train"]["group"][:]
    assert data_fingerprint(ours) == data_fingerprint(splits)
    assert verify_shards(tmp_path / "out") == packed
    lying = [row["file_name"] for row in sorted(pq.read_table(packed.folder / "index.parquet").to_pylist(), key=place)]
    assert lying != sorted(lying), "where they lie is shuffled"
    for split in ("train", "test"):  # anybody's reader of WebDataset's layout, by its rules
        names, labels = {}, {}
        for shard in sorted((tmp_path / "out").glob(f"{split}-*.tar")):
            with tarfile.open(shard) as archive:
                for member in archive:
                    key, _, kind = member.name.partition(".")
                    content = archive.extractfile(member).read()
                    if kind == "json":
                        names[key] = json.loads(content)["file_name"]
                    elif kind == "cls":
                        labels[key] = int(content)
        by_name = {names[key]: labels[key] for key in names}
        assert by_name == dict(zip(splits[split]["file_name"][:], splits[split]["labels"][:]))
    write_shards(splits, tmp_path / "again", 8_000, 0, 1)
    for file in (tmp_path / "out").glob("*.tar"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def place(row):
    return row["shard"], row["offset"]


def test_without_an_index_the_metadata_beside_the_images_tells(folder, tmp_path):
    splits = load_image_folder(folder, group_pattern=r"(\d+) ä")
    write_shards(splits, tmp_path / "out", 8_000, 0, 2)
    (tmp_path / "out" / "index.parquet").unlink()
    ours = load_image_folder(tmp_path / "out")
    assert_same(ours, splits)
    assert ours["train"]["group"][:] == splits["train"]["group"][:]


def test_packing_goes_on_where_it_was_broken_off(folder, tmp_path, monkeypatch):
    splits, out = load_image_folder(folder), tmp_path / "out"
    written = []
    add = tarfile.TarFile.addfile

    def breaks(tar, info, content=None):
        written.append(info.name)
        if len(written) == 20:
            raise KeyboardInterrupt
        add(tar, info, content)

    monkeypatch.setattr(tarfile.TarFile, "addfile", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_shards(splits, out, 8_000, 0, 1)
    there = {file.name: file.stat().st_ino for file in out.glob("*.tar")}
    assert there and not (out / "index.parquet").exists()
    with pytest.raises(UsageError, match="begun for other images, or with another"):
        write_shards(splits, out, 9_000, 0, 1)
    write_shards(splits, out, 8_000, 0, 1)
    assert all((out / name).stat().st_ino == inode for name, inode in there.items())
    assert_same(load_image_folder(out), splits)
    assert not (out / "plan.json").exists() and not (out / ".parts").exists()
    with pytest.raises(UsageError, match="exists and is not empty"):
        write_shards(splits, out, 8_000, 0, 1)


def test_archives_that_use_the_same_names(folder, tmp_path):
    image = next(folder.rglob("*.jpg")).read_bytes()
    for shard in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / shard, "w") as archive:
            add(archive, "0.jpg", b"an earlier one, which the next takes the place of")
            add(archive, "0.jpg", image)
    assert load_unlabelled(str(tmp_path), "error")["file_name"][:] == ["a.tar/0.jpg", "b.tar/0.jpg"]


def test_numbers_are_classes_by_the_file_beside_them(folder, tmp_path):
    image = next(folder.rglob("*.jpg")).read_bytes()
    with tarfile.open(tmp_path / "train-000.tar", "w") as archive:
        for number, label in enumerate((2, 0, 10)):
            add(archive, f"{number:04d}.jpg", image)
            add(archive, f"{number:04d}.cls", str(label).encode())
    assert load_image_folder(tmp_path)["train"].features["labels"].names == ["0", "10", "2"]
    (tmp_path / "classes.txt").write_text("".join(f"class {number}\n" for number in range(11)))
    found = load_image_folder(tmp_path)["train"]
    assert [found.features["labels"].names[label] for label in found["labels"]] == ["class 2", "class 0", "class 10"]


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_shards_elsewhere(folder, tmp_path):
    """As of S3: whatever fsspec opens; its file system in memory stands for it."""
    splits = load_image_folder(folder)
    write_shards(splits, tmp_path / "out", 8_000, 0, 2)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "out") + "/", "/bucket/set", recursive=True)
    memory.put(str(as_zip(folder, tmp_path / "all.zip")), "/bucket/other/all.zip")
    assert_same(load_image_folder("memory://bucket/set"), splits)
    assert_same(load_image_folder("memory://bucket/other"), splits)
    assert_same(load_image_folder("memory://bucket/other/*.zip"), splits)
    with pytest.raises(UsageError, match="memory://bucket/none holds no .tar or .zip"):
        load_image_folder("memory://bucket/none")
    with pytest.raises(UsageError, match="cannot be reached"):
        load_image_folder("nosuchprotocol://bucket")


def cut(path):
    path.write_bytes(path.read_bytes()[:2000])


def not_a_tar(path):
    path.write_bytes(b"nothing of the kind" * 100)


def gzipped(path):
    plain = path.read_bytes()
    import gzip

    path.write_bytes(gzip.compress(plain))


@pytest.mark.parametrize(
    "harm, sentence", [(not_a_tar, "is damaged, or no archive"), (gzipped, "compressed as a whole"), (cut, "damaged")]
)
def test_what_is_no_tar(folder, tmp_path, harm, sentence):
    harm(as_tar(folder, tmp_path / "all.tar"))
    with pytest.raises(UsageError, match=sentence):
        load_image_folder(tmp_path)


def test_what_is_wrong_with_shards(folder, tmp_path):
    out = tmp_path / "out"
    write_shards(load_image_folder(folder), out, 8_000, 0, 2)
    shard = sorted(out.glob("*.tar"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UsageError, match="does not go with 1 shard .*test-00000.tar"):
        load_image_folder(out)
    shard.write_bytes(content[:5000] + b"x" + content[5001:])
    with pytest.raises(UsageError, match="1 shard of .* is missing or damaged: test-00000.tar"):
        verify_shards(out)
    for about in (b"[1]", b'{"version": 1, "shards": []}', b'{"version": 1, "shards": {"../a.tar": 1}}', b"{"):
        table = pq.read_table(out / "index.parquet").replace_schema_metadata({"hf_mae": about})
        pq.write_table(table, out / "index.parquet")
        with pytest.raises(UsageError, match="make the shards again"):
            load_image_folder(out)
    (out / "index.parquet").write_bytes(b"no parquet")
    for read in (load_image_folder, verify_shards):
        with pytest.raises(UsageError, match="damaged"):
            read(out)


def test_an_index_that_reaches_out_of_its_folder(folder, tmp_path):
    out = write_shards(load_image_folder(folder), tmp_path / "out", 10**6, 0, 1).folder
    table = pq.read_table(out / "index.parquet")
    shards = pa.array(["../../secret.tar"] * len(table)).dictionary_encode().cast(table.schema.field("shard").type)
    pq.write_table(table.set_column(0, table.schema.field("shard"), shards), out / "index.parquet")
    with pytest.raises(UsageError, match="names other shards than it has"):
        load_image_folder(out)


def test_a_damaged_image_in_an_archive_is_named(folder, tmp_path):
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        add(archive, "polyp/good.jpg", next(folder.rglob("*.jpg")).read_bytes())
        add(archive, "polyp/bad.jpg", b"no image")
    for read in (load_image_folder, lambda path: load_unlabelled(str(path), "error", decode=False)):
        with pytest.raises(UsageError, match="bad.jpg .it is no image"):
            read(tmp_path)
    assert load_image_folder(tmp_path, on_bad_image="skip")["train"]["file_name"][:] == ["polyp/good.jpg"]
    assert load_unlabelled(str(tmp_path), "skip")["file_name"][:] == ["polyp/good.jpg"]


def test_images_without_a_class_are_refused_where_classes_are_needed(folder, tmp_path):
    write_shards(load_image_folder(folder), tmp_path / "labelled", 10**6, 0, 1)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        add(archive, "1.jpg", next(folder.rglob("*.jpg")).read_bytes())
    with pytest.raises(UsageError, match="has images without a class"):
        load_image_folder(tmp_path / "all.tar")


@pytest.mark.parametrize(
    "member, reason", [(Member("a.tar", 0, 9, False), "ends before"), (Member("a.tar", 0, 4, True), "damaged")]
)
def test_members_that_are_not_there(tmp_path, monkeypatch, member, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"\xffabc")
    with pytest.raises(OSError, match=reason):
        read_member(member)


def test_members_are_told_from_files():
    member = Member("/a b/c::d.tar", 3, 4, True)
    assert parse_member(str(member)) == member
    assert parse_member("/a/b.jpg") is None and parse_member("/a::3+4/b.jpg") is None

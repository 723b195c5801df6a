"""Two updates of a tiny model give the same batches and weights, bit for bit, from every kind of source."""

import shutil

import numpy as np
import pytest
import torch
from datasets import Features, Value
from datasets import Image as ImageColumn
from PIL import Image

from hf_mae.data.images.torch_datasets import TrainDataset
from hf_mae.data.images.transforms import training_transform
from hf_mae.data.sources.shard_writer import write_shards
from hf_mae.data.sources.split_loading import load_image_folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same images as each kind of source."""
    root, generator = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    for number in range(8):
        path = root / "folder" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    for kind in ("zip", "tar"):
        shutil.make_archive(str(root / kind), kind, root / "folder")
    splits = load_image_folder(root / "folder")
    write_shards(splits, root / "shards", 8_000, 0, 1)
    names = splits["train"]["file_name"][:]
    images = [{"bytes": (root / "folder" / name).read_bytes(), "path": name} for name in names]
    columns = {"image": images, "label": [name.split("/")[1] for name in names], "file_name": names}
    features = Features({"image": ImageColumn(), "label": Value("string"), "file_name": Value("string")})
    table = splits["train"].from_dict(columns, features=features)
    table.to_parquet(root / "train.parquet")
    table.save_to_disk(root / "saved")
    suffixes = {"folder": "folder", "zip": "zip.zip", "tar": "tar.tar", "shards": "shards"}
    return {kind: root / name for kind, name in (suffixes | {"parquet": "train.parquet", "saved": "saved"}).items()}


def train(source, num_workers=0, cache=True):
    """The batches and final weights of two updates, as bytes."""
    images = TrainDataset(load_image_folder(source)["train"], training_transform("endoscopy", 32), 0, cache, 1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8, 8), torch.nn.Flatten(), torch.nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    loader = torch.utils.data.DataLoader(
        images, 4, shuffle=True, generator=torch.Generator().manual_seed(0), num_workers=num_workers
    )
    seen = []
    for batch in loader:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch["pixel_values"]), batch["labels"]).backward()
        optimizer.step()
        seen += [batch["pixel_values"].numpy().tobytes(), batch["labels"].tolist()]
    return seen, [parameter.detach().numpy().tobytes() for parameter in model.parameters()]


@pytest.mark.parametrize("num_workers, cache", [(0, True), (0, False), (1, False), (4, True)])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "shards", "parquet", "saved"])
def test_batches_and_weights_are_those_of_the_folder(kind, num_workers, cache, sources):
    expected = train(sources["folder"])
    assert len(expected[0]) == 4 and train(sources[kind], num_workers, cache) == expected

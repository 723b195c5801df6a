"""Probes of frozen features: better for better features, honest in what chooses and what judges, and quick again."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.cli_process import run_cli
from support.models import tiny_pretrainer

from hf_mae.cli.main import main
from hf_mae.evaluation import features as module
from hf_mae.evaluation.attentive_probe import LEARNING_RATES, WEIGHT_DECAYS, attentive_probe
from hf_mae.evaluation.probes import fit_linear_probe
from hf_mae.evaluation.probes import probe_features as probe
from hf_mae.models.tta import make_view


def blobs(images: int, spread: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(0, 1, (3, 16))
    labels = np.arange(images) % 3
    return (centres[labels] + rng.normal(0, spread, (images, 16))).astype(np.float32), labels


def test_separable_features_are_told_apart_and_noise_is_not():
    for spread, low, high in ((0.3, 0.97, 1.0), (50.0, 0.1, 0.6)):
        parts = {name: blobs(150, spread, seed) for seed, name in enumerate(("train", "sweep", "judge"))}
        features, labels = ({name: part[i] for name, part in parts.items()} for i in (0, 1))
        scores = probe(features, labels, ["a", "b", "c"])
        for kind in ("linear", "knn"):
            assert low <= scores[kind]["accuracy"] <= high, (spread, kind)


def test_the_linear_probe_finds_what_logistic_regression_finds():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, labels = blobs(300, 1.2)
    held_out, truth = blobs(300, 1.2, seed=1)
    logits_of, settings = fit_linear_probe(train, labels, 3)
    ours = (logits_of(held_out).argmax(-1) == truth).mean(-1)
    scaler = StandardScaler().fit(train)
    theirs = LogisticRegression(max_iter=1000).fit(scaler.transform(train), labels)
    assert len(ours) == len(settings) == 24
    assert ours.max() >= theirs.score(scaler.transform(held_out), truth) - 0.01


def test_features_do_not_depend_on_their_scale():
    """Batch normalisation without affine parameters comes first."""
    train, labels = blobs(150, 0.8)
    one, two = (fit_linear_probe(train * scale + shift, labels, 3)[0] for scale, shift in ((1, 0), (100, 7)))
    np.testing.assert_allclose(one(train), two(train * 100 + 7), atol=1e-2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mae")
    tiny_pretrainer().save_pretrained(folder)
    return folder


@pytest.mark.run
def test_the_verb(checkpoint, toy, pictures, tmp_path, capsys, monkeypatch):
    argv = ["probe", "--model_name_or_path", str(checkpoint), "--data_dir", str(toy / "labelled")]
    assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "train: 60 images (train); sweep: 18 images (validation); judge: 18 images (test)" in printed
    results = json.loads((tmp_path / "out" / "probe.json").read_text())
    for pooling in ("cls", "mean"):
        for kind in ("linear", "knn"):
            row = next(line for line in printed.splitlines() if line.split()[:2] == [pooling, kind])
            assert float(row.split()[2 + 3]) == pytest.approx(100 * results[pooling][kind]["accuracy"], abs=0.01)
    assert (tmp_path / "out" / "tsne.png").stat().st_size > 5000
    monkeypatch.setattr(module, "extract_pooled_features", None)  # the second time they are read from the cache
    assert main([*argv, "--tsne", "false", "--umap", "true", "--output_dir", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out == printed
    assert (tmp_path / "again" / "umap.png").stat().st_size > 5000 and not (tmp_path / "again" / "tsne.png").exists()


def test_where_there_is_no_test_split_a_part_of_the_training_images_chooses(checkpoint, toy):
    train = toy / "labelled" / "train"
    argv = ["probe", "--model_name_or_path", checkpoint, "--data_dir", train, "--val_fraction", 0.25]
    done = run_cli(*argv)
    assert "train: 36 images (train); sweep: 9 images (selection); judge: 15 images (validation)" in done.stdout
    done = run_cli(*argv[:-2], status=1)
    assert "pass --val_fraction 0.2" in done.stderr


def test_a_pth_and_its_converted_folder_give_the_same(tiny_pth, toy, tmp_path):
    run_cli("convert", tiny_pth, tmp_path / "converted")
    outputs = []
    for model in (tiny_pth, tmp_path / "converted"):
        argv = ["--model_name_or_path", model, "--data_dir", toy / "labelled", "--output_dir", tmp_path / "out"]
        run_cli("probe", *argv, "--num_attention_heads", 3)
        outputs.append(json.loads((tmp_path / "out" / "probe.json").read_text())["mean"])
    assert outputs[0] == outputs[1]


class Pixels(torch.nn.Module):
    """A backbone whose tokens are the pixels, mixed."""

    config = SimpleNamespace(hidden_size=8)
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.mix = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))

    def forward(self, pixel_values):
        return SimpleNamespace(last_hidden_state=pixel_values.flatten(2).mT @ self.mix)


@pytest.mark.run
def test_a_query_reads_what_a_mean_loses():
    """One bright pixel, wherever it is, is red or green; the others are so at random, and their mean drowns it."""

    def made(count, seed):
        draw = torch.Generator().manual_seed(seed)
        pixels = torch.randn(count, 3, 16, generator=draw)
        labels, places = torch.arange(count) % 2, torch.randint(16, (count,), generator=draw)
        pixels[:, 2] = 0
        pixels[torch.arange(count), 2, places] = 4.0
        pixels[torch.arange(count), 0, places] = 2.0 * labels - 1
        items = [{"pixel_values": p.view(3, 4, 4), "labels": int(y)} for p, y in zip(pixels, labels)]
        return items, labels.numpy(), (pixels.mT @ Pixels().mix).mean(1).numpy()

    counts = {"train": 600, "sweep": 150, "judge": 300}
    parts = {part: made(count, seed) for seed, (part, count) in enumerate(counts.items())}
    images, labels, means = ({part: own[i] for part, own in parts.items()} for i in (0, 1, 2))
    state = torch.random.get_rng_state()
    found = attentive_probe(Pixels(), images, labels, ["a", "b"], epochs=25)
    assert probe(means, labels, ["a", "b"])["linear"]["accuracy"] < 0.75 < 0.9 < found["accuracy"]
    assert torch.equal(state, torch.random.get_rng_state())
    assert found["learning_rate"] in LEARNING_RATES and found["weight_decay"] in WEIGHT_DECAYS


def test_the_attentive_probe_is_the_same_again():
    items = [{"pixel_values": torch.full((3, 4, 4), float(n % 2)), "labels": n % 2} for n in range(12)]
    images, labels = dict.fromkeys(("train", "sweep", "judge"), items), dict.fromkeys(("train", "sweep", "judge"), ROWS)
    one, two = (attentive_probe(Pixels(), images, labels, ["a", "b"], epochs=3) for _ in range(2))
    assert one == two


ROWS = np.arange(12) % 2


class PlacedPixels(Pixels):
    """Whose tokens tell their place, as those of a ViT."""

    places = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))

    def forward(self, pixel_values):
        return SimpleNamespace(last_hidden_state=super().forward(pixel_values).last_hidden_state + 2 * self.places)


def test_the_attentive_probe_takes_an_image_for_the_same_however_it_is_turned():
    pixels = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = dict.fromkeys(("train", "sweep", "judge"), np.arange(40) % 3)

    def scores(number):
        items = [{"pixel_values": make_view(image, number), "labels": n % 3} for n, image in enumerate(pixels)]
        images = {"train": straight, "sweep": straight, "judge": items}
        return attentive_probe(PlacedPixels(), images, labels, ["a", "b", "c"], epochs=3)

    straight = [{"pixel_values": image, "labels": n % 3} for n, image in enumerate(pixels)]
    assert scores(0) == scores(5) == scores(2)
    assert 0.3 < scores(0)["accuracy"] < 1.0  # which would be another of other views


@pytest.mark.run
def test_layers_are_chosen_and_features_written(checkpoint, toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_mae.evaluation.attentive_probe.EPOCHS", 2)
    argv = ["probe", str(checkpoint), str(toy / "labelled"), "--tsne", "false", "--layers", "--attentive"]
    assert main([*argv, "--features", str(tmp_path / "f.npz"), "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "probe.json").read_text())
    chosen = results["chosen"]["linear"]
    assert f"chosen: {chosen['features']}" in printed and "tokens    attentive" in printed
    assert chosen["features"] in ("cls", "mean", "cls block 1", "mean block 1", "cls block 2", "mean block 2")
    assert main([*argv[:3], "--tsne", "false", "--features", str(tmp_path / "f.parquet")]) == 0
    import pyarrow.parquet as pq

    arrays, table = np.load(tmp_path / "f.npz"), pq.read_table(tmp_path / "f.parquet")
    assert set(arrays) - set(table.column_names) == {f"{p} block {n}" for p in ("cls", "mean") for n in (1, 2)}
    assert arrays["mean"].shape == (96, 48) and len(table) == 96
    np.testing.assert_array_equal(np.array(table["mean"].to_pylist(), dtype=np.float32), arrays["mean"])
    assert table["file_name"].to_pylist() == arrays["file_name"].tolist()
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
    assert all(label in name for name, label in zip(table["file_name"].to_pylist(), table["label"].to_pylist()))
    assert run_cli(*argv[:3], "--features", "f.csv", status=2).stderr.count("ends in .parquet or .npz") == 1


def test_the_best_of_layers_is_chosen_without_the_judge():
    from hf_mae.evaluation.probes import probe_best_layer

    parts = {part: blobs(150, 0.3, seed) for seed, part in enumerate(("train", "sweep", "judge"))}
    noise = {part: np.random.default_rng(7).normal(size=(150, 16)).astype(np.float32) for part in parts}
    labels = {part: own[1] for part, own in parts.items()}
    features = {part: {"noise": noise[part], "good": own[0]} for part, own in parts.items()}
    assert probe_best_layer(features, labels, ["a", "b", "c"])["features"] == "good"
    features["judge"] = {"noise": parts["judge"][0], "good": noise["judge"]}  # which no choice looks at
    found = probe_best_layer(features, labels, ["a", "b", "c"])
    assert found["features"] == "good" and found["accuracy"] < 0.6

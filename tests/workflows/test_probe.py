"""Probes of frozen features: accuracy, selection without the test images, caching and output files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.cli_process import run_cli
from support.messages import shows
from support.models import tiny_pretrainer

from hf_mae.cli.main import main
from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.inference import features as features_module
from hf_mae.inference.attentive_probe import LEARNING_RATES, WEIGHT_DECAYS, attentive_probe
from hf_mae.inference.probes import fit_linear_probe, probe_features
from hf_mae.inference.tta import make_view
from hf_mae.settings.messages import SettingsMessage

ROLES = ("train", "val", "test")


def make_clusters(images: int, spread: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(0, 1, (3, 16))
    labels = np.arange(images) % 3
    return (centres[labels] + rng.normal(0, spread, (images, 16))).astype(np.float32), labels


def test_separable_features_are_classified_and_noise_is_not():
    for spread, low, high in ((0.3, 0.97, 1.0), (50.0, 0.1, 0.6)):
        data = {role: make_clusters(150, spread, seed) for seed, role in enumerate(ROLES)}
        features, labels = ({role: arrays[i] for role, arrays in data.items()} for i in (0, 1))
        scores = probe_features(features, labels, ["a", "b", "c"])
        for kind in ("linear", "knn"):
            assert low <= scores[kind]["accuracy"] <= high, (spread, kind)


def test_the_linear_probe_is_as_accurate_as_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    train, labels = make_clusters(300, 1.2)
    test, test_labels = make_clusters(300, 1.2, seed=1)
    predict_logits, settings = fit_linear_probe(train, labels, 3)
    accuracies = (predict_logits(test).argmax(-1) == test_labels).mean(-1)
    scaler = StandardScaler().fit(train)
    baseline = LogisticRegression(max_iter=1000).fit(scaler.transform(train), labels)
    assert len(accuracies) == len(settings) == 24
    assert accuracies.max() >= baseline.score(scaler.transform(test), test_labels) - 0.01


def test_the_linear_probe_does_not_depend_on_the_scale_of_the_features():
    train, labels = make_clusters(150, 0.8)
    one, two = (fit_linear_probe(train * scale + shift, labels, 3)[0] for scale, shift in ((1, 0), (100, 7)))
    np.testing.assert_allclose(one(train), two(train * 100 + 7), atol=1e-2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mae")
    tiny_pretrainer().save_pretrained(folder)
    return folder


@pytest.mark.run
def test_probe_command_and_cache(checkpoint, toy, real_figures, tmp_path, capsys, monkeypatch):
    argv = ["probe", "--model_name_or_path", str(checkpoint), "--data_dir", str(toy / "labelled")]
    assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "train: 60 images (train); val: 18 images (validation); test: 18 images (test)" in printed
    results = json.loads((tmp_path / "out" / "probe.json").read_text())["probe"]
    for pooling in ("cls", "mean"):
        for kind in ("linear", "knn"):
            row = next(line for line in printed.splitlines() if line.split()[:2] == [pooling, kind])
            assert float(row.split()[2 + 3]) == pytest.approx(100 * results[pooling][kind]["accuracy"], abs=0.01)
    assert (tmp_path / "out" / "figures" / "tsne.png").stat().st_size > 5000
    monkeypatch.setattr(features_module, "extract_pooled_features", None)  # the cached features are used
    assert main([*argv, "--tsne", "false", "--umap", "true", "--output_dir", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out == printed
    figures = tmp_path / "again" / "figures"
    assert (figures / "umap.png").stat().st_size > 5000 and not (figures / "tsne.png").exists()


def test_without_a_test_split_training_images_are_held_out_for_selection(checkpoint, toy):
    train = toy / "labelled" / "train"
    argv = ["probe", "--model_name_or_path", checkpoint, "--data_dir", train, "--val_fraction", 0.25]
    done = run_cli(*argv)
    assert "train: 36 images (train); val: 9 images (selection); test: 15 images (validation)" in " ".join(
        done.stdout.split()
    )
    done = run_cli(*argv[:-2], status=1)
    assert shows(done.stderr, EvaluationMessage.PROBE_WITHOUT_TEST_SPLIT)


def test_a_pth_file_and_its_converted_folder_give_equal_results(tiny_pth, toy, tmp_path):
    run_cli("convert", tiny_pth, tmp_path / "converted")
    outputs = []
    for model in (tiny_pth, tmp_path / "converted"):
        argv = ["--model_name_or_path", model, "--data_dir", toy / "labelled", "--output_dir", tmp_path / "out"]
        run_cli("probe", *argv, "--num_attention_heads", 3)
        outputs.append(json.loads((tmp_path / "out" / "probe.json").read_text())["probe"]["mean"])
    assert outputs[0] == outputs[1]


class Pixels(torch.nn.Module):
    """A backbone whose tokens are linear projections of the pixels."""

    config = SimpleNamespace(hidden_size=8)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self):
        super().__init__()
        self.mix = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))

    def forward(self, pixel_values):
        return SimpleNamespace(last_hidden_state=pixel_values.flatten(2).mT @ self.mix)


@pytest.mark.run
def test_the_attentive_probe_uses_information_that_the_mean_loses():
    """One marked pixel at a random position determines the class; the noise of the others dominates the mean."""

    def make_images(count, seed):
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn(count, 3, 16, generator=generator)
        labels, positions = torch.arange(count) % 2, torch.randint(16, (count,), generator=generator)
        pixels[:, 2] = 0
        pixels[torch.arange(count), 2, positions] = 4.0
        pixels[torch.arange(count), 0, positions] = 2.0 * labels - 1
        items = [{"pixel_values": p.view(3, 4, 4), "labels": int(y)} for p, y in zip(pixels, labels)]
        return items, labels.numpy(), (pixels.mT @ Pixels().mix).mean(1).numpy()

    counts = {"train": 600, "val": 150, "test": 300}
    data = {role: make_images(count, seed) for seed, (role, count) in enumerate(counts.items())}
    images, labels, means = ({role: arrays[i] for role, arrays in data.items()} for i in (0, 1, 2))
    state = torch.random.get_rng_state()
    result = attentive_probe(Pixels(), images, labels, ["a", "b"], epochs=25)
    assert probe_features(means, labels, ["a", "b"])["linear"]["accuracy"] < 0.75 < 0.9 < result["accuracy"]
    assert torch.equal(state, torch.random.get_rng_state())
    assert result["learning_rate"] in LEARNING_RATES and result["weight_decay"] in WEIGHT_DECAYS


def test_the_attentive_probe_is_reproducible():
    items = [{"pixel_values": torch.full((3, 4, 4), float(n % 2)), "labels": n % 2} for n in range(12)]
    images, labels = dict.fromkeys(ROLES, items), dict.fromkeys(ROLES, np.arange(12) % 2)
    one, two = (attentive_probe(Pixels(), images, labels, ["a", "b"], epochs=3) for _ in range(2))
    assert one == two


class PositionedPixels(Pixels):
    """Tokens with position embeddings, as in a ViT."""

    positions = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))

    def forward(self, pixel_values):
        return SimpleNamespace(last_hidden_state=super().forward(pixel_values).last_hidden_state + 2 * self.positions)


def test_the_attentive_probe_is_invariant_to_rotation():
    pixels = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = dict.fromkeys(ROLES, np.arange(40) % 3)

    def scores(view):
        items = [{"pixel_values": make_view(image, view), "labels": n % 3} for n, image in enumerate(pixels)]
        images = {"train": upright, "val": upright, "test": items}
        return attentive_probe(PositionedPixels(), images, labels, ["a", "b", "c"], epochs=3)

    upright = [{"pixel_values": image, "labels": n % 3} for n, image in enumerate(pixels)]
    assert scores(0) == scores(5) == scores(2)
    assert 0.3 < scores(0)["accuracy"] < 1.0  # sensitive to differences


@pytest.mark.run
def test_features_are_written(checkpoint, toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hf_mae.inference.attentive_probe.EPOCHS", 2)
    argv = ["probe", str(checkpoint), str(toy / "labelled"), "--tsne", "false", "--attentive"]
    assert main([*argv, "--features", str(tmp_path / "f.npz"), "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert ["tokens", "attentive"] in [row.split()[:2] for row in printed.splitlines()]
    assert {"cls", "mean", "tokens"} == set(json.loads((tmp_path / "out" / "probe.json").read_text())["probe"])
    assert main([*argv[:3], "--tsne", "false", "--features", str(tmp_path / "f.parquet")]) == 0
    import pyarrow.parquet as pq

    arrays, table = np.load(tmp_path / "f.npz"), pq.read_table(tmp_path / "f.parquet")
    assert set(arrays) == set(table.column_names) >= {"cls", "mean"}
    assert arrays["mean"].shape == (96, 48) and len(table) == 96
    np.testing.assert_array_equal(np.array(table["mean"].to_pylist(), dtype=np.float32), arrays["mean"])
    assert table["file_name"].to_pylist() == arrays["file_name"].tolist()
    assert set(table["split"].to_pylist()) == {"train", "validation", "test"}
    assert all(label in name for name, label in zip(table["file_name"].to_pylist(), table["label"].to_pylist()))
    assert shows(run_cli(*argv[:3], "--features", "f.csv", status=2).stderr, SettingsMessage.FEATURES_NOT_A_TABLE)

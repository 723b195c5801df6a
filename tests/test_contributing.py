"""The walkthroughs of CONTRIBUTING.md: their code is added to a copy of the package, as a contributor would do.

A code block begins with the path of the file to which it is appended. Each addition is then found in help, training,
report and docs.
"""

import csv
import json
import os
import re
import shutil
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image
from support.cli_process import run_cli, run_python
from support.paths import ROOT

BLOCK = re.compile(r"^( *)```python\n *# (\S+\.py)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def read_walkthroughs():
    """Returns the path and the code of each block."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return [(path, textwrap.dedent(code)) for _, path, code in BLOCK.findall(text)]


class Contribution:
    """A copy of the package with the additions of all walkthroughs."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "tests")])}

    def run(self, code):
        """Runs a Python program with the copy and returns what it prints on stdout."""
        done = run_python(code, self.folder, self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def hf_mae(self, *argv, status=0):
        """Runs a command of the copy and returns what it prints on stdout and stderr."""
        done = run_cli(*argv, status=status, env=self.env, cwd=self.folder)
        return done.stdout, done.stderr


@pytest.fixture(scope="module")
def contribution(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    for name in ("hf_mae", "conversion", "accelerate_configs", "scripts", "docs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conversion", "accelerate_configs"):  # as in the installed package
        if not (folder / "hf_mae" / name).exists():
            (folder / "hf_mae" / name).symlink_to(folder / name)
    for path, code in read_walkthroughs():
        file = folder / path
        with open(file, "a", encoding="utf-8") as out:
            out.write(f"\n\n{code}" if file.stat().st_size else code)
    return Contribution(folder)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes of grey levels, 6 training and 3 validation images each; one validation image has a wrong label."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("validation", 3)):
        for label, level in (("dark", 60), ("light", 190)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                wrong = (split, label, number) == ("validation", "dark", 0)
                pixels = np.clip(generator.normal(190 if wrong else level, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{split}-{number}.png")
    return folder


@pytest.fixture(scope="module")
def medmnist(images, tmp_path_factory):
    """The same images in the format of MedMNIST; their classes are 0 (dark) and 1 (light)."""
    arrays = {}
    for part, split in (("train", "train"), ("val", "validation"), ("test", "validation")):
        files = sorted((images / split).glob("*/*.png"))
        # The images of the two evaluated splits must differ.
        arrays[f"{part}_images"] = np.stack([np.asarray(Image.open(file)) ^ (part == "test") for file in files])
        arrays[f"{part}_labels"] = np.array([[int(file.parent.name == "light")] for file in files])
    path = tmp_path_factory.mktemp("medmnist") / "grey.npz"
    np.savez(path, **arrays)
    return path


def in_one_line(text):
    return " ".join(text.split())


def test_there_is_code_for_each_walkthrough():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for section in re.split(r"^### ", text[text.index("## Walkthroughs") :], flags=re.MULTILINE)[1:]:
        assert BLOCK.search(section), section.splitlines()[0]


def test_help(contribution):
    commands = in_one_line(contribution.hf_mae("--help")[0])
    flags = in_one_line(contribution.hf_mae("finetune", "--help_all")[0])
    assert "count Count the images of each class" in commands
    assert "--min_images N" in contribution.hf_mae("count", "--help")[0]
    assert "poly: Poly-1 loss (Leng et al., 2022), without label smoothing" in flags and ",poly}" in flags
    assert "--poly_epsilon NUMBER Epsilon of the Poly-1 loss. (default: 1.0)" in flags
    assert re.search(r"Metric that selects the epoch: [^;]*g_mean", flags)
    assert "; a .npz file of MedMNIST" in flags
    assert "; toy ViT." in in_one_line(contribution.hf_mae("convert", "--help")[0])


def test_docs(contribution):
    contribution.run("import runpy; runpy.run_path('scripts/write_flag_reference.py', run_name='__main__')")
    page = (contribution.folder / "docs" / "reference.md").read_text(encoding="utf-8")
    assert "### hf-mae count" in page and "| `--min_images` | `10` |" in page
    assert "| `--poly_epsilon` | `1.0` | Epsilon of the Poly-1 loss. |" in page
    assert re.search(r"\| `--loss` .*poly: Poly-1 loss.* Choices: .*poly\.", page)
    assert re.search(r"\| `--metric_for_best_model` .*g_mean", page)
    assert re.search(r"\| `DATA` \(`--data_dir`\) .*; a \.npz file of MedMNIST\.", page)
    assert re.search(r"### hf-mae convert\n\n.*; toy ViT\.", page)


def test_bounds_of_a_hyper_parameter_are_checked(contribution, images):
    argv = ["finetune", "x.pth", images, "--loss", "poly", "--poly_epsilon", "-2"]
    _, error = contribution.hf_mae(*argv, status=2)
    assert "--poly_epsilon" in error and "> -1" in error


def test_command(contribution, images):
    assert "dark: 9 (rare)" in contribution.hf_mae("count", images, "--min_images", "10")[0]
    printed, _ = contribution.hf_mae("count", images, "--min_images", "1", "--json")
    assert json.loads(printed) == {"images": {"dark": 9, "light": 9}, "rare": []}
    code = f"import hf_mae; print('count' in hf_mae.__all__, hf_mae.count(data_dir={str(images)!r}).rare)"
    assert contribution.run(code) == "True ['dark', 'light']\n"


@pytest.fixture(scope="module")
def toy_checkpoint(tiny_pth, tmp_path_factory):
    """The tiny MAE in the layout of the walkthrough."""
    content = torch.load(tiny_pth, weights_only=False)
    names = {name: name.replace("patch_embed.proj", "stem").replace("blocks", "stages") for name in content["model"]}
    model = {toy: content["model"][name] for name, toy in names.items() if not name.startswith(("decoder", "mask"))}
    path = tmp_path_factory.mktemp("toy") / "toy.pth"
    torch.save(content | {"model": model}, path)
    return path


def test_source(contribution, medmnist, images):
    printed, expected = (contribution.hf_mae("prepare", source)[0] for source in (medmnist, images))
    assert re.search(r"^0 +6 +3 +3$", printed, re.MULTILINE) and re.search(r"^dark +6 +3$", expected, re.MULTILINE)
    pixels = printed.splitlines()[-1]
    assert pixels.startswith("mean ") and pixels == expected.splitlines()[-1]  # of the training images


def test_layout(contribution, toy_checkpoint, tmp_path):
    printed, _ = contribution.hf_mae("convert", toy_checkpoint, tmp_path / "out", "--to", "backbone", "--verify")
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["source"]["layout"] == "toy"


@pytest.fixture(scope="module")
def trained(contribution, medmnist, toy_checkpoint, tmp_path_factory):
    """The folder of a run with the source, layout, loss and metric of the walkthroughs, and what it logged."""
    folder = tmp_path_factory.mktemp("runs") / "poly"
    argv = ["finetune", toy_checkpoint, medmnist, "--output_dir", folder, "--loss", "poly", "--poly_epsilon", "2"]
    argv += ["--metric_for_best_model", "g_mean", "--num_train_epochs", "3", "--warmup_epochs", "0"]
    _, log = contribution.hf_mae(*argv, "--learning_rate", "3e-3", "--per_device_train_batch_size", "6")
    return folder, log


def test_training(trained):
    folder, log = trained
    assert re.search(r"epoch 1/3 .*macro F1 \d.*G-mean \d", log)
    card = in_one_line((folder / "README.md").read_text(encoding="utf-8"))
    assert "the epoch with the best G-mean on the validation split" in card and "name: G-mean" in card
    assert "loss: poly" in (folder / "recipe.yaml").read_text(encoding="utf-8")


def test_the_loss_is_the_formula_of_the_paper(contribution):
    code = """
import torch
from hf_mae.settings.losses import LOSSES
logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
p = logits.softmax(-1)[range(5), labels]
loss = LOSSES["poly"].function(logits, labels, None, poly_epsilon=2.0)
torch.testing.assert_close(loss, (-p.log() + 2 * (1 - p)).sum())
"""
    contribution.run(code)


def test_report(contribution, trained, tmp_path):
    folder, _ = trained
    contribution.hf_mae("report", folder, "--output_dir", tmp_path)
    with open(folder / "predictions_validation.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    recalls = [np.mean([row["prediction"] == label for row in rows if row["label"] == label]) for label in ("0", "1")]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert 0 < np.prod(recalls) < 1
    assert report["tables"][0]["rows"][0]["scores"]["g_mean"]["value"] == pytest.approx(100 * np.sqrt(np.prod(recalls)))
    (header, *_) = re.findall(r"^\| method .*", (tmp_path / "report.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert "| G-mean |" in in_one_line(header)
    study = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert "The loss was the Poly-1 loss [@leng2022poly] with an epsilon of 2" in study
    assert "geometric mean of the recalls [@kubat1997addressing]" in study
    references = (tmp_path / "study.bib").read_text(encoding="utf-8")
    assert "@inproceedings{leng2022poly," in references and "@inproceedings{kubat1997addressing," in references

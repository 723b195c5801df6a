"""Catalogue of public checkpoints: download, conversion, digests and licences."""

import hashlib
import json

import pytest
from huggingface_hub import ModelCard
from support.cli_process import run_cli
from support.file_server import run_file_server
from support.messages import raises, shows
from transformers import AutoModelForImageClassification

from hf_mae.cli.main import main
from hf_mae.files import downloads
from hf_mae.files.messages import FileMessage
from hf_mae.models import model_zoo
from hf_mae.models.messages import ModelMessage
from hf_mae.models.model_zoo import PublicCheckpoint, find_licence, load_checkpoint_catalogue, resolve_checkpoint
from hf_mae.settings.licences import LicenceOrigin


@pytest.fixture
def server(tiny_pth, monkeypatch):
    with run_file_server(tiny_pth.read_bytes(), monkeypatch) as server:
        yield server


@pytest.fixture
def entry(server, tiny_pth, tmp_path, monkeypatch):
    """A catalogue with one entry, and a separate cache."""
    checkpoint = PublicCheckpoint(
        name="tiny_mae",
        architecture="tiny",
        stage="pre-trained",
        mask_ratio="0.75",
        url="drive:1abc",
        file="checkpoint-399.pth",
        megabytes="2",
        md5_prefix=hashlib.md5(server.content).hexdigest()[:6],
        layout="{model, optimizer, epoch, scaler, args}",
        licence="CC BY-NC 4.0",
        mean_std="",
    )
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(model_zoo, "load_checkpoint_catalogue", lambda: {"tiny_mae": checkpoint})
    monkeypatch.setattr("hf_mae.settings.inputs._catalogue_names", lambda: ["tiny_mae"])
    return checkpoint


def test_a_checkpoint_is_downloaded_and_converted_once_and_its_licence_is_inherited(
    entry, server, toy, tmp_path, capsys
):
    argv = ["finetune", "--model_name_or_path", "tiny_mae", "--data_dir", toy / "labelled", "--output_dir"]
    argv += [tmp_path / "run", "--max_steps", 1, "--eval_strategy", "no", "--load_best_model_at_end", "false"]
    assert main([*map(str, argv), "--disable_tqdm", "true"]) == 0
    num_requests = len(server.requests)
    assert num_requests == 1 and not entry.download_path.exists()
    assert resolve_checkpoint("tiny_mae") == str(entry.converted_path) and len(server.requests) == num_requests
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.license == "cc-by-nc-4.0" and "Non-commercial use only" in card.text
    assert "from `tiny_mae`" in card.text
    AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["base"] == "tiny_mae"
    # A model that is fine-tuned from this run inherits it, too.
    assert find_licence(tmp_path / "run") == ("cc-by-nc-4.0", LicenceOrigin.MODEL_CARD)
    assert main(["convert", "tiny_mae", str(tmp_path / "converted")]) == 0
    assert "ViTMAEForPreTraining" in capsys.readouterr().out


def test_a_manually_downloaded_file_is_used(entry, server, monkeypatch):
    monkeypatch.setattr(downloads, "GOOGLE_DRIVE_URL", "http://127.0.0.1:9")
    with raises(FileMessage.DOWNLOAD_FAILED, file="checkpoint-399.pth") as caught:
        resolve_checkpoint("tiny_mae")
    hint = caught.value.attributes["hint"]
    assert str(entry.download_path) in hint and "drive.google.com/file/d/1abc" in hint
    entry.download_path.parent.mkdir(parents=True, exist_ok=True)
    entry.download_path.write_bytes(server.content)
    assert (resolve_checkpoint("tiny_mae"), server.requests) == (str(entry.converted_path), [])
    assert entry.download_path.read_bytes() == server.content  # not deleted


def test_a_file_with_another_digest_is_rejected(entry, server):
    server.content = server.content[:-1] + b"x"
    with raises(ModelMessage.CHECKPOINT_DIGEST_DIFFERS, file="checkpoint-399.pth", expected=entry.md5_prefix):
        resolve_checkpoint("tiny_mae")
    assert not entry.converted_path.exists()


def test_licences_of_other_checkpoints(tiny_pth, tmp_path):
    assert find_licence(tiny_pth)[0] is None
    named = tmp_path / "mae_pretrain_vit_base.pth"
    named.write_bytes(tiny_pth.read_bytes())
    assert find_licence(named) == ("cc-by-nc-4.0", LicenceOrigin.FILE_NAME)
    assert find_licence("some/hub-id")[0] is None  # offline


def test_the_catalogue_equals_the_published_table(shared_data):
    import csv

    published = list(csv.DictReader(open(shared_data.parent / "published" / "checkpoints.csv")))
    catalogue = load_checkpoint_catalogue()
    assert [row["name"] for row in published] == list(catalogue)
    for row in published:
        entry = catalogue[row["name"]]
        assert (entry.architecture, entry.stage, entry.layout) == (row["architecture"], row["stage"], row["layout"])
        assert row["where"].split()[-1] in entry.url and entry.licence == row["licence"].removesuffix(" as published")
        assert int(entry.megabytes) > 300


def test_checkpoints_command(capsys):
    done = run_cli("checkpoints")
    assert "ssl_endoscopy_vit_large " in done.stdout and "CC BY-NC 4.0" in done.stdout and "encoder only" in done.stdout
    assert main(["checkpoints", "show", "endovit"]) == 0
    assert "huggingface.co/egeozsoy/EndoViT" in capsys.readouterr().out
    assert main(["checkpoints", "show", "endovitt"]) == 2
    assert "did you mean endovit?" in capsys.readouterr().err
    assert main(["checkpoints", "fetch", "endovit"]) == 1  # HF_HUB_OFFLINE
    assert shows(capsys.readouterr().err, FileMessage.DOWNLOAD_FAILED, file="endovit.pth")

"""`pretrain` end to end: outputs, resuming, masks, unreadable images."""

import csv
import json
import time
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from support.cli_process import run_cli
from support.messages import shows
from support.models import TensorItems, tiny_pretrainer
from support.training import pretrain_flags
from transformers import ViTMAEForPreTraining

from hf_mae import MaePretrainer, PretrainingArguments
from hf_mae.cli.main import main
from hf_mae.data.images.messages import ImageMessage
from hf_mae.data.sources.unlabelled import load_unlabelled
from hf_mae.models.messages import ModelMessage
from hf_mae.settings.messages import SettingsMessage


def test_pretraining_from_scratch_and_finetuning(toy, tmp_path):
    argv = pretrain_flags(toy, tmp_path / "pre", num_train_epochs=3, mask_ratio=0.5, logging_steps=1)
    assert main(["pretrain", *argv, "--norm_pix_loss"]) == 0
    model, info = ViTMAEForPreTraining.from_pretrained(tmp_path / "pre", output_loading_info=True)
    assert not any(info.values()) and model.config.mask_ratio == 0.5 and model.config.norm_pix_loss
    log = json.loads((tmp_path / "pre" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 9 and losses[-1] < losses[0]
    data = ["--data_dir", str(toy / "labelled"), "--output_dir", str(tmp_path / "ft"), "--num_train_epochs", "1"]
    assert main(["finetune", "--model_name_or_path", str(tmp_path / "pre"), *data]) == 0
    run_cli("export", tmp_path / "pre", tmp_path / "mae.pth")
    run_cli("convert", tmp_path / "mae.pth", tmp_path / "back", "--verify")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("pre", "back"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_resume_is_bit_exact_including_masks(toy, tmp_path):
    for name in ("uninterrupted", "resumed"):
        argv = pretrain_flags(
            toy, tmp_path / name, num_train_epochs=4, save_strategy="steps", save_steps=4, save_total_limit=9
        )
        assert main(["pretrain", *argv]) == 0
    import shutil

    for later in ("checkpoint-8", "checkpoint-12"):
        shutil.rmtree(tmp_path / "resumed" / later)
    assert main(["pretrain", *argv, "--resume_from_checkpoint", "last"]) == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("uninterrupted", "resumed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_caching_small_images_does_not_change_the_result(toy, tmp_path):
    for name, more in (("plain", {}), ("cached", {"cache_shortest_edge": 64})):
        assert main(["pretrain", *pretrain_flags(toy, tmp_path / name, num_train_epochs=1, **more)]) == 0
    plain, cached = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "cached"))
    assert all(torch.equal(plain[name], cached[name]) for name in plain)


def test_position_embeddings_are_frozen_and_tokens_are_trained(tmp_path):
    model = tiny_pretrainer()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    args = PretrainingArguments(
        output_dir=tmp_path,
        max_steps=3,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        warmup_epochs=0,
        use_cpu=True,
    )
    MaePretrainer(model=model, args=args, train_dataset=TensorItems(pixel_values=torch.randn(16, 3, 32, 32))).train()
    for name, parameter in model.named_parameters():
        is_frozen = name.endswith(("position_embeddings", "decoder_pos_embed"))
        assert torch.equal(parameter, before[name]) == is_frozen or name.endswith("k_proj.bias"), name


def test_masks_depend_on_the_seed(tmp_path):
    data = TensorItems(pixel_values=torch.randn(8, 3, 32, 32))

    def noise(seed):
        args = PretrainingArguments(output_dir=tmp_path, per_device_train_batch_size=8, seed=seed, use_cpu=True)
        trainer = MaePretrainer(model=tiny_pretrainer(), args=args, train_dataset=data)
        return trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, args.device)[0][0]["noise"]

    assert torch.equal(noise(0), noise(0)) and not torch.equal(noise(0), noise(1))


def test_masks_depend_on_the_process(tmp_path):
    args = PretrainingArguments(output_dir=tmp_path, per_device_train_batch_size=8, use_cpu=True)
    data = TensorItems(pixel_values=torch.randn(8, 3, 32, 32))
    trainer = MaePretrainer(model=tiny_pretrainer(), args=args, train_dataset=data)
    batch = {"pixel_values": data.columns["pixel_values"]}
    noise = []
    for process in (0, 1, 0):
        trainer.args.distributed_state = SimpleNamespace(process_index=process)
        noise.append(trainer._add_noise(batch, 0)["noise"])
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize(
    "change, message, attributes, status",
    [
        ({"data_dir": "/absent"}, SettingsMessage.PATH_NOT_FOUND, {"path": "/absent"}, 1),
        ({"mask_ratio": 1.5}, SettingsMessage.OUT_OF_BOUNDS, {"value": 1.5}, 2),
        ({"size": "vit_giant", "hidden_size": 48}, ModelMessage.UNKNOWN_SIZE, {"size": "vit_giant"}, 1),
    ],
)
def test_invalid_options_are_rejected(toy, tmp_path, capsys, change, message, attributes, status):
    assert main(["pretrain", *pretrain_flags(toy, tmp_path / "out", **change)]) == status
    assert shows(capsys.readouterr().err, message, **attributes)


def test_an_unreadable_image_is_named(toy, tmp_path, capsys):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "ok.jpg").write_bytes((toy / "unlabelled" / "frame_0000.jpg").read_bytes())
    (folder / "bad.jpg").write_bytes(b"broken")
    argv = pretrain_flags(toy, tmp_path / "out", data_dir=folder, num_train_epochs=1)
    assert main(["pretrain", *argv]) == 1
    assert "bad.jpg" in capsys.readouterr().err
    assert main(["pretrain", *argv, "--on_bad_image", "skip"]) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_unreadable_in_training_is_named_or_replaced(toy, tmp_path, workers):
    """Only decoding detects the damage."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        name = f"frame_000{number}.jpg"
        (folder / name).write_bytes((toy / "unlabelled" / name).read_bytes())
    Image.open(folder / "frame_0001.jpg").save(folder / "bad.png")
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:900])
    argv = pretrain_flags(toy, tmp_path / "out", data_dir=folder, num_train_epochs=1, per_device_train_batch_size=4)
    argv += ["--dataloader_num_workers", str(workers), "--reconstruction_steps", "0"]
    done = run_cli("pretrain", *argv, status=1)
    assert shows(done.stderr, ImageMessage.UNREADABLE_IMAGE, file="bad.png")
    assert "hf-mae pretrain: bad.png" in done.stderr
    argv[argv.index("--output_dir") + 1] = tmp_path / "skipped"
    done = run_cli("pretrain", *argv, "--on_bad_image", "skip")
    assert shows(done.stderr, ImageMessage.IMAGE_REPLACED, file="bad.png")
    assert (tmp_path / "skipped" / "model.safetensors").is_file()


def test_a_large_folder_is_listed_quickly_and_without_copies(toy, tmp_path):
    """20,000 files in less than 20 s (the design limit is 100,000 files in 100 s)."""
    frame = (toy / "unlabelled" / "frame_0000.jpg").read_bytes()
    for number in range(20_000):
        if number % 500 == 0:
            folder = tmp_path / "frames" / f"video_{number // 500:03d}"
            folder.mkdir(parents=True)
        (folder / f"{number:06d}.jpg").write_bytes(frame)
    before = time.process_time()
    images = load_unlabelled(str(tmp_path / "frames"), "error", decode=False)
    assert time.process_time() - before < 20 and len(images) == 20_000
    assert images[19_999]["file_name"] == "video_039/019999.jpg"
    assert images.data.nbytes < 20_000 * 400  # paths, not pixels


def test_pretraining_writes_its_image_list_and_a_card(toy, tiny_pth, tmp_path):
    argv = pretrain_flags(toy, tmp_path / "out", max_steps=1)
    assert main(["pretrain", *argv]) == 0
    rows = list(csv.DictReader(open(tmp_path / "out" / "pretraining_images.csv")))
    files = sorted(path.name for path in (toy / "unlabelled").iterdir())
    assert [row["file_name"] for row in rows] == files and all(len(row["phash"]) == 16 for row in rows)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "masked-autoencoder" in card.data.tags and f"on {len(files)} unlabelled images" in card.text

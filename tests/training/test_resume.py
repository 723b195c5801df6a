"""Finding the newest complete checkpoint, and checks before resuming from it."""

import copy
import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file
from support.messages import logged, raises
from support.models import TensorItems

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier
from hf_mae.compat.torch import load_weights_only
from hf_mae.conversion.safety import check_pickle_size
from hf_mae.training.messages import TrainingMessage
from hf_mae.training.resume import (
    LAUNCH_FILE,
    check_training_length,
    find_last_checkpoint,
    require_optimizer_state,
    validate_checkpoint,
)

TRUNCATED = TrainingMessage.CHECKPOINT_FILE_TRUNCATED


def make_checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"a": torch.zeros(100)}, path / "model.safetensors")
    torch.save({"state": torch.zeros(100)}, path / "optimizer.pt")
    (path / LAUNCH_FILE).write_text(json.dumps({"engine": "NO", "processes": 1, "effective_batch": 8}))
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage, message, attributes",
    [
        (lambda path: (path / "trainer_state.json").unlink(), TrainingMessage.CHECKPOINT_INCOMPLETE, {}),
        (
            lambda path: (path / "trainer_state.json").write_bytes(b""),
            TrainingMessage.CHECKPOINT_STATE_UNREADABLE,
            {},
        ),
        (
            lambda path: (path / "trainer_state.json").write_text('{"global_step": 3}'),
            TrainingMessage.CHECKPOINT_STATE_OF_OTHER_STEP,
            {"step": 3},
        ),
        (lambda path: truncate(path / LAUNCH_FILE), TrainingMessage.CHECKPOINT_STATE_UNREADABLE, {}),
        (lambda path: truncate(path / "model.safetensors"), TRUNCATED, {"file": "model.safetensors"}),
        (lambda path: (path / "model.safetensors").write_bytes(b""), TRUNCATED, {"file": "model.safetensors"}),
        (lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64), TRUNCATED, {}),
        (lambda path: truncate(path / "optimizer.pt"), TRUNCATED, {"file": "optimizer.pt"}),
    ],
)
def test_damaged_checkpoints_are_skipped(tmp_path, caplog, damage, message, attributes):
    complete, newest = make_checkpoint(tmp_path, 4), make_checkpoint(tmp_path, 12)
    assert find_last_checkpoint(tmp_path) == newest
    validate_checkpoint(complete)
    damage(newest)
    assert find_last_checkpoint(tmp_path) == complete
    assert logged(caplog.records, TrainingMessage.CHECKPOINT_SKIPPED)
    with raises(message, path=newest, **attributes):
        validate_checkpoint(newest)


def test_a_checkpoint_without_optimizer_state_is_rejected(tmp_path):
    with raises(TrainingMessage.OPTIMIZER_STATE_MISSING, path=tmp_path):
        require_optimizer_state(tmp_path)
    for name in ("optimizer.pt", "optimizer.bin", "global_step5", "pytorch_model_fsdp_0", "optimizer_0"):
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("x")
        require_optimizer_state(folder)


@pytest.mark.parametrize(
    "state, epochs, max_steps, message, attributes",
    [
        (
            '{"epoch": 2.0, "num_train_epochs": 2, "global_step": 8}',
            1.0,
            -1,
            TrainingMessage.CHECKPOINT_BEYOND_EPOCHS,
            {"saved": 2.0, "done": 2.0},
        ),
        (
            '{"epoch": 1.0, "num_train_epochs": 5, "global_step": 8}',
            3.0,
            -1,
            TrainingMessage.CHECKPOINT_BEYOND_EPOCHS,
            {"saved": 5.0},
        ),
        (
            '{"epoch": 1.0, "num_train_epochs": 5, "global_step": 8}',
            50.0,
            4,
            TrainingMessage.CHECKPOINT_BEYOND_MAX_STEPS,
            {"step": 8, "max_steps": 4},
        ),
    ],
)
def test_a_run_cannot_be_resumed_with_an_earlier_end(tmp_path, caplog, state, epochs, max_steps, message, attributes):
    (tmp_path / "trainer_state.json").write_text(state)
    with raises(message, **attributes):
        check_training_length(tmp_path, epochs, max_steps)
    check_training_length(tmp_path, 9.0, -1)
    assert logged(caplog.records, TrainingMessage.SCHEDULE_EXTENDED, epochs=9.0)


# Resuming with another number of images per update

IMAGES, EPOCHS = 20, 3


class Recorder(MaeFinetuner):
    """Trains without a forward pass; records the images of each epoch and the learning rate of each update."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        if self.accelerator.sync_gradients:
            self.rates.append(self.optimizer.param_groups[-1]["lr"])
        self.trained.setdefault(self.train_dataset.epoch, []).extend(inputs["index"].tolist())
        return torch.zeros(())


class Images(TensorItems):
    """Items with their index; the trainer sets their epoch."""

    def __init__(self):
        super().__init__(
            pixel_values=torch.zeros(IMAGES, 3, 32, 32), labels=torch.arange(IMAGES) % 3, index=torch.arange(IMAGES)
        )

    def set_epoch(self, epoch):
        self.epoch = epoch


@pytest.fixture(scope="module")
def train(tiny_pth):
    """Trains with a batch and accumulation steps; returns the trainer."""
    model = build_classifier(str(tiny_pth), num_labels=3, num_attention_heads=3)

    def run(folder, batch, accumulation=1, checkpoint=None, **options):
        settings = {"save_strategy": "no", "num_train_epochs": EPOCHS, "warmup_epochs": 0.5, "freeze_backbone": True}
        settings |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        settings |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "output_dir": str(folder)}
        args = FinetuningArguments(**settings | options)
        trainer = Recorder(model=copy.deepcopy(model), args=args, train_dataset=Images())
        trainer.rates, trainer.trained = [], {}
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trainer

    return run


@pytest.fixture(scope="module")
def original(train, tmp_path_factory):
    """A run of 5 updates of 4 images per epoch, with a checkpoint after each."""
    return train(tmp_path_factory.mktemp("original"), 4, save_strategy="steps", save_steps=1)


def images_until(trained, images):
    """The images of each epoch up to a number of images."""
    return {epoch: trained[epoch][: max(0, images - epoch * IMAGES)] for epoch in trained}


@pytest.mark.parametrize("batch, accumulation", [(8, 1), (2, 1), (4, 2), (3, 1), (20, 1), (2, 3)])
def test_a_run_resumes_at_the_same_image_with_any_batch(original, train, tmp_path, batch, accumulation):
    fresh = train(tmp_path / "fresh", batch, accumulation)
    for update in (5, 7, 14):
        check_resumed(original, fresh, train, tmp_path / str(update), update, batch, accumulation)


def check_resumed(original, fresh, train, tmp_path, update, batch, accumulation):
    checkpoint = original.args.folder / f"checkpoint-{update}"
    resumed = train(tmp_path, batch, accumulation, checkpoint)
    before = images_until(original.trained, 4 * update)
    assert {e: before[e] + resumed.trained.get(e, []) for e in range(EPOCHS)} == original.trained
    assert resumed.rates == pytest.approx(fresh.rates[-len(resumed.rates) :], rel=1e-12)
    assert resumed.state.epoch == EPOCHS and resumed.state.global_step == update + len(resumed.rates)
    assert resumed.state.max_steps == resumed.state.global_step


def test_a_run_resumes_after_every_change_of_its_batch(original, train, tmp_path):
    """4, 8 and again 4 images per update, within one epoch."""
    first = original.args.folder / "checkpoint-6"  # 4 images of the second epoch
    larger = train(tmp_path / "larger", 8, checkpoint=first, save_strategy="steps", save_steps=1)
    second = tmp_path / "larger" / "checkpoint-7"  # 12 images
    again = train(tmp_path / "again", 4, checkpoint=second)
    before = images_until(original.trained, 24)
    before = {e: before[e] + larger.trained.get(e, [])[: 8 if e == 1 else 0] for e in range(EPOCHS)}
    assert {e: before[e] + again.trained.get(e, []) for e in range(EPOCHS)} == original.trained
    assert again.rates == original.rates[8:]
    epochs = [json.loads((path / "trainer_state.json").read_text())["epoch"] for path in (first, second)]
    assert epochs == [1.2, pytest.approx(1.6)]


def test_max_steps_counts_updates_of_any_batch(original, train, tmp_path):
    checkpoint = original.args.folder / "checkpoint-7"
    for batch in (1, 8):
        resumed = train(tmp_path / str(batch), batch, checkpoint=checkpoint, max_steps=12, num_train_epochs=3)
        assert resumed.state.global_step == 12 and len(resumed.rates) == 5
        assert resumed.trained[1][0] == original.trained[1][8]


def test_skipped_data_and_other_rates_apply_from_the_checkpoint_on(original, train, tmp_path):
    checkpoint = original.args.folder / "checkpoint-7"
    resumed = train(tmp_path / "skip", 8, checkpoint=checkpoint, ignore_data_skip=True)
    assert sorted(resumed.trained[1]) == list(range(IMAGES))
    rates = train(tmp_path / "rate", 4, checkpoint=checkpoint, learning_rate=0.5, min_learning_rate=0.0).rates
    fresh = train(tmp_path / "fresh", 4, learning_rate=0.5, min_learning_rate=0.0).rates
    assert rates == pytest.approx(fresh[7:], rel=1e-12)


def test_a_dataset_of_another_length_is_resumed_between_epochs_only(original, train, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "IMAGES", 10)
    with raises(TrainingMessage.DATASET_LENGTH_CHANGED, saved=20, found=10):
        train(tmp_path, 4, checkpoint=original.args.folder / "checkpoint-7")
    resumed = train(tmp_path, 4, checkpoint=original.args.folder / "checkpoint-5")
    assert [len(images) for images in resumed.trained.values()] == [10, 10]


# Checkpoints from others


class Gadget:
    """Unpickling it writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


@pytest.fixture
def copied(original, tmp_path):
    """A copy of the checkpoint after 6 of 15 updates."""
    return shutil.copytree(original.args.folder / "checkpoint-6", tmp_path / "run" / "checkpoint-6")


@pytest.mark.parametrize("protocol", [None, 0, 2, 4])
@pytest.mark.parametrize(
    "name",
    [
        *("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "training_args.bin", "average.pt"),
        *("optimizer.bin", "rng_state_0.pth", "custom_checkpoint_0.pkl", "optimizer_0/.metadata"),
        "global_step6/mp_rank_00_model_states.pt",
    ],
)
def test_no_pickle_of_a_checkpoint_runs_code(train, copied, tmp_path, name, protocol):
    """`protocol`: of a plain pickle; None: a file of torch."""
    marker, path = tmp_path / "marker", copied / name
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        torch.save({"state": Gadget(marker)}, file) if protocol is None else pickle.dump(Gadget(marker), file, protocol)
    with raises(TrainingMessage.CHECKPOINT_IMPORTS, path=copied, file=name):
        train(tmp_path / "resumed", 4, checkpoint=copied)
    assert not marker.exists()
    with raises(TrainingMessage.CHECKPOINT_IMPORTS):  # an older checkpoint is not used silently
        find_last_checkpoint(copied.parent)


def test_torch_builds_plain_values_only(tmp_path):
    """Also for callers that ask for more: DeepSpeed and torch.distributed.checkpoint."""
    torch.save(Gadget(tmp_path / "marker"), tmp_path / "a.pt")
    with load_weights_only([]), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt", weights_only=False)
    assert not (tmp_path / "marker").exists()


def test_names_of_a_pickle_are_found_however_they_are_written(tmp_path):
    for text in (b"cos\nsystem\n.", b"(S'x'\nios\nsystem\n.", b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93."):
        assert check_pickle_size(text, tmp_path) == {"os.system"}
    # A name from the memo, and one that is computed.
    assert check_pickle_size(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93.", tmp_path) == {"os.system"}
    assert check_pickle_size(b"\x80\x04)\x8c\x01a\x93.", tmp_path) == {"?.a"}


@pytest.mark.parametrize(
    "file, changes, message",
    [
        ("trainer_state.json", {"global_step": 99}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"global_step": -6}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"global_step": "6"}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"global_step": None}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"epoch": float("nan")}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"epoch": 7.5}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"epoch": [1]}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"max_steps": 10**30}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("trainer_state.json", {"unknown": 1}, TrainingMessage.CHECKPOINT_STATE_UNREADABLE),
        ("trainer_state.json", [], TrainingMessage.CHECKPOINT_STATE_UNREADABLE),
        ("trainer_state.json", "[" * 100_000, TrainingMessage.CHECKPOINT_STATE_UNREADABLE),
        ("launch.json", {"images_seen": -1}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("launch.json", {"processes": 0}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("launch.json", {"seconds": float("inf")}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("launch.json", {"images_per_epoch": 19}, TrainingMessage.DATASET_LENGTH_CHANGED),
        ("launch.json", {"other": 19}, TrainingMessage.CHECKPOINT_STATE_UNREADABLE),
        ("launch.json", "[" * 100_000, TrainingMessage.CHECKPOINT_STATE_UNREADABLE),
        ("optimizer.pt", {"param_groups": []}, TrainingMessage.CHECKPOINT_CANNOT_BE_LOADED),
        (
            "optimizer.pt",
            {"state": {0: {"step": torch.tensor(6.0), "exp_avg": torch.zeros(9, 9)}}},
            TrainingMessage.OPTIMIZER_STATE_SHAPE,
        ),
        ("optimizer.pt", {"state": 3}, TrainingMessage.CHECKPOINT_CANNOT_BE_LOADED),
        ("optimizer.pt", {"weight_decay": float("nan")}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("optimizer.pt", {"lr": -1.0}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("optimizer.pt", {"betas": (0.9, "x")}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("scheduler.pt", {"last_epoch": -3}, TrainingMessage.CHECKPOINT_VALUE_INVALID),
        ("rng_state.pth", {"cpu": torch.zeros(3)}, TrainingMessage.CHECKPOINT_CANNOT_BE_LOADED),
        ("rng_state.pth", {"python": 5}, TrainingMessage.CHECKPOINT_CANNOT_BE_LOADED),
    ],
)
def test_a_contradiction_of_a_checkpoint_is_one_error(train, copied, tmp_path, file, changes, message):
    path = copied / file
    if path.suffix == ".json":
        saved = json.loads(path.read_text())
        changed = saved | changes if isinstance(changes, dict) else changes
        path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    else:
        saved = torch.load(path, weights_only=False)
        if file == "optimizer.pt" and not changes.keys() <= saved.keys():
            saved["param_groups"][0] |= changes
        else:
            saved |= changes
        torch.save(saved, path)
    with raises(message, path=copied):
        train(tmp_path / "resumed", 4, checkpoint=copied)


def test_files_that_are_not_regular_or_too_large_are_rejected(copied):
    (copied / "big.json").touch()
    os.truncate(copied / "big.json", 3_000_000_000)
    with raises(TrainingMessage.CHECKPOINT_FILE_TOO_LARGE, file="big.json"):
        validate_checkpoint(copied)
    (copied / "big.json").unlink()
    (copied / "scaler.pt").symlink_to("/dev/zero")
    with raises(TrainingMessage.CHECKPOINT_FILE_NOT_REGULAR, file="scaler.pt"):
        validate_checkpoint(copied)

"""Prediction of large inputs: videos, archives, resumption and sharding."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from PIL import Image
from support.cli_process import run_cli
from support.distributed_runs import build_launch_command, launch_environment
from support.messages import shows
from support.paths import ROOT

from hf_mae.data.images.videos import estimate_num_frames, iter_frames
from hf_mae.data.sources.predict_inputs import Shard, estimate_total, find_input_paths, iter_inputs, iter_pixel_values
from hf_mae.files.messages import FileMessage
from hf_mae.settings.messages import SettingsMessage


@pytest.fixture
def model(finetuned):
    return finetuned()


def make_video(path, seconds=3, rate=25):
    """Writes a video whose grey level increases every second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (64, 48))
    for number in range(seconds * rate):
        writer.write(np.full((48, 64, 3), 50 + 50 * (number // rate), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("fps, times", [(1, [0, 1, 2]), (2, [0, 0.5, 1, 1.5, 2, 2.5]), (0.5, [0, 2])])
def test_frames_are_sampled_at_the_given_rate(tmp_path, fps, times):
    video = make_video(tmp_path / "v.mp4")
    frames = list(iter_frames(str(video), fps))
    assert [seconds for seconds, _ in frames] == pytest.approx(times, abs=0.04)
    assert estimate_num_frames(str(video), fps) == len(times)
    for seconds, image in frames:
        assert image.mode == "RGB" and image.size == (64, 48)
        assert np.asarray(image).mean() == pytest.approx(50 + 50 * int(seconds + 0.02), abs=4)


def test_video_frames_are_predicted_and_unreadable_videos_reported(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    make_video(folder / "v.mp4", seconds=2)
    (folder / "broken.avi").write_text("no video")
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    done = run_cli("predict", "--model_name_or_path", model, folder, "--fps", 2, "--top_k", 1, status=1)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    times = ["0.000", "0.480", "1.000", "1.480"]
    names = [str(folder / name) for name in ("a.png", "broken.avi", *(f"v.mp4#t={t}" for t in times))]
    assert [row["file_name"] for row in rows] == names
    assert "broken.avi: not a readable video" in done.stderr
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, False, False]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_killed_run_is_resumed(model, toy, tmp_path, suffix):
    """Completed rows are kept, the other images are predicted once, and the result equals that of a complete run."""
    folder, complete, resumed = tmp_path / "in", tmp_path / f"complete.{suffix}", tmp_path / f"resumed.{suffix}"
    folder.mkdir()
    frame = next((toy / "unlabelled").iterdir()).read_bytes()
    for number in range(600):
        (folder / f"{number:04d}.jpg").write_bytes(frame)
    (folder / "0007.jpg").write_text("broken")
    argv = ["predict", "--model_name_or_path", model, folder, "--top_k", 2, "--batch_size", 8]
    run_cli(*argv, "--output", complete, status=1)
    argv += ["--output", resumed]
    running = subprocess.Popen([sys.executable, "-m", "hf_mae", *map(str, argv)], cwd=ROOT.parent, env=os.environ)
    partial = tmp_path / f"resumed.{suffix}.partial"
    while not (partial.exists() and partial.stat().st_size > 2500):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not resumed.exists()
    with open(partial, "a") as file:
        file.write("0999.jpg,half a li")  # an incomplete line, as if killed while writing
    before = partial.read_text().count("\n")
    assert 8 < before < 600
    done = run_cli(*argv, status=1)
    assert shows(done.stderr, FileMessage.TABLE_INCOMPLETE)
    done = run_cli(*argv[:-2], "--top_k", 1, *argv[-2:], "--resume", status=1)
    assert shows(done.stderr, FileMessage.TABLE_SETTINGS_DIFFER)
    done = run_cli(*argv, "--resume", status=1)
    assert "from an earlier run" in done.stderr and not partial.exists()

    def rows(path):
        text = path.read_text().splitlines()
        return sorted(text if suffix == "csv" else (json.dumps(json.loads(line)) for line in text))

    assert [row.split(",")[0] for row in rows(resumed)] == [row.split(",")[0] for row in rows(complete)]
    assert len(rows(resumed)) == 600 + (suffix == "csv")
    # Existing rows are skipped, failed images are tried again, and new images are appended.
    (folder / "0007.jpg").write_bytes(frame)
    (folder / "new.jpg").write_bytes(frame)
    done = run_cli(*argv, "--resume")
    assert f"Predicted 2 of 2 images: {resumed} (599 from an earlier run)" in done.stderr
    assert "new.jpg" in resumed.read_text().splitlines()[-1]


def test_bf16_scores_are_close_to_float32(model, toy):
    argv = ["predict", "--model_name_or_path", model, toy / "labelled" / "test" / "ring", "--top_k", 3]
    float32, bf16 = (list(csv.DictReader(run_cli(*argv, *more).stdout.splitlines())) for more in ([], ["--bf16"]))
    scores = [[{r[f"label_{k}"]: float(r[f"score_{k}"]) for k in (1, 2, 3)} for r in rows] for rows in (float32, bf16)]
    for one, two in zip(*scores):
        assert two == pytest.approx(one, abs=0.02)
    assert scores[0] != scores[1]


@pytest.fixture(scope="module")
def mixed_inputs(tmp_path_factory):
    """Images in a folder, a tar file and a zip file (one of them unreadable), and a video."""
    root = tmp_path_factory.mktemp("all")
    (root / "folder").mkdir()
    rng = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(root / "folder" / f"{number} é.png")
    (root / "folder" / "6 é.png").write_text("broken")
    (root / "in").mkdir()
    shutil.make_archive(str(root / "in" / "a"), "tar", root / "folder")
    shutil.make_archive(str(root / "in" / "b"), "zip", root / "folder")
    make_video(root / "v.mp4", seconds=2)
    return root


def frame_names(paths, *shard):
    """The names of all images and frames of a shard."""
    return [
        name for name, _ in iter_pixel_values(iter_inputs(paths, *shard), lambda *_, **__: {"pixel_values": [0]}, 1, 2)
    ]


def test_shards_partition_the_images(mixed_inputs):
    paths = find_input_paths([str(mixed_inputs / name) for name in ("folder", "v.mp4", "in")], include_videos=True)
    names = frame_names(paths)
    assert len(names) == 7 + 2 + 14 and len(set(names)) == len(names)
    for num_shards in (2, 3, 5, 40):
        shards = [Shard(index, num_shards) for index in range(num_shards)]
        shard_names = [frame_names(paths, shard) for shard in shards]
        assert [name for own_names in shard_names for name in own_names] == names
        assert [estimate_total(paths, 1, shard) for shard in shards] == list(map(len, shard_names))


def shard_flags(index: int) -> list:
    return ["--num_shards", 3, "--shard_index", index]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_merged_shards_equal_the_output_of_one_process(model, mixed_inputs, tmp_path, suffix):
    inputs = [mixed_inputs / name for name in ("folder", "v.mp4", "in")]
    argv = ["predict", "--model_name_or_path", model, *inputs, "--batch_size", 1, "--output"]
    run_cli(*argv, tmp_path / f"one.{suffix}", status=1)
    merged = tmp_path / f"merged.{suffix}"
    for index in (2, 0):
        assert "Merged" not in run_cli(*argv, merged, *shard_flags(index)).stderr
        assert not merged.exists()
    shards = sorted(tmp_path.glob("merged.*.shard-*"))
    assert len(shards) == 2
    assert shows(run_cli(*argv, merged, *shard_flags(0), status=1).stderr, FileMessage.TABLE_EXISTS)
    content = shards[0].read_bytes()
    partial = shards[0].with_name(f"{shards[0].name}.partial")  # as if killed
    partial.write_bytes(content[: len(content) * 2 // 3])
    shards[0].unlink()
    run_cli(*argv, merged, *shard_flags(0), "--resume")
    assert "Merged 3 shards" in run_cli(*argv, merged, *shard_flags(1), "--resume").stderr
    assert merged.read_bytes() == (tmp_path / f"one.{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {f"one.{suffix}", f"merged.{suffix}"}
    assert shows(run_cli(*argv, merged, *shard_flags(1), status=1).stderr, FileMessage.FILE_EXISTS, path=merged)
    stderr = run_cli(*argv, merged, *shard_flags(3), status=2).stderr
    assert shows(stderr, SettingsMessage.SHARD_INDEX_OUT_OF_RANGE, num_shards=3, index=3)
    stderr = run_cli(*argv, merged, "--num_shards", 3, status=2).stderr
    assert shows(stderr, SettingsMessage.INCOMPLETE_SHARD)
    assert shows(run_cli(*argv[:-1], *shard_flags(0), status=2).stderr, SettingsMessage.SHARDS_WITHOUT_OUTPUT)


@pytest.mark.launch
def test_launched_processes_share_the_images(model, mixed_inputs, tmp_path):
    argv = ["--model_name_or_path", model, mixed_inputs / "folder", mixed_inputs / "in", "--output"]
    run_cli("predict", *argv, tmp_path / "one.csv", status=1)
    done = subprocess.run(
        build_launch_command("ddp", 2, *argv, tmp_path / "two.csv", command="predict"),
        env=launch_environment(),
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "Merged 2 shards" in done.stderr
    one, two = (list(csv.reader((tmp_path / name).open(newline=""))) for name in ("one.csv", "two.csv"))
    assert [[row[0], row[1]] for row in one] == [[row[0], row[1]] for row in two]
    for first, second in zip(one[1:], two[1:]):
        assert float(second[2] or 0) == pytest.approx(float(first[2] or 0), abs=1e-6)

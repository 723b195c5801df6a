"""Predicting folders that take hours: videos, interruptions, and going on."""

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
from support.paths import ROOT

from hf_mae.data.predict_inputs import Shard, estimate_total, find_input_paths, iter_inputs
from hf_mae.data.videos import estimate_num_frames, iter_frames


@pytest.fixture
def model(finetuned):
    return finetuned()


def make_video(path, seconds=3, rate=25):
    """Frames whose grey level is ten times the second that they are of."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (64, 48))
    for number in range(seconds * rate):
        writer.write(np.full((48, 64, 3), 50 + 50 * (number // rate), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("fps, times", [(1, [0, 1, 2]), (2, [0, 0.5, 1, 1.5, 2, 2.5]), (0.5, [0, 2])])
def test_frames_at_a_given_rate(tmp_path, fps, times):
    video = make_video(tmp_path / "v.mp4")
    found = list(iter_frames(str(video), fps))
    assert [seconds for seconds, _ in found] == pytest.approx(times, abs=0.04)
    assert estimate_num_frames(str(video), fps) == len(times)
    for seconds, image in found:
        assert image.mode == "RGB" and image.size == (64, 48)
        assert np.asarray(image).mean() == pytest.approx(50 + 50 * int(seconds + 0.02), abs=4)


def test_every_frame_of_a_video_and_a_video_that_is_none(model, tmp_path):
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
    assert "broken.avi: no video that can be read" in done.stderr
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, False, False]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_killed_run_goes_on_where_it_was(model, toy, tmp_path, suffix):
    """Killed in the midst: the rows that it had are kept, the rest is predicted once, and all is as without a kill."""
    folder, whole, cut = tmp_path / "in", tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    folder.mkdir()
    frame = next((toy / "unlabelled").iterdir()).read_bytes()
    for number in range(600):
        (folder / f"{number:04d}.jpg").write_bytes(frame)
    (folder / "0007.jpg").write_text("broken")
    argv = ["predict", "--model_name_or_path", model, folder, "--top_k", 2, "--batch_size", 8]
    run_cli(*argv, "--output", whole, status=1)
    argv += ["--output", cut]
    running = subprocess.Popen([sys.executable, "-m", "hf_mae", *map(str, argv)], cwd=ROOT.parent, env=os.environ)
    partial = tmp_path / f"cut.{suffix}.partial"
    while not (partial.exists() and partial.stat().st_size > 2500):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not cut.exists()
    with open(partial, "a") as file:
        file.write("0999.jpg,half a li")  # as a kill within a write leaves it
    before = partial.read_text().count("\n")
    assert 8 < before < 600
    done = run_cli(*argv, status=1)
    assert "pass --resume" in done.stderr
    done = run_cli(*argv[:-2], "--top_k", 1, *argv[-2:], "--resume", status=1)
    assert "was begun with other settings" in done.stderr
    done = run_cli(*argv, "--resume", status=1)
    assert "were there before" in done.stderr and not partial.exists()

    def rows(path):
        text = path.read_text().splitlines()
        return sorted(text if suffix == "csv" else (json.dumps(json.loads(line)) for line in text))

    assert [row.split(",")[0] for row in rows(cut)] == [row.split(",")[0] for row in rows(whole)]
    assert len(rows(cut)) == 600 + (suffix == "csv")
    # What is there is passed over; what was broken is tried again; what is new is appended.
    (folder / "0007.jpg").write_bytes(frame)
    (folder / "new.jpg").write_bytes(frame)
    done = run_cli(*argv, "--resume")
    assert f"2 of 2 images predicted: {cut} (599 were there before)" in done.stderr
    assert "new.jpg" in cut.read_text().splitlines()[-1]


def test_bf16_is_near_float32(model, toy):
    argv = ["predict", "--model_name_or_path", model, toy / "labelled" / "test" / "ring", "--top_k", 3]
    exact, fast = (list(csv.DictReader(run_cli(*argv, *more).stdout.splitlines())) for more in ([], ["--bf16"]))
    scores = [[{r[f"label_{k}"]: float(r[f"score_{k}"]) for k in (1, 2, 3)} for r in rows] for rows in (exact, fast)]
    for one, two in zip(*scores):
        assert two == pytest.approx(one, abs=0.02)
    assert scores[0] != scores[1]


@pytest.fixture(scope="module")
def frames_of_all_kinds(tmp_path_factory):
    """Images in a folder, in a tar and in a zip, a broken one, and a video."""
    root = tmp_path_factory.mktemp("all")
    (root / "folder").mkdir()
    draws = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(draws.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(root / "folder" / f"{number} é.png")
    (root / "folder" / "6 é.png").write_text("broken")
    (root / "in").mkdir()
    shutil.make_archive(str(root / "in" / "a"), "tar", root / "folder")
    shutil.make_archive(str(root / "in" / "b"), "zip", root / "folder")
    make_video(root / "v.mp4", seconds=2)
    return root


def test_parts_are_all_images_once(frames_of_all_kinds):
    paths = find_input_paths(
        [str(frames_of_all_kinds / name) for name in ("folder", "v.mp4", "in")], include_videos=True
    )
    names = [name for name, _ in iter_inputs(paths, 1, set())]
    assert len(names) == 7 + 2 + 14 and len(set(names)) == len(names)
    for of in (2, 3, 5, 40):
        parts = [[name for name, _ in iter_inputs(paths, 1, set(), Shard(number, of))] for number in range(of)]
        assert [name for part in parts for name in part] == names
        assert [estimate_total(paths, 1, Shard(number, of)) for number in range(of)] == list(map(len, parts))


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_parts_come_together_as_one_process_would_have_written_them(model, frames_of_all_kinds, tmp_path, suffix):
    places = [frames_of_all_kinds / name for name in ("folder", "v.mp4", "in")]
    argv = ["predict", "--model_name_or_path", model, *places, "--batch_size", 1, "--output"]
    run_cli(*argv, tmp_path / f"one.{suffix}", status=1)
    together = tmp_path / f"together.{suffix}"
    for number in (3, 1):
        assert "together" not in run_cli(*argv, together, "--part", f"{number}/3").stderr.split("predicted: ")[0]
        assert not together.exists()
    parts = sorted(tmp_path.glob("together.*.part-*"))
    assert len(parts) == 2 and "pass --resume" in run_cli(*argv, together, "--part", "1/3", status=1).stderr
    content = parts[0].read_bytes()
    partial = parts[0].with_name(f"{parts[0].name}.partial")  # as a kill leaves it
    partial.write_bytes(content[: len(content) * 2 // 3])
    parts[0].unlink()
    run_cli(*argv, together, "--part", "1/3", "--resume")
    assert "All 3 parts are together" in run_cli(*argv, together, "--part", "2/3", "--resume").stderr
    assert together.read_bytes() == (tmp_path / f"one.{suffix}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {f"one.{suffix}", f"together.{suffix}"}
    assert "exists" in run_cli(*argv, together, "--part", "2/3", status=1).stderr
    assert "--part takes I/N" in run_cli(*argv, together, "--part", "4/3", status=2).stderr
    assert "need --output" in run_cli(*argv[:-1], "--part", "1/3", status=2).stderr


@pytest.mark.launch
def test_processes_that_are_launched_together_share_the_images(model, frames_of_all_kinds, tmp_path):
    argv = ["--model_name_or_path", model, frames_of_all_kinds / "folder", frames_of_all_kinds / "in", "--output"]
    run_cli("predict", *argv, tmp_path / "one.csv", status=1)
    done = subprocess.run(
        build_launch_command("ddp", 2, *argv, tmp_path / "two.csv", command="predict"),
        env=launch_environment(),
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    )
    assert done.returncode == 0, done.stderr
    assert "All 2 parts are together" in done.stderr
    one, two = (list(csv.reader((tmp_path / name).open(newline=""))) for name in ("one.csv", "two.csv"))
    assert [[row[0], row[1]] for row in one] == [[row[0], row[1]] for row in two]
    for first, second in zip(one[1:], two[1:]):
        assert float(second[2] or 0) == pytest.approx(float(first[2] or 0), abs=1e-6)

"""`predict` on files with several frames."""

import csv

import pytest
from PIL import Image
from support.cli_process import run_cli
from support.frame_files import KINDS, encode, make_frames, write_frames


def test_scores_of_frames_equal_those_of_the_frames_as_png(finetuned, tmp_path):
    kinds = [kind for kind in KINDS if kind != "gif"]  # its palettes change the colours
    for seed, kind in enumerate(kinds):
        frames = make_frames(3, (48, 64), seed)
        write_frames(tmp_path / f"stack.{kind}", frames)
        for index, frame in enumerate(frames):
            (tmp_path / f"{kind}{index}.png").write_bytes(encode(Image.fromarray(frame)))
    stacks = [tmp_path / f"stack.{kind}" for kind in kinds]
    single = [tmp_path / f"{kind}{index}.png" for kind in kinds for index in range(3)]
    argv = ["predict", "--model_name_or_path", finetuned(), "--top_k", 3]
    rows, expected = (list(csv.DictReader(run_cli(*argv, *paths).stdout.splitlines())) for paths in (stacks, single))
    names = [f"{path}#frame={index}" for path in stacks for index in range(3)]
    assert [row["file_name"] for row in rows] == names
    for row, png in zip(rows, expected, strict=True):
        for rank in (1, 2, 3):
            assert row[f"label_{rank}"] == png[f"label_{rank}"]
            assert float(row[f"score_{rank}"]) == pytest.approx(float(png[f"score_{rank}"]), abs=1e-6)

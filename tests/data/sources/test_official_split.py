"""Loading benchmarks from skeletons of the real archives (all official file names, as tiny JPEGs)."""

import csv
import functools
import http.server
import re
import threading
import time

import msgspec
import pytest
from PIL import Image
from support.benchmarks import load_benchmark
from support.cli_process import run_cli
from support.messages import raises, shows
from support.skeletons import list_official_split_files

from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources import benchmark
from hf_mae.files.messages import FileMessage
from hf_mae.settings.benchmarks import BENCHMARKS


@pytest.mark.parametrize("name, first, second", [("hyperkvasir-23", 5324, 5338), ("hyperkvasir-16", 5235, 5244)])
def test_hyperkvasir_has_the_published_counts(hyperkvasir, shared_data, name, first, second):
    for fold, expected in ((1, (first, second)), (2, (second, first))):
        data = load_benchmark(name, hyperkvasir, fold=fold, split_files=list_official_split_files(shared_data, name))
        assert data.counts == {"train": expected[0], "validation": expected[1]} and data.protocol == "official"
        assert data.splits["train"].features["labels"].names == list(BENCHMARKS[name].classes)


def test_gastrovision_has_the_published_counts(gastrovision, shared_data):
    data = load_benchmark(
        "gastrovision-22", gastrovision, split_files=list_official_split_files(shared_data, "gastrovision-22")
    )
    assert data.counts == {"train": 4757, "validation": 1587, "test": 1586} and data.protocol == "official"
    assert data.excluded == {"not_in_benchmark": 8000 - 7930} and data.exclusion_log.total == 8000
    assert any(text.endswith("images in Ulcer that are in no split") for text in data.ignored)
    all_classes = load_benchmark("gastrovision-27", gastrovision)
    assert sum(all_classes.counts.values()) == 8000 and all_classes.protocol == "all images"
    assert all_classes.counts["validation"] == 1598  # a fifth of each class
    assert len(all_classes.splits["train"].features["labels"].names) == 27


def test_the_quality_exclusion_removes_both_images_of_each_pair(hyperkvasir, shared_data):
    pairs = shared_data / "splits/hyperkvasir/similarities.csv"
    data = load_benchmark(
        "hyperkvasir-16",
        hyperkvasir,
        split_files=list_official_split_files(shared_data, "hyperkvasir-16"),
        exclude_pairs=pairs,
    )
    assert data.counts == {"train": 5111, "validation": 5126} and data.protocol == "official, quality exclusion"
    assert data.excluded["listed_in_file"] == 242 and data.exclusion_log.total == 10662 + 1
    excluded = {row[0] for row in csv.reader(open(shared_data / "splits/hyperkvasir/quality_excluded_16_classes.csv"))}
    used = {name.rsplit("/", 1)[1].removesuffix(".jpg") for d in data.splits.values() for name in d["file_name"]}
    assert not used & excluded and len(used) == 10237


def test_re_encoded_images_in_any_folder_are_found(hyperkvasir, shared_data, tmp_path):
    """The key is the file stem."""
    images = sorted((hyperkvasir / "labeled-images/lower-gi-tract/anatomical-landmarks/ileum").iterdir())
    (tmp_path / "ileum").mkdir()
    for path in images:
        Image.open(path).save(tmp_path / "ileum" / f"{path.stem}.png")
    data = load_benchmark(
        "hyperkvasir-23",
        tmp_path,
        split_files=list_official_split_files(shared_data, "hyperkvasir-23"),
        on_bad_image="skip",
    )
    assert data.counts == {"train": 4, "validation": 5} and data.protocol is None
    assert data.attributes(DataMessage.MISSING_IMAGES_SKIPPED)["count"] == 10662 - 9


def test_missing_and_unreadable_images_are_listed(hyperkvasir, shared_data):
    folder = hyperkvasir / "labeled-images/lower-gi-tract/anatomical-landmarks/cecum"
    missing, broken = sorted(folder.iterdir())[:2]
    content = missing.read_bytes()
    options = {"split_files": list_official_split_files(shared_data, "hyperkvasir-16")}
    try:
        missing.unlink()
        attributes = {"benchmark": "hyperkvasir-16", "count": 1, "names": f"cecum/{missing.stem}"}
        with raises(DataMessage.BENCHMARK_MISSING_IMAGES, **attributes):
            load_benchmark("hyperkvasir-16", hyperkvasir, **options)
        missing.write_bytes(content)
        broken.write_bytes(b"broken")
        with raises(DataMessage.INVALID_IMAGES) as caught:
            load_benchmark("hyperkvasir-16", hyperkvasir, **options)
        problems = caught.value.attributes["problems"]
        assert problems.startswith("1 unreadable image:") and broken.name in problems
        data = load_benchmark("hyperkvasir-16", hyperkvasir, on_bad_image="skip", **options)
        assert sum(data.counts.values()) == 10478 and data.excluded["unreadable"] == 1
    finally:
        missing.write_bytes(content), broken.write_bytes(content)


def test_edited_and_missing_split_files_are_rejected(hyperkvasir, shared_data, tmp_path):
    copy = tmp_path / "2_fold_split.csv"
    text = (shared_data / "splits/hyperkvasir/2_fold_split.csv").read_text()
    copy.write_text(text.replace(";0\n", ";1\n", 1))
    with raises(DataMessage.SPLIT_FILE_CHANGED, location=copy, name="2_fold_split.csv"):
        load_benchmark("hyperkvasir-16", hyperkvasir, split_files=[str(copy)])
    with raises(DataMessage.SPLIT_FILE_NOT_PASSED, name="validate.csv"):
        load_benchmark(
            "gastrovision-22", hyperkvasir, split_files=list_official_split_files(shared_data, "gastrovision-22")[:1]
        )


@pytest.fixture
def server(shared_data):
    """Serves the split files over HTTP on the loopback interface; yields the URL and the list of requested paths."""
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(shared_data / "splits"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_address[1]}", requests
        http_server.shutdown()


def test_official_splits_are_downloaded_once_and_checked(hyperkvasir, server, monkeypatch, tmp_path):
    url, requests = server
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path)
    entry = BENCHMARKS["hyperkvasir-16"]
    file = entry.split_files[0]

    def set_url(address):
        changed = msgspec.structs.replace(entry, split_files=(msgspec.structs.replace(file, url=address),))
        monkeypatch.setattr(benchmark, "find_benchmark", lambda name: changed)

    set_url(f"{url}/hyperkvasir/5_fold_split.csv")
    with raises(DataMessage.SPLIT_FILE_CHANGED, location=f"{url}/hyperkvasir/5_fold_split.csv"):
        load_benchmark("hyperkvasir-16", hyperkvasir)
    set_url("http://127.0.0.1:9/2_fold_split.csv")
    with raises(FileMessage.DOWNLOAD_FAILED):
        load_benchmark("hyperkvasir-16", hyperkvasir)
    set_url(f"{url}/hyperkvasir/2_fold_split.csv")
    for _ in range(2):
        assert load_benchmark("hyperkvasir-16", hyperkvasir).protocol == "official"
    assert requests == ["/hyperkvasir/5_fold_split.csv", "/hyperkvasir/2_fold_split.csv"]


def test_prepare_is_fast(hyperkvasir, shared_data, capsys):
    argv = ["prepare", "--benchmark", "hyperkvasir-16", "--data_dir", str(hyperkvasir), "--image_size", "16"]
    argv += ["--split_file", *list_official_split_files(shared_data, "hyperkvasir-16")]
    started = time.time()
    assert main(argv) == 0
    first = time.time() - started
    printed = " ".join(capsys.readouterr().out.split())
    assert "ulcerative-colitis-grade-3 66 67" in printed and "all 5235 5244" in printed
    started = time.time()
    assert main(argv) == 0
    assert first < 90 and time.time() - started < 20


def test_a_published_row_is_one_command(gastrovision, shared_data, tiny_pth, tmp_path):
    """The published recipe on a skeleton, for one update."""
    done = run_cli(
        *("finetune", "--recipe", "gastrovision-22", "--model_name_or_path", tiny_pth, "--data_dir", gastrovision),
        *("--split_file", *list_official_split_files(shared_data, "gastrovision-22"), "--output_dir", tmp_path / "run"),
        *("--max_steps", 1, "--image_size", 16, "--eval_strategy", "no", "--load_best_model_at_end", "false"),
        *("--per_device_eval_batch_size", 400, "--bf16", "false"),
    )
    assert "train 4757, validation 1587, test 1586 (as published: official)" in done.stderr
    assert "images 1587 1586" in " ".join(done.stdout.split())
    # The table has the row of the run and the published rows.
    assert re.search(r"\| \*\*run\*\* \(a\) \| checkpoint-399.pth \| ", done.stdout)
    assert "GastroVision, 22 classes, official split" in done.stdout
    assert "| ViT-L MAE | endoscopy MAE | 74.01 | 79.20 | 75.72 | 84.44 | 82.78 |" in done.stdout
    done = run_cli(
        *("evaluate", "--model_name_or_path", tmp_path / "run", "--benchmark", "hyperkvasir-16"),
        *("--data_dir", gastrovision, "--split_file", *list_official_split_files(shared_data, "hyperkvasir-16")),
        status=1,
    )
    assert shows(done.stderr, DataMessage.BENCHMARK_INCOMPLETE, count=10479, benchmark="hyperkvasir-16")

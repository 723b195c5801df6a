"""Loading GastroHUN, Kvasir-Capsule, LIMUC and Capsule Vision from skeletons; their reports; scores of RETFound."""

import csv
import io
import json
import tarfile
import zipfile
from collections import Counter

import msgspec
import numpy as np
import pytest
import yaml
from PIL import Image
from support.benchmarks import load_benchmark
from support.cli_process import run_cli
from support.messages import raises
from support.records import ENVIRONMENT
from support.skeletons import (
    list_official_split_files,
    make_gastrohun,
    make_jpeg,
    make_kvasir_capsule,
    make_limuc,
    make_linked_tree,
)

from hf_mae.cli.main import main
from hf_mae.data.columns import get_image_paths
from hf_mae.data.images.image_check import ImageCheck
from hf_mae.data.images.image_io import read_rgb
from hf_mae.data.messages import DataMessage
from hf_mae.data.sources.official_split import read_official_rows
from hf_mae.data.sources.split_loading import read_splits
from hf_mae.evaluation.metrics import ConfusionMatrices, headline_metric_names, ranking_scores, score_split
from hf_mae.evaluation.retfound import f1_auroc_kappa, retfound_scores
from hf_mae.reporting.benchmark_tables import format_split_guarantees
from hf_mae.reporting.report import compare
from hf_mae.runs.load_run import load_run
from hf_mae.runs.predictions import write_predictions
from hf_mae.runs.record import CrossvalResult, CrossvalRun, CrossvalSummary, DataSource, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.settings.benchmarks import BENCHMARKS
from hf_mae.settings.data import DataSourceArguments
from hf_mae.settings.metrics import METRICS


def accept_all(paths, splits):
    """A check that accepts all images, which are links to one file."""
    return ImageCheck({}, [str(number) for number in range(len(paths))])


@pytest.fixture(scope="module")
def gastrohun(shared_data, tmp_path_factory):
    return make_gastrohun(tmp_path_factory.mktemp("hun") / "GastroHUN", shared_data / "splits")


@pytest.fixture(scope="module")
def capsule(shared_data, tmp_path_factory):
    return make_kvasir_capsule(tmp_path_factory.mktemp("capsule") / "kvasir", shared_data / "splits")


@pytest.fixture(scope="module")
def limuc(shared_data, tmp_path_factory):
    return make_limuc(tmp_path_factory.mktemp("limuc") / "LIMUC", shared_data / "splits")


@pytest.mark.parametrize(
    "agreement, expected",
    [(None, (3722, 793, 803)), ("triple", (5228, 1103, 1145)), ("fg", (4244, 918, 964)), ("g", (5028, 1078, 1064))],
)
def test_gastrohun_has_the_published_counts_by_agreement(agreement, expected, gastrohun, shared_data):
    files = list_official_split_files(shared_data, "gastrohun-23")
    data = load_benchmark("gastrohun-23", gastrohun, split_files=files, agreement=agreement, check=accept_all)
    assert data.counts == dict(zip(("train", "validation", "test"), expected))
    assert data.protocol == ("official" if agreement is None else f"official, {agreement} agreement")
    names = [name for dataset in data.splits.values() for name in dataset["file_name"][:]]
    assert len(set(names)) == len(names) and len(data.splits["train"].features["labels"].names) == 23
    groups = list(data.groups.values())
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    if agreement is None:
        assert [len(group) for group in groups] == [269, 58, 58]
        first = data.splits["train"][0]
        assert {first["FG1"], first["FG2"], first["G1"], first["G2"]} == {"A1"}, "the four annotators"


def test_training_on_gastrohun_keeps_its_patients(gastrohun, shared_data, tiny_pth, tmp_path):
    done = run_cli(
        *("finetune", "--benchmark", "gastrohun-23", "--data_dir", gastrohun, "--output_dir", tmp_path / "run"),
        *("--split_file", *list_official_split_files(shared_data, "gastrohun-23"), "--model_name_or_path", tiny_pth),
        *("--max_steps", 1, "--image_size", 16, "--eval_strategy", "no", "--load_best_model_at_end", "false"),
        *("--per_device_eval_batch_size", 400, "--cache", "false"),
    )
    assert "train 3722, validation 793, test 803 (as published: official)" in done.stderr
    assert "| ConvNeXt-L | ImageNet |  |  | **88.25 ± 0.22** |" in done.stdout or "88.25 ± 0.22" in done.stdout
    assert BENCHMARKS["gastrohun-23"].guarantees in done.stdout
    report = json.loads((tmp_path / "run" / "report.json").read_text())["tables"][0]
    assert [row["method"] for row in report["rows"]][:2] == ["ConvNeXt-L", "ViT-L"] and report["rows"][2]["ours"]
    with open(tmp_path / "run" / "predictions_test.csv", newline="") as file:
        assert len({row["group"] for row in csv.DictReader(file)}) == 58
    with open(tmp_path / "run" / "metrics_test.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["num_images"] == "803" and {"kappa", "mcc", "retfound_f1", "retfound_mcc"} <= set(row)


def test_kvasir_capsule_has_official_halves_and_folds_by_video(capsule, shared_data):
    files = list_official_split_files(shared_data, "kvasir-capsule-11")
    for fold, expected in ((1, (23061, 24084)), (2, (24084, 23061))):
        data = load_benchmark("kvasir-capsule-11", capsule, fold=fold, split_files=files, check=accept_all)
        assert tuple(data.counts.values()) == expected and data.protocol == "official"
        assert data.excluded == {"two_labels": 8, "not_in_benchmark": 55}
        assert "55 images in labelled_images/Polyp that are in no split" in data.ignored
    groups = data.groups
    shared = groups["train"] & groups["validation"]
    assert len(shared) == 7 and [len(group) for group in groups.values()] == [25, 25]
    counts = [Counter(dataset["group"][:]) for dataset in data.splits.values()]
    assert sorted(sum(count[group] for group in shared) for count in counts) == [2892, 5052]
    clean = load_benchmark("kvasir-capsule-11-by-video", capsule, split_files=files, check=accept_all)
    groups = clean.groups
    assert not groups["train"] & groups["validation"] and sum(clean.counts.values()) == 23061 + 24084
    for dataset in clean.splits.values():
        assert set(dataset["labels"][:]) == set(range(11)), "each class is in both folds"
    assert clean.protocol == "own folds by video"


def test_limuc_has_ten_splits_and_one_test_split(limuc, shared_data):
    files = [str(path) for path in sorted((shared_data / "splits/limuc").glob("*/*.json"))]
    validation = Counter()
    for fold in range(1, 11):
        data = load_benchmark("limuc-4", limuc, fold=fold, split_files=files, check=accept_all)
        assert data.counts == BENCHMARKS["limuc-4"].split_counts(fold) and data.protocol == "official"
        groups = list(data.groups.values())
        assert not groups[0] & groups[1] and not groups[2] & (groups[0] | groups[1])
        validation.update(data.splits["validation"]["file_name"][:])
    assert len(validation) == 6552 and max(validation.values()) == 6
    assert all("patient_based" not in name for name in data.splits["test"]["file_name"][:]), "copies are not used"
    assert BENCHMARKS["limuc-4"].ordered and BENCHMARKS["limuc-4"].positive == ("Mayo 2", "Mayo 3")
    with raises(DataMessage.BENCHMARK_WITHOUT_TEST_FOLDER, folder="test_set"):
        load_benchmark("limuc-4", limuc / "train_and_validation_sets", split_files=files)


def test_ten_splits_are_reported_on_their_test_split(tmp_path):
    """The output of `crossval`: grades, remission, thresholds from each run's validation images, and no pooling."""
    entry, rng = BENCHMARKS["limuc-4"], np.random.default_rng(0)
    names = list(entry.classes)
    common = {
        "base": "mae.pth",
        "environment": ENVIRONMENT,
        "classes": names,
        "ordered": True,
    }
    runs = []
    for fold in range(1, 11):
        run = CrossvalRun(1.0, 0, fold, False)
        folder = tmp_path / run.folder
        folder.mkdir()
        for split, images in (("validation", 40), ("test", 60)):
            labels = np.arange(images) % 4
            scores = rng.dirichlet(np.ones(4), images) + 0.6 * np.eye(4)[labels]
            scores /= scores.sum(1, keepdims=True)
            files = [f"{'all' if split == 'test' else fold}_{number}.bmp" for number in range(images)]
            write_predictions(folder, split, files, np.log(scores), labels, names, [f[:-5] for f in files])
        split_scores = score_split(np.log(scores), labels, names, ordered=True)
        source = DataSource("LIMUC", benchmark="limuc-4", fold=fold)
        record = RunRecord(
            "finetune", data=source, images=entry.split_counts(fold), scores={"test": split_scores}, **common
        )
        write_record(record, folder)
        runs.append(CrossvalResult(run, run.folder, {name: 0.5 for name in headline_metric_names(False)}, "validation"))
    point = {name: {"mean": 0.5, "std": 0.0, "values": [0.5]} for name in headline_metric_names(False)}
    summary = CrossvalSummary("official", runs, point, [{"fraction": 1.0, "images": 9.0} | point], {})
    write_record(RunRecord("crossval", data=source, images={}, crossval=summary, **common), tmp_path)
    comparison = compare([tmp_path], operating_points=["sensitivity=0.9"])
    (table,) = comparison.tables
    (row,) = [row for row in table.rows if row.ours]
    assert "Mean of 10 runs of the 10 official splits, on one test split." in row.notes and table.rows[0] is row
    assert {"qwk", "mae", "one_off_accuracy"} <= set(row.scores) and len(comparison.runs[0].folds[0].predicted) == 10
    (result,) = row.diagnostic_accuracy.one_vs_rest
    assert result.classes == ["Mayo 2", "Mayo 3"] and "kappa" in result.agreement
    point = next(p for p in result.operating_points if (p.rule, p.aggregation) == ("sensitivity=0.9", "images"))
    assert len(set(point.thresholds)) == 10 and point.threshold_split == "validation"
    assert "predictions are never pooled" in comparison.summary() and "QWK" in comparison.summary()
    assert load_run(tmp_path, "validation").split == "validation"


def test_capsule_vision_is_split_by_its_folders(tmp_path):
    classes = BENCHMARKS["capsule-vision-2024-10"].classes
    names = [
        f"Dataset/{part}/{label}/{source}/{number}.jpg"
        for part in ("training", "validation")
        for label in classes
        for source in ("KID", "AIIMS")
        for number in range(2)
    ]
    data = load_benchmark("capsule-vision-2024-10", make_linked_tree(tmp_path / "cv", names), check=accept_all)
    assert data.counts == {"train": 40, "validation": 40} and data.protocol is None
    assert set(data.splits["train"]["source"][:]) == {"KID", "AIIMS"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_downloaded_archives_are_read_in_place(kind, shared_data, tmp_path, monkeypatch):
    """The archive, a folder with it, and members with unsafe paths; a compressed tar file is decompressed once."""
    monkeypatch.setattr("hf_mae.files.caches.cache_folder", lambda: tmp_path / "cache")
    with open(shared_data / "splits/gastrohun/image_classification.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Complete agreement"]]
    archive = tmp_path / "downloads" / f"Labeled Images.{kind}"
    archive.parent.mkdir()
    names = [f"../../Labeled Images/{row['num patient']}/{row['filename']}" for row in rows]
    write_archive(archive, {name: make_jpeg() for name in names} | {"Labeled Images/readme.txt": b"x"})
    files = list_official_split_files(shared_data, "gastrohun-23")
    for data_dir in (archive, archive.parent):
        data = load_benchmark("gastrohun-23", data_dir, split_files=files, check=accept_all)
        assert data.protocol == "official" and data.splits["test"]["file_name"][0].startswith("Labeled Images/")
        assert read_rgb(get_image_paths(data.splits["test"])[0]).size == (8, 8)
    cached = [path for path in (tmp_path / "cache" / "unpacked").rglob("*") if path.is_file()]
    assert len(cached) == (kind == "tar.gz") and not list(tmp_path.rglob("*.jpg"))
    archive.write_bytes(archive.read_bytes()[:5000])
    with raises(DataMessage.ARCHIVE_DAMAGED):
        load_benchmark("gastrohun-23", archive, split_files=files)
    for path in (files[0], tmp_path / "absent"):
        with raises(DataMessage.NOT_A_DATA_SOURCE if "absent" in str(path) else DataMessage.BENCHMARK_WITHOUT_FILES):
            load_benchmark("gastrohun-23", path, split_files=files)


def write_archive(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


OWN = {
    "title": "Mine",
    "classes": ["b", "a"],
    "protocols": {"official": {"train": 4, "test": 4}},
    "split_folders": {"tr": "train", "te": "test"},
    "group_pattern": "^(p[0-9]+)_",
}


def write_own(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(OWN | changes))
    return str(path)


def test_a_benchmark_goes_the_way_of_all_sources(tmp_path, caplog):
    """Groups, frames, images that are ignored, the order of classes, and warnings, as of a folder."""
    names = [f"{part}/{label}/p{number}_{number}.jpg" for part in ("tr", "te") for label in "ab" for number in range(2)]
    root = make_linked_tree(tmp_path / "images", [*names, "other/p9_9.jpg", "tr/a/.hidden.jpg", "tr/notes.txt"])
    frames = [Image.new("L", (8, 8), value) for value in (10, 20, 30)]
    frames[0].save(root / "tr/a/p5_5.tif", save_all=True, append_images=frames[1:])
    name = write_own(tmp_path)
    with raises(DataMessage.INVALID_IMAGES) as caught:
        load_benchmark(name, root)
    assert "p5_5.tif" in caught.value.attributes["problems"]
    data = load_benchmark(name, root, frames="all", on_missing_class="error")
    assert data.counts == {"train": 7, "test": 4} and data.protocol is None
    assert data.splits["train"].features["labels"].names == ["b", "a"]
    assert data.groups == {"train": {"p0", "p1", "p5"}, "test": {"p0", "p1"}}
    assert set(data.splits["train"]["source"][:]) == {"a", "b"}
    assert data.attributes(DataMessage.GROUPS_IN_TWO_SPLITS)["count"] == 2
    assert data.excluded == {"not_in_benchmark": 1} and {"1 hidden files", "1 .txt"} <= set(data.ignored)
    (root / "tr/a/p5_5.tif").unlink()
    assert load_benchmark(name, root).protocol == "official"
    assert load_benchmark(name, root / "tr").counts == {"train": 4}, "a folder in the archive"
    options = DataSourceArguments(data_dir=str(root), benchmark=name)
    assert read_splits(options, label_names=["a", "b"])["test"].features["labels"].names == ["a", "b"]
    with raises(DataMessage.CLASSES_NOT_IN_CHECKPOINT):
        read_splits(options, label_names=["a", "c"])
    options.benchmark = write_own(tmp_path, ordered=True)
    assert read_splits(options, model_class_names=["a", "b"])["test"].features["labels"].names == ["b", "a"]
    with raises(DataMessage.CLASS_ORDER_DIFFERS):
        read_splits(options, label_names=["a", "b"])


def test_held_out_images_of_a_benchmark_without_a_split_keep_their_groups(tmp_path):
    names = [f"{label}/p{patient}_{number}.jpg" for label in "ab" for patient in range(10) for number in range(3)]
    root = make_linked_tree(tmp_path / "training", names)
    name = write_own(tmp_path, split_folders={}, protocols={"all images": {"all": 60}})
    data = load_benchmark(name, root)
    assert data.protocol == "all images" and data.counts == {"train": 48, "validation": 12}
    assert not data.groups["train"] & data.groups["validation"]


def test_missing_images_are_listed_by_class(gastrohun, shared_data, tmp_path):
    files = list_official_split_files(shared_data, "gastrohun-23")
    part = tmp_path / "Labeled Images"
    part.mkdir()
    (part / "1").symlink_to(gastrohun / "Labeled Images" / "1")
    few = make_linked_tree(tmp_path / "few", ["9f8514ab-3839-439e-ad8b-67ee6a6947b0.jpg"])
    homepage = "https://doi.org/10.1038/s41597-025-04401-5"
    attributes = {"root": few, "count": 5317, "benchmark": "gastrohun-23", "homepage": homepage}
    with raises(DataMessage.BENCHMARK_INCOMPLETE, **attributes) as caught:
        load_benchmark("gastrohun-23", few, split_files=files)
    assert "269 of A1 (A1/" in caught.value.attributes["by_class"]


def test_benchmarks_are_listed(capsys):
    assert main(["benchmarks"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and entry.homepage in listed for name, entry in BENCHMARKS.items())
    for name in BENCHMARKS:
        assert main(["benchmarks", name]) == 0
        shown = capsys.readouterr().out
        assert "on disk" in shown and "please cite" in shown and f"--benchmark {name}" in shown
    assert format_split_guarantees().count("\n| ") == len(BENCHMARKS)


def test_conflicting_labels_are_rejected_by_default(shared_data):
    benchmark = msgspec.structs.replace(BENCHMARKS["kvasir-capsule-11"], conflicting_labels="error")
    with raises(DataMessage.BENCHMARK_CONFLICTING_LABELS, count=8) as caught:
        read_official_rows(benchmark, list_official_split_files(shared_data, "kvasir-capsule-11"))
    assert caught.value.attributes["names"].startswith("eb0203196e284797_1125.jpg, ")


# Scores of RETFound


def test_retfound_scores_match_its_evaluation():
    """Computed by hand as in its code: class 0 is ignored, and MCC is the mean over classes."""
    from sklearn.metrics import cohen_kappa_score, matthews_corrcoef, multilabel_confusion_matrix

    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    scores[np.arange(200), labels] += 0.5
    scores /= scores.sum(1, keepdims=True)
    predicted = scores.argmax(1)
    each = multilabel_confusion_matrix(labels, predicted, labels=range(4))[1:]
    matrix = np.zeros((4, 4))
    np.add.at(matrix, (labels, predicted), 1)
    ranking = ranking_scores(scores, labels, list("abcd"))
    found = retfound_scores(matrix, ranking)
    sensitivity = [m[1, 1] / m[1].sum() for m in each]
    precision = [m[1, 1] / m[:, 1].sum() for m in each]
    assert found["sensitivity"] == pytest.approx(np.mean(sensitivity))
    assert found["specificity"] == pytest.approx(np.mean([m[0, 0] / m[0].sum() for m in each]))
    assert found["f1"] == pytest.approx(np.mean([2 * p * s / (p + s) for p, s in zip(precision, sensitivity)]))
    own = [matthews_corrcoef(labels == c, predicted == c) for c in (1, 2, 3)]
    assert found["mcc"] == pytest.approx(np.mean(own)) != pytest.approx(matthews_corrcoef(labels, predicted))
    assert found["accuracy"] == pytest.approx(np.mean([(m[0, 0] + m[1, 1]) / 200 for m in each]))
    assert retfound_scores(np.diag([3, 0, 4]), ranking)["f1"] is None, "theirs is not a number"
    kappa = cohen_kappa_score(labels, predicted)
    assert float(METRICS["kappa"].function(ConfusionMatrices(matrix))) == pytest.approx(kappa)
    assert f1_auroc_kappa(0.5, 0.8, kappa) == pytest.approx((0.5 + 0.8 + kappa) / 3)


def test_the_epoch_is_selected_by_the_score_of_retfound(tiny_pth, toy, tmp_path):
    argv = [
        "finetune",
        "--model_name_or_path",
        tiny_pth,
        "--data_dir",
        toy / "labelled",
        "--output_dir",
        tmp_path / "run",
    ]
    argv += ["--recipe", "retfound", "--image_size", 32, "--num_train_epochs", 2, "--per_device_train_batch_size", 20]
    run_cli(*argv, "--warmup_epochs", 1, "--bf16", "false", "--auto_augment", "none")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    logged = [log["eval_f1_auroc_kappa"] for log in state["log_history"] if "eval_f1_auroc_kappa" in log]
    assert len(logged) == 2 and state["best_metric"] == max(logged)


def test_the_docs_list_the_guarantees_of_the_splits():
    from support.paths import ROOT

    assert format_split_guarantees() in (ROOT / "docs" / "benchmarks.md").read_text()

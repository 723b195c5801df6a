"""GastroHUN, Kvasir-Capsule, LIMUC and Capsule Vision on skeletons; benchmarks of one's own; translated commands."""

import csv
import json
import zipfile
from collections import Counter

import numpy as np
import pytest
import yaml
from support.cli_process import run_cli
from support.skeletons import (
    list_official_split_files,
    make_gastrohun,
    make_jpeg,
    make_kvasir_capsule,
    make_limuc,
    make_linked_tree,
)

from hf_mae.cli.main import main
from hf_mae.data import BENCHMARKS, load_benchmark
from hf_mae.data.benchmark_loading import read_split_assignments
from hf_mae.data.benchmarks import find_benchmark
from hf_mae.data.image_check import ImageCheck
from hf_mae.errors import CommandLineError, UsageError
from hf_mae.evaluation.metrics import HEADLINE, ranking_scores
from hf_mae.evaluation.retfound import f1_auroc_kappa, retfound_scores
from hf_mae.evaluation.scores import score_split
from hf_mae.reporting.benchmark_tables import format_split_guarantees
from hf_mae.reporting.report import compare
from hf_mae.runs.load_run import load_run
from hf_mae.runs.predictions import write_predictions
from hf_mae.runs.record import CrossvalRun, CrossvalSummary, DataSource, Environment, RunRecord
from hf_mae.runs.record_io import write_record
from hf_mae.settings.recipes import find_recipe
from hf_mae.settings.translation import translate


def all_good(entries):
    """What a check of links to one good image would say."""
    return ImageCheck({}, [str(number) for number in range(len(entries))])


def sizes(data):
    return {split: len(dataset) for split, dataset in data.splits.items()}


def groups_of(data):
    return {split: set(dataset["group"][:]) for split, dataset in data.splits.items()}


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
def test_gastrohun_by_agreement(agreement, expected, gastrohun, shared_data):
    files = list_official_split_files(shared_data, "gastrohun-23")
    data = load_benchmark("gastrohun-23", gastrohun, split_files=files, agreement=agreement, check=all_good)
    assert sizes(data) == dict(zip(("train", "validation", "test"), expected))
    assert data.protocol == ("official" if agreement is None else f"official, {agreement} agreement")
    names = [name for dataset in data.splits.values() for name in dataset["file_name"][:]]
    assert len(set(names)) == len(names) and len(data.splits["train"].features["labels"].names) == 23
    groups = list(groups_of(data).values())
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    if agreement is None:
        assert [len(group) for group in groups] == [269, 58, 58]
        first = data.splits["train"][0]
        assert {first["FG1"], first["FG2"], first["G1"], first["G2"]} == {"A1"}, "the four annotators"


def test_gastrohun_trains_with_its_patients(gastrohun, shared_data, tiny_pth, tmp_path):
    done = run_cli(
        *("finetune", "--benchmark", "gastrohun-23", "--data_dir", gastrohun, "--output_dir", tmp_path / "run"),
        *("--split_file", *list_official_split_files(shared_data, "gastrohun-23"), "--model_name_or_path", tiny_pth),
        *("--max_steps", 1, "--image_size", 16, "--eval_strategy", "no", "--load_best_model_at_end", "false"),
        *("--per_device_eval_batch_size", 400, "--cache", "false"),
    )
    assert "train 3722, validation 793, test 803 (as published)" in done.stderr
    assert "| ConvNeXt-L | ImageNet |  |  | **88.25 ± 0.22** |" in done.stdout or "88.25 ± 0.22" in done.stdout
    assert "no patient on both sides (270, 58 and 59 patients in all)" in done.stdout
    report = json.loads((tmp_path / "run" / "report.json").read_text())["tables"][0]
    assert [row["method"] for row in report["rows"]][:2] == ["ConvNeXt-L", "ViT-L"] and report["rows"][2]["ours"]
    with open(tmp_path / "run" / "predictions_test.csv", newline="") as file:
        assert len({row["group"] for row in csv.DictReader(file)}) == 58
    with open(tmp_path / "run" / "metrics_test.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["num_images"] == "803" and {"kappa", "mcc", "retfound_f1", "retfound_mcc"} <= set(row)


def test_kvasir_capsule_as_published_and_by_video(capsule, shared_data):
    files = list_official_split_files(shared_data, "kvasir-capsule-11")
    for fold, expected in ((1, (23061, 24084)), (2, (24084, 23061))):
        data = load_benchmark("kvasir-capsule-11", capsule, fold=fold, split_files=files, check=all_good)
        assert tuple(sizes(data).values()) == expected and data.protocol == "official"
        assert len(data.conflicting_labels) == 8 and data.unused["labelled_images/Polyp"] == 55
    groups = groups_of(data)
    shared = groups["train"] & groups["validation"]
    assert len(shared) == 7 and [len(group) for group in groups.values()] == [25, 25]
    counts = [Counter(dataset["group"][:]) for dataset in data.splits.values()]
    assert sorted(sum(count[group] for group in shared) for count in counts) == [2892, 5052]
    clean = load_benchmark("kvasir-capsule-11-by-video", capsule, split_files=files, check=all_good)
    groups = groups_of(clean)
    assert not groups["train"] & groups["validation"] and sum(sizes(clean).values()) == 23061 + 24084
    for dataset in clean.splits.values():
        assert set(dataset["labels"][:]) == set(range(11)), "every class on both sides"
    assert clean.protocol == "own folds by video"


def test_limuc_is_ten_splits_and_one_test_set(limuc, shared_data):
    files = [str(path) for path in sorted((shared_data / "splits/limuc").glob("*/*.json"))]
    validation = Counter()
    for fold in range(1, 11):
        data = load_benchmark("limuc-4", limuc, fold=fold, split_files=files, check=all_good)
        assert sizes(data) == BENCHMARKS["limuc-4"].split_counts(fold) and data.protocol == "official"
        groups = list(groups_of(data).values())
        assert not groups[0] & groups[1] and not groups[2] & (groups[0] | groups[1])
        validation.update(data.splits["validation"]["file_name"][:])
    assert len(validation) == 6552 and max(validation.values()) == 6
    assert all("patient_based" not in name for name in data.splits["test"]["file_name"][:]), "copies are left alone"
    assert BENCHMARKS["limuc-4"].ordered and BENCHMARKS["limuc-4"].positive == ("Mayo 2", "Mayo 3")
    with pytest.raises(UsageError, match="has folds 1 to 10"):
        load_benchmark("limuc-4", limuc, fold=11, split_files=files)
    with pytest.raises(UsageError, match="lacks the folder test_set"):
        load_benchmark("limuc-4", limuc / "train_and_validation_sets", split_files=files)


def test_ten_splits_are_reported_on_their_test_set(tmp_path):
    """As `crossval` leaves them: grades, remission, thresholds of each run's own validation images, and no pooling."""
    entry, rng = BENCHMARKS["limuc-4"], np.random.default_rng(0)
    names = list(entry.classes)
    common = {"base": "mae.pth", "environment": Environment("here", "x"), "classes": names, "ordered": True}
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
            write_predictions(
                folder / f"predictions_{split}.csv", files, scores, labels, names, [f[:-5] for f in files]
            )
        found = score_split(np.log(scores), labels, names, ordered=True)
        source = DataSource("LIMUC", benchmark="limuc-4", fold=fold)
        record = RunRecord("finetune", data=source, images=entry.split_counts(fold), scores={"test": found}, **common)
        write_record(record, folder)
        runs.append((run, {name: 0.5 for name in HEADLINE}, "validation"))
    point = {name: {"mean": 0.5, "std": 0.0, "values": [0.5]} for name in HEADLINE}
    summary = CrossvalSummary("official", runs, point, [{"fraction": 1.0, "images": 9.0} | point], {})
    write_record(RunRecord("crossval", data=source, images={}, crossval=summary, **common), tmp_path)
    found = compare([tmp_path], operating_points=["sensitivity=0.9"])
    (table,) = found.tables
    (row,) = [row for row in table.rows if row.ours]
    assert "Mean of 10 runs of the 10 official splits, on one test split." in row.notes and table.rows[0] is row
    assert {"qwk", "mae", "one_off_accuracy"} <= set(row.scores) and len(found.runs[0].folds[0].predicted) == 10
    (side,) = row.diagnostic_accuracy.one_vs_rest
    assert side.classes == ["Mayo 2", "Mayo 3"] and "kappa" in side.estimate_agreement
    point = next(one for one in side.operating_points if (one.rule, one.aggregation) == ("sensitivity=0.9", "images"))
    assert len(set(point.thresholds)) == 10 and point.threshold_split == "validation"
    assert "their predictions are never pooled" in found.summary() and "QWK" in found.summary()
    assert load_run(tmp_path, "validation").split == "validation"


def test_capsule_vision_by_its_folders(tmp_path):
    classes = BENCHMARKS["capsule-vision-2024-10"].classes
    names = [
        f"Dataset/{part}/{label}/{source}/{number}.jpg"
        for part in ("training", "validation")
        for label in classes
        for source in ("KID", "AIIMS")
        for number in range(2)
    ]
    data = load_benchmark("capsule-vision-2024-10", make_linked_tree(tmp_path / "cv", names), check=all_good)
    assert sizes(data) == {"train": 40, "validation": 40} and data.protocol is None
    assert set(data.splits["train"]["source"][:]) == {"KID", "AIIMS"}


def test_archives_as_they_were_downloaded(shared_data, tmp_path, monkeypatch):
    """A zip, a folder with a zip, and what such archives may try."""
    monkeypatch.setattr("hf_mae.data.extraction.cache_folder", lambda: tmp_path / "cache")
    with open(shared_data / "splits/gastrohun/image_classification.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Complete agreement"]]
    archive = tmp_path / "down" / "Labeled Images.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for row in rows:
            packed.writestr(f"../../Labeled Images/{row['num patient']}/{row['filename']}", make_jpeg())
        packed.writestr("Labeled Images/readme.txt", "x")
    files = list_official_split_files(shared_data, "gastrohun-23")
    for place in (archive, archive.parent):
        data = load_benchmark("gastrohun-23", place, split_files=files, check=all_good)
        assert data.matches_published and data.splits["test"]["file_name"][0].startswith("Labeled Images/")
    unpacked = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(unpacked) == len(rows), "the images alone, once, and nothing outside"
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(UsageError, match="cannot be unpacked .*is the download whole"):
        load_benchmark("gastrohun-23", archive, split_files=files)
    with pytest.raises(UsageError, match="is no folder and no archive"):
        load_benchmark("gastrohun-23", files[0], split_files=files)


def test_what_is_missing_is_told_by_class(gastrohun, shared_data, tmp_path):
    files = list_official_split_files(shared_data, "gastrohun-23")
    part = tmp_path / "Labeled Images"
    part.mkdir()
    (part / "1").symlink_to(gastrohun / "Labeled Images" / "1")
    few = make_linked_tree(tmp_path / "few", ["9f8514ab-3839-439e-ad8b-67ee6a6947b0.jpg"])
    with pytest.raises(UsageError) as told:
        load_benchmark("gastrohun-23", few, split_files=files)
    text = str(told.value)
    assert "lacks 5317 images of gastrohun-23" in text and "269 of A1 (A1/" in text
    assert "Is it the archive of https://doi.org/10.1038/s41597-025-04401-5, whole and of that version?" in text
    with pytest.raises(UsageError, match="has the agreements complete, triple, .*, not double"):
        load_benchmark("gastrohun-23", few, split_files=files, agreement="double")
    with pytest.raises(UsageError, match="hyperkvasir-16 has one label an image, not triple"):
        load_benchmark("hyperkvasir-16", few, agreement="triple")


# A file of one's own

OWN = {
    "title": "Mine",
    "classes": ["a", "b"],
    "homepage": "here",
    "split_folders": {"tr": "train", "te": "test"},
    "group_pattern": "^(p[0-9]+)_",
    "protocols": {"official": {"train": 4, "test": 4}},
    "published": [
        {"method": "M", "protocol": "official", "ranked": True, "scores": {"macro_f1": "50.5±1.0"}, "source": "S"}
    ],
}


def test_a_benchmark_of_ones_own_is_a_file(tmp_path, tiny_pth):
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump(OWN))
    names = [f"{part}/{label}/p{number}_{number}.jpg" for part in ("tr", "te") for label in "ab" for number in range(2)]
    root = make_linked_tree(tmp_path / "images", names)
    done = run_cli(
        *("finetune", "--benchmark", own, "--data_dir", root, "--output_dir", tmp_path / "run"),
        *("--model_name_or_path", tiny_pth, "--max_steps", 1, "--image_size", 16),
    )
    assert "Mine: train 4, test 4 (as published)" in done.stderr
    assert "| M |  |  |  | 50.50" in done.stdout.replace("**", "") or "50.5 ± 1.0" in done.stdout
    shown = run_cli("benchmarks", own).stdout
    assert "Mine" in shown and "Images lie in class folders below te/ and tr/" in shown


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clases": []}, r"has the setting clases, which is none \(did you mean classes\?\)"),
        ({"classes": "a"}, "has 'a' for classes, which is a list"),
        ({"classes": ["a", "a"]}, "it needs two classes or more, each once"),
        ({"ordered": "yes"}, "has 'yes' for ordered, which is true or false"),
        ({"folds": -1}, "has -1 for folds, which is a whole number of at least 0"),
        ({"split_folders": {"tr": "training"}}, "which is one of train, validation, test, or the number of a half"),
        ({"protocols": {"official": {"trian": 3}}}, "which is numbers of images by split"),
        ({"protocols": {"other": {"train": 3}}}, "the row M is ranked, and its protocol, official, is none"),
        ({"published": [{"method": "M"}]}, "published, lacks protocol"),
        ({"published": [OWN["published"][0] | {"scores": {"macro_f1": "high"}}]}, "high is none"),
        ({"positive": ["c"]}, "c is none of its classes"),
        ({"key": "path"}, "key is `name` or `class and name`, not path"),
        ({"group_pattern": "("}, "group_pattern is no regular expression"),
        ({"group_pattern": "p"}, "group_pattern has no group in brackets"),
        ({"split_files": [{"name": "x", "url": "u", "sha256": "1"}]}, "x has no SHA-256"),
        ({"split_table": {"lable": "x"}}, "split_table, has the setting lable"),
        ({"title": None}, "has None for title, which is text"),
    ],
)
def test_mistakes_in_such_a_file_are_one_sentence(change, message, tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump(OWN | change))
    with pytest.raises(UsageError, match=message):
        find_benchmark(str(own))


def test_files_that_are_none(tmp_path, capsys):
    for text, message in (("- a", "where there should be settings"), ("a: [", "is no YAML")):
        path = tmp_path / f"{len(text)}.yaml"
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            find_benchmark(str(path))
    assert main(["benchmarks", str(tmp_path / "absent.yaml")]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().err
    assert main(["benchmarks", "limuc"]) == 1
    assert "No benchmark is called limuc (did you mean limuc-4?)" in capsys.readouterr().err


def test_the_lists(capsys):
    assert main(["benchmarks"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and entry.homepage in listed for name, entry in BENCHMARKS.items())
    for name in BENCHMARKS:
        assert main(["benchmarks", name]) == 0
        shown = capsys.readouterr().out
        assert "on disk" in shown and "please cite" in shown and f"--benchmark {name}" in shown
    assert format_split_guarantees().count("\n| ") == len(BENCHMARKS)


def test_two_labels_are_refused_where_no_rule_leaves_them_out(shared_data):
    from dataclasses import replace

    benchmark = replace(BENCHMARKS["kvasir-capsule-11"], conflicting_labels="error")
    with pytest.raises(UsageError, match="gives 8 images two labels: eb0203196e284797_1125.jpg"):
        read_split_assignments(benchmark, list_official_split_files(shared_data, "kvasir-capsule-11"))


# RETFound's way, and translations


def test_retfounds_scores_are_computed_its_way():
    """By hand, as its evaluation does it: class 0 left out, each class's own MCC."""
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
    assert f1_auroc_kappa(0.5, 0.8, matrix) == pytest.approx((0.5 + 0.8 + kappa) / 3)


def test_retfounds_rule_chooses_the_epoch(tiny_pth, toy, tmp_path):
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


def test_the_recipe_is_what_its_command_translates_to():
    """Of RETFound's own example."""
    found = translate([
        "torchrun --nproc_per_node=1 --master_port=48766 main_finetune.py --model RETFound_mae --savemodel "
        "--global_pool --batch_size 24 --world_size 1 --epochs 50 --blr 5e-3 --layer_decay 0.65 --weight_decay 0.05 "
        "--drop_path 0.2 "
        "--nb_classes 5 --data_path ./IDRiD --input_size 224 --task IDRiD --finetune RETFound_mae_natureCFP"
    ])  # fmt: skip
    recipe = yaml.safe_load(find_recipe("retfound").read_text())
    assert found.source == "retfound" and found.verb == "finetune" and not found.without
    for name, value in found.flags.items():
        if name not in ("model_name_or_path", "data_dir", "output_dir"):
            assert str(recipe[name]) == value or float(recipe[name]) == float(value), name
    assert set(found.not_needed) == {"model", "savemodel", "world_size", "nb_classes"}


def test_commands_of_the_reference_and_of_timm():
    found = translate([
        "python -m torch.distributed.launch --nproc_per_node=8 main_finetune.py --accum_iter 4 --batch_size 32 --model "
        "vit_base_patch16 --finetune base.pth --epochs 100 --mixup 0.8 --remode pixel --cls_token --dist_eval "
        "--data_path D"
    ])  # fmt: skip
    assert found.command().startswith(
        "accelerate launch --num_processes 8 -m hf_mae finetune --gradient_accumulation_steps 4"
    )
    assert found.flags["pooling"] == "cls" and found.without == ["remode"] and "dist_eval" in found.not_needed
    found = translate(
        "python train.py images --initial-checkpoint w.pth -b 64 --lr=5e-4 --opt adamw --amp --amp-dtype bfloat16 "
        "--mean 0.5 0.5 0.5 --std 0.2 0.2 0.2 --model-ema --output out --experiment first".split()
    )
    assert found.flags["mean_std"] == "0.5 0.5 0.5 0.2 0.2 0.2" and found.flags["bf16"] == "true"
    assert found.flags["output_dir"] == "out/first" and found.flags["num_train_epochs"] == "300"
    assert (
        found.flags["data_dir"] == "images"
        and found.flags["ema"] == "0.9998"
        and not found.without
        and "fp16" not in found.flags
    )
    found = translate(["python main_finetune.py --eval --resume fine.pth --model vit_large_patch16 --data_path D"])
    assert found.verb == "evaluate" and found.command().startswith("hf-mae evaluate --model_name_or_path fine.pth")
    with pytest.raises(CommandLineError, match="translate takes a command of"):
        translate(["python my_script.py --lr 1"])


def test_what_is_translated_is_understood_here(tiny_pth, toy, tmp_path, capsys):
    """The command that is printed runs, up to its mistake: the folder that is not there."""
    command = translate(
        [f"python main_finetune.py --finetune {tiny_pth} --data_path {tmp_path}/absent --blr 1e-3 --clip_grad 1"]
    )
    argv = command.command().split()[1:]
    assert main(argv) == 1
    assert "absent does not exist" in capsys.readouterr().err


def test_the_docs_tell_what_splits_guarantee():
    from support.paths import ROOT

    assert format_split_guarantees() in (ROOT / "docs" / "benchmarks.md").read_text()

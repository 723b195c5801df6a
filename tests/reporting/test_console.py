"""Tables on the terminal: content, and a width of at most 80 columns."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features

from hf_mae.evaluation.estimation import headline_metric_intervals
from hf_mae.evaluation.metrics import headline_metric_names
from hf_mae.evaluation.prediction_table import Predictions
from hf_mae.models.model_zoo import load_checkpoint_catalogue
from hf_mae.reporting.benchmark_tables import build_benchmark, build_benchmark_list
from hf_mae.reporting.build_report import build_report_summary
from hf_mae.reporting.checkpoint_tables import build_checkpoint, build_model_zoo
from hf_mae.reporting.console import build_scores_summary, class_table
from hf_mae.reporting.renderers.terminal import MAX_WIDTH, render
from hf_mae.reporting.results_tables import ResultsRow, ResultsTable
from hf_mae.reporting.split_results import score_with_intervals
from hf_mae.reporting.table import Column, Number, Table, fields_table
from hf_mae.settings.benchmarks import BENCHMARKS


def format_scores(scores_by_split):
    return render(build_scores_summary(scores_by_split))


class ImagesOfPatients:
    groups = [f"p{index // 6}" for index in range(120)]


class IndependentImages:
    groups = None


def make_scores(eval_dataset, ordered=True, num_classes=3):
    rng, labels = np.random.default_rng(0), np.arange(120) % num_classes
    predicted = np.where(rng.random(120) < 0.8, labels, (labels + 1) % num_classes)
    names = [f"grade {index}" for index in range(num_classes)]
    return (
        labels,
        predicted,
        score_with_intervals(eval_dataset, 2 * np.eye(num_classes)[predicted], labels, names, ordered),
    )


@pytest.mark.parametrize("eval_dataset", [IndependentImages, ImagesOfPatients])
def test_scores_have_the_intervals_of_the_report(eval_dataset):
    labels, predicted, scores = make_scores(eval_dataset)
    groups = None if eval_dataset.groups is None else np.array(eval_dataset.groups)
    expected = headline_metric_intervals([Predictions(labels, predicted[None], 3, groups, ordered=True)])
    assert scores["intervals"] == {name: interval and list(interval) for name, interval in expected.items()}
    low, high = (100 * end for end in expected["macro_f1"])
    (line,) = (line for line in format_scores({"test": scores}).splitlines() if line.startswith("macro F1"))
    assert line.split(maxsplit=2)[2] == f"{100 * scores['macro_f1']:.2f} [{low:.1f}, {high:.1f}]"


def test_intervals_that_need_too_much_memory_are_omitted(monkeypatch):
    monkeypatch.setattr("hf_mae.reporting.split_results.MAX_CONFUSION_CELLS", 999_999)
    _, _, scores = make_scores(IndependentImages, ordered=False, num_classes=1000)
    assert scores["intervals"] == {} and "[" not in format_scores({"test": scores})


@pytest.mark.parametrize("splits", [1, 3, 5])
def test_scores_of_several_splits_fit_the_terminal(splits):
    _, _, scores = make_scores(IndependentImages)
    lines = format_scores({f"validation{number}": scores for number in range(splits)}).splitlines()
    assert max(map(len, lines)) <= MAX_WIDTH
    assert sum(line.count("validation") for line in lines) == splits


def test_long_class_names_are_shortened():
    features = Features({"labels": ClassLabel(names=["polyp", "normal mucosa and vascular pattern " * 4])})
    dataset = Dataset.from_dict({"labels": [0, 1, 1]}, features=features)
    lines = render([class_table(dict.fromkeys(("train", "validation", "test"), dataset))]).splitlines()
    assert max(map(len, lines)) == MAX_WIDTH and lines[1].split() == ["polyp", "1", "1", "1"]
    assert lines[-1].split() == ["all", "3", "3", "3"]


def test_lists_fit_the_terminal():
    """Only addresses and file names may be longer, because they are not broken."""
    documents = [build_benchmark_list(), build_model_zoo()]
    documents += [build_benchmark(name, entry) for name, entry in BENCHMARKS.items()]
    documents += [build_checkpoint(entry) for entry in load_checkpoint_catalogue().values()]
    lines = [line for document in documents for line in render(document).splitlines()]
    assert all("/" in line.split()[-1] and len(line.split()) <= 3 for line in lines if len(line) > MAX_WIDTH)


def test_columns_are_aligned_and_texts_are_wrapped():
    table = Table([Column("name"), Column("macro F1", "r", "macro\nF1")], [["a", Number(71.2)], ["longer", Number(5)]])
    assert render([table]).splitlines() == ["        macro", "name       F1", "a       71.20", "longer   5.00"]
    fields = [fields_table([("licence", "word " * 30), ("x", 1)])]
    lines = render(fields).splitlines()
    assert lines[0].startswith("licence  word") and lines[1].startswith(" " * 9 + "word")
    assert max(map(len, lines)) <= MAX_WIDTH and lines[-1] == "x        1"
    assert len(render(fields, wrap=False).splitlines()) == 2


def test_details_are_below_their_row():
    columns = [Column("name"), Column("size", "r"), Column("licence", below=True), Column("", below=True)]
    table = Table(columns, [["a", 1, "MIT", "word " * 30], ["b", 22, None, "short"]])
    lines = render([table]).splitlines()
    assert lines[:3] == ["name  size", "a        1", "    licence  MIT"] and lines[3].startswith(" " * 13 + "word")
    assert lines[-2:] == ["b       22", " " * 13 + "short"] and max(map(len, lines)) <= MAX_WIDTH


@pytest.mark.parametrize("std", [None, 12.34])
@pytest.mark.parametrize("num_runs", [1, 2, 5])
def test_a_report_on_a_terminal_fits_80_columns(std, num_runs):
    """All scores, intervals and comparisons are shown; long names of runs are shortened."""
    score = Number(92.97, std=std, interval=(85.9, 100.0), interval_digits=1)
    names = [f"a_run_with_a_very_long_name_{number}" for number in range(num_runs)]
    rows = [
        ResultsRow(name, "MAE", "this run", True, True, dict.fromkeys(headline_metric_names(False), score))
        for name in names
    ]
    rows.append(ResultsRow("Published", "", "paper", False, True, {"macro_f1": Number(90.0, printed="90.0±0.5")}))
    comparison = {"first": names[0], "second": names[-1], "score": "macro_f1", "difference": 0.0123, "low": -0.01}
    comparison |= {"high": 0.03, "p_value": 0.2, "p_adjusted": 0.4, "test": "permutation", "units": "images"}
    text = render(build_report_summary([ResultsTable("A title of a table " * 6, rows, [], [comparison], [], [], [])]))
    assert max(map(len, text.splitlines())) <= MAX_WIDTH
    assert text.count("92.97") == num_runs * len(headline_metric_names(False)) and text.count("90.0 ± 0.5") == 1
    assert "+1.23 [-1.0, +3.0]" in text and "p 0.4 (adjusted)" in " ".join(text.split())

"""Predictions of runs (parquet with logits), and prediction tables of any program."""

import csv
import json
import unicodedata

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.documented_commands import read_commands
from support.messages import logged, raises
from support.other_programs import write_outputs
from support.paths import ROOT

from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.evaluation.calibration import Temperature
from hf_mae.evaluation.metrics import softmax
from hf_mae.files.messages import FileMessage
from hf_mae.reporting.report import compare
from hf_mae.runs.image_names import match_names
from hf_mae.runs.load_run import load_run
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.predictions import (
    find_predictions,
    list_predicted_splits,
    read_prediction_csv,
    read_prediction_table,
    read_predictions,
    write_predictions,
)

NAMES = ["polyp", "mucosa, normal", "Zökum"]


def make_logits(images=40, classes=3, seed=0):
    return np.random.default_rng(seed).normal(0, 4, (images, classes)).astype(np.float32)


def write_run(folder, logits, labels, names=NAMES, groups=None, **options):
    folder.mkdir(exist_ok=True)
    files = [f"{number}.png" for number in range(len(labels))]
    write_predictions(folder, "test", files, logits, labels, names, groups, **options)
    return files


# Predictions of a run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "temperature", [Temperature(), Temperature(1.7), Temperature(1.2, (0.5, 2.0, 3.0))], ids=["none", "one", "by class"]
)
def test_logits_and_scores_are_read_exactly(dtype, temperature, tmp_path):
    logits, labels = make_logits().astype(dtype), np.arange(40) % 3
    files = write_run(tmp_path, logits, labels, groups=[f"p{i // 4}" for i in range(40)], temperature=temperature)
    table = read_prediction_table(tmp_path, "test")
    assert table.logits.dtype == dtype and np.array_equal(table.logits, logits)
    scaled = temperature.scale_logits(logits)
    assert np.array_equal(table.class_scores, softmax(scaled)) and np.array_equal(table.predicted, scaled.argmax(-1))
    assert (table.file_names, table.class_names) == (files, NAMES) and np.array_equal(table.labels, labels)
    assert list(table.groups[:5]) == ["p0", "p0", "p0", "p0", "p1"]
    assert pq.read_schema(tmp_path / "predictions_test.parquet").names[4:] == [f"logit:{name}" for name in NAMES]


def test_the_parquet_file_of_a_run_is_a_table_of_a_report(tmp_path):
    write_run(tmp_path / "run", make_logits(), np.arange(40) % 3)
    path = tmp_path / "run" / "predictions_test.parquet"
    run, csv_run = (load_run(file) for file in (path, path.with_suffix(".csv")))
    assert (run.name, run.split, run.file_names) == ("run", "test", csv_run.file_names)
    assert run.scores() == csv_run.scores()
    renamed = path.rename(tmp_path / "table")
    assert load_run(renamed).scores() == run.scores(), "the content decides, not the suffix"


def test_ties_of_scores_are_those_of_the_logits(tmp_path):
    """Scores of nine digits are equal for logits that differ; ranks need the logits."""
    logits = np.array([[0, step * 2**-32] for step in range(50)], dtype=np.float32)
    write_run(tmp_path, logits, np.arange(50) % 2, ["a", "b"])
    exact = read_prediction_table(tmp_path, "test").class_scores[:, 1]
    rounded = read_prediction_csv(tmp_path / "predictions_test.csv").class_scores[:, 1]
    assert len(np.unique(exact)) == 50 and len(np.unique(rounded)) < 50


def test_the_csv_file_has_the_same_predictions(tmp_path):
    logits, labels = make_logits(), np.arange(40) % 3
    write_run(tmp_path, logits, labels)
    exact, rounded = read_prediction_table(tmp_path, "test"), read_prediction_csv(tmp_path / "predictions_test.csv")
    assert (rounded.file_names, rounded.class_names) == (exact.file_names, NAMES) and rounded.groups is None
    assert np.array_equal(rounded.labels, labels) and np.array_equal(rounded.predicted, exact.predicted)
    np.testing.assert_allclose(rounded.class_scores, exact.class_scores, rtol=1e-8, atol=1e-12)


def test_a_changed_csv_file_has_no_effect_and_is_reported(tmp_path, caplog):
    write_run(tmp_path, make_logits(), np.arange(40) % 3)
    path = tmp_path / "predictions_test.csv"
    before = read_prediction_table(tmp_path, "test")
    assert not logged(caplog.records, RunMessage.PREDICTIONS_CSV_CHANGED)
    path.write_text(path.read_text().replace("polyp", "adenoma"))
    after = read_prediction_table(tmp_path, "test")
    assert logged(caplog.records, RunMessage.PREDICTIONS_CSV_CHANGED, path=path)
    assert after.class_names == before.class_names and np.array_equal(after.labels, before.labels)
    path.unlink()
    assert np.array_equal(read_prediction_table(tmp_path, "test").logits, before.logits)
    assert list_predicted_splits(tmp_path) == ["test"] and find_predictions(tmp_path, "validation") is None


def test_missing_and_damaged_predictions_are_reported(tmp_path):
    with raises(RunMessage.PREDICTIONS_MISSING, path=tmp_path, split="test"):
        read_prediction_table(tmp_path, "test")
    write_run(tmp_path, make_logits(), np.arange(40) % 3)
    path = tmp_path / "predictions_test.parquet"
    for content in (path.read_bytes()[:200], b"file_name,label", b""):
        path.write_bytes(content)
        with raises(RunMessage.PREDICTIONS_DAMAGED, path=path):
            read_prediction_table(tmp_path, "test")


@pytest.mark.parametrize("changes", [{"reverse_labels": True}, {"names": NAMES[::-1]}, {"images": 39}])
def test_runs_on_other_images_labels_or_classes_are_not_combined(changes, tmp_path):
    labels = np.arange(40) % 3
    folders = [tmp_path / name for name in ("first", "second", "other")]
    for folder, seed in zip(folders, (0, 1, 2)):
        write_run(folder, make_logits(seed=seed), labels)
    predictions, _, names = read_predictions(folders[:2], "test")
    assert predictions.predicted.shape == (2, 40) and predictions.class_scores.shape == (2, 40, 3) and names == NAMES
    images = changes.get("images", 40)
    other_labels = labels[:images][::-1] if "reverse_labels" in changes else labels[:images]
    write_run(folders[2], make_logits(images), other_labels, changes.get("names", NAMES))
    with raises(RunMessage.PREDICTIONS_OF_OTHER_IMAGES, path=folders[2], first=folders[0]):
        read_predictions([folders[0], folders[2]], "test")


# Tables of any program


def write_table(path, rows, columns=("file_name", "label", "prediction"), delimiter=",", encoding="utf-8"):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
    return path


ROWS = [
    ("a.png", "cyst", "cyst"),
    ("b, 1;2.png", "Zökum", "cyst"),
    ('c "x"\n2.png', "Zökum", "Zökum"),
    ("日本.png", "cyst", "wart"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_other_programs_are_read(delimiter, encoding, tmp_path):
    """Names with commas, quotes and line breaks; a class that is only predicted is a class."""
    path = write_table(tmp_path / "t.csv", ROWS, delimiter=delimiter, encoding=encoding)
    table = read_prediction_csv(path)
    assert table.file_names == [row[0] for row in ROWS] and table.class_names == ["Zökum", "cyst", "wart"]
    assert [table.class_names[i] for i in table.labels] == [row[1] for row in ROWS]
    assert [table.class_names[i] for i in table.predicted] == [row[2] for row in ROWS]
    assert table.groups is None and table.class_scores is None and table.logits is None


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1).filter(lambda text: text.strip())
classes = st.text(st.characters(categories=["L", "P", "S"]), min_size=1, max_size=8).map(
    lambda text: unicodedata.normalize("NFC", f"class {text}")
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(cells, classes, classes), min_size=1, max_size=8, unique_by=lambda row: row[0]),
    st.sampled_from(",;\t"),
    st.permutations(["file_name", "label", "prediction", "comment"]),
)
def test_any_names_are_read_as_they_were_written(tmp_path_factory, rows, delimiter, columns):
    names = {name for row in rows for name in row[1:]}
    folded = {" ".join(unicodedata.normalize("NFKC", name).casefold().split()) for name in names}
    assume(len(folded) == len(names))  # similar names are rejected
    path = tmp_path_factory.mktemp("table") / "t.csv"
    values = [dict(zip(("file_name", "label", "prediction", "comment"), (*row, "x"))) for row in rows]
    write_table(path, [[value[column] for column in columns] for value in values], columns, delimiter)
    table = read_prediction_csv(path)
    found = zip(table.file_names, table.labels, table.predicted)
    assert [(name, table.class_names[label], table.class_names[best]) for name, label, best in found] == rows


@pytest.mark.parametrize("other", ["POLYP", " Polyp"])
@pytest.mark.parametrize("column", ["label", "prediction", "score"])
def test_class_names_that_differ_in_case_are_rejected(column, other, tmp_path):
    """Otherwise `Polyp` and `polyp` would be two classes, and each right prediction an error."""
    columns, rows = ["file_name", "label", "prediction"], [["a", "polyp", "polyp"], ["b", "cyst", "cyst"]]
    if column == "score":
        columns += ["score:polyp", "score:cyst", f"score:{other}"]
        rows = [[*row, "0.5", "0.5", "0"] for row in rows]
    else:
        rows[0][columns.index(column)] = other
    path = write_table(tmp_path / "t.csv", rows, columns)
    with raises(DataMessage.CLASS_NAMES_SIMILAR, source=str(path)):
        read_prediction_csv(path)


@pytest.mark.parametrize("name", ["", "  "])
def test_rows_without_a_file_name_are_rejected(name, tmp_path):
    path = write_table(tmp_path / "t.csv", [("a", "cyst", "cyst"), (name, "cyst", "cyst")])
    with raises(RunMessage.PREDICTION_FILE_NAME_MISSING, path=path):
        read_prediction_csv(path)


@pytest.mark.parametrize(
    "column, cell, message",
    [
        ("label", None, RunMessage.PREDICTIONS_DAMAGED),
        ("prediction", None, RunMessage.PREDICTIONS_DAMAGED),
        ("file_name", None, RunMessage.PREDICTION_FILE_NAME_MISSING),
        ("file_name", " ", RunMessage.PREDICTION_FILE_NAME_MISSING),
        ("file_name", "again", RunMessage.PREDICTIONS_REPEAT_FILE_NAME),
        ("group", None, RunMessage.PREDICTION_GROUP_MISSING),
    ],
)
def test_a_parquet_file_with_invalid_cells_is_rejected(column, cell, message, tmp_path):
    write_run(tmp_path, make_logits(), np.arange(40) % 3)
    path = tmp_path / "predictions_test.parquet"
    table = pq.read_table(path)
    if column == "group" and column not in table.column_names:
        table = table.append_column("group", table["file_name"])
    cells = [cell, *table[column].to_pylist()[1:]]
    if cell == "again":
        cells[0] = cells[1]
    pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(cells)), path)
    with raises(message, path=path):
        read_prediction_table(tmp_path, "test")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_without_finite_scores_are_rejected(value, tmp_path):
    """They would allocate any amount of memory in the statistics."""
    logits = make_logits()
    logits[3, 1] = value
    write_run(tmp_path, logits, np.arange(40) % 3)
    with raises(RunMessage.PREDICTIONS_DAMAGED, path=tmp_path / "predictions_test.parquet"):
        read_prediction_table(tmp_path, "test")


def test_numbers_are_class_names_in_their_order(tmp_path):
    rows = [("a", "2", "10"), ("b", "10.0", "2.0"), ("c", "0", "0")]
    table = read_prediction_csv(write_table(tmp_path / "t.csv", rows))
    assert table.class_names == ["0", "2", "10"]
    assert list(table.labels) == [1, 2, 0] and list(table.predicted) == [2, 1, 0]


def test_groups_and_scores_are_read(tmp_path):
    columns = ("file_name", "group", "label", "prediction", "score", "score:b", "score:a", "score:c")
    rows = [("1", "p", "a", "a", "0.7", "0.2", "0.7", " 0.1"), ("2", "q", "b", "b", "1", "1.0", "0", "0")]
    table = read_prediction_csv(write_table(tmp_path / "t.csv", rows, columns))
    assert table.class_names == ["b", "a", "c"] and list(table.labels) == [1, 0] and list(table.groups) == ["p", "q"]
    np.testing.assert_allclose(table.class_scores, [[0.2, 0.7, 0.1], [1, 0, 0]])
    np.testing.assert_allclose(softmax(table.logits), table.class_scores)


SCORES = ("file_name", "label", "prediction", "score:a", "score:b")
GROUPS = (*SCORES[:3], "group")


@pytest.mark.parametrize(
    "columns, rows, message, attributes",
    [
        (SCORES[:2], [("1", "a")], RunMessage.PREDICTION_COLUMNS_MISSING, {"columns": ["prediction"]}),
        (("image", "y", "p"), [("1", "a", "a")], RunMessage.PREDICTION_COLUMNS_MISSING, {}),
        ((*SCORES[:3], "label"), [("1", "a", "a", "b")], RunMessage.PREDICTION_COLUMN_REPEATED, {"column": "label"}),
        (SCORES[:3], [], RunMessage.PREDICTION_TABLE_EMPTY, {}),
        (SCORES[:3], [("1", "a", "a"), ("1", "a", "b")], RunMessage.PREDICTIONS_REPEAT_FILE_NAME, {"name": "1"}),
        (SCORES[:3], [("1", "a", "a"), ("2", "a")], RunMessage.PREDICTION_ROWS_UNREADABLE, {}),
        (SCORES[:3], [("a/1", "a", "a"), ("a\\1", "a", "a")], RunMessage.PREDICTIONS_REPEAT_FILE_NAME, {"name": "a/1"}),
        (SCORES[:3], [("1", "a", "")], DataMessage.LABEL_MISSING, {}),
        (SCORES[:3], [("1", "nan", "a")], DataMessage.LABEL_MISSING, {}),
        (SCORES, [("1", "c", "a", 1, 0)], RunMessage.SCORES_OF_CLASS_MISSING, {"name": "c"}),
        (SCORES, [("1", "a", "c", 1, 0)], RunMessage.SCORES_OF_CLASS_MISSING, {"name": "c"}),
        (SCORES, [("1", "a", "a", "high", 0)], RunMessage.PREDICTION_SCORE_NOT_A_NUMBER, {"column": "score:a"}),
        (SCORES, [("1", "a", "a", "0,5", "0,5")], RunMessage.PREDICTION_SCORE_NOT_A_NUMBER, {"column": "score:a"}),
        (SCORES, [("1", "a", "a", "", 1)], RunMessage.PREDICTION_SCORE_NOT_A_NUMBER, {"column": "score:a"}),
        (SCORES, [("1", "a", "a", "nan", 1)], RunMessage.SCORES_INVALID, {"name": "1"}),
        (SCORES, [("1", "a", "a", 0.6, 0.4), ("2", "a", "a", 0.6, 0.5)], RunMessage.SCORES_INVALID, {"name": "2"}),
        (SCORES, [("1", "a", "a", 1.5, -0.5)], RunMessage.SCORES_INVALID, {}),
        (SCORES, [("1", "a", "a", 3.2, 1.1)], RunMessage.SCORES_INVALID, {}),
        (GROUPS, [("1", "a", "a", "p"), ("2", "a", "a", "")], RunMessage.PREDICTION_GROUP_MISSING, {"name": "2"}),
    ],
)
def test_invalid_tables_are_rejected(columns, rows, message, attributes, tmp_path):
    path = write_table(tmp_path / "t.csv", rows, columns)
    with raises(message, **attributes):
        compare([path])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", RunMessage.PREDICTION_TABLE_EMPTY),
        ("\ufeff\n".encode(), RunMessage.PREDICTION_TABLE_EMPTY),
        (b"a.png,cyst,cyst\n", RunMessage.PREDICTION_COLUMNS_MISSING),
        (b'{"a.png": {"label": "cyst"}}', RunMessage.PREDICTION_FORMAT_UNKNOWN),
        (b"PK\x03\x04 Excel or NumPy", RunMessage.PREDICTION_FORMAT_UNKNOWN),
        (b"file_name,label,prediction,score:a,score:b\n1,a,a,0,7,0,3\n", RunMessage.PREDICTION_ROWS_UNREADABLE),
        (b"file_name;label;prediction;score:a;score:b\n1;a;a;0,7;0,3\n", RunMessage.PREDICTION_SCORE_NOT_A_NUMBER),
        (b'file_name,label,prediction\n"1,a,a\n2,a,a\n', RunMessage.PREDICTION_ROWS_UNREADABLE),
    ],
)
def test_other_files_are_rejected(content, message, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with raises(message, path=tmp_path / "t.csv"):
        compare([tmp_path / "t.csv"])


@pytest.mark.parametrize("digits", [2, 3, 7])
def test_scores_of_many_classes_may_be_rounded(digits, tmp_path):
    """The sum of 22 scores with two digits is 0.97, for example."""
    scores = np.random.default_rng(0).dirichlet(np.ones(22), 40)
    columns = ["file_name", "label", "prediction", *(f"score:{i}" for i in range(22))]
    rows = [[i, "3", row.argmax(), *(f"{value:.{digits}f}" for value in row)] for i, row in enumerate(scores)]
    table = read_prediction_csv(write_table(tmp_path / "t.csv", rows, columns))
    np.testing.assert_allclose(table.class_scores.sum(1), 1)
    np.testing.assert_allclose(table.class_scores, scores, atol=0.01)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_parquet_tables_of_other_programs_are_those_of_csv(dtype, tmp_path):
    rows = [row | {"group": number // 5} for number, row in enumerate(make_rows(0.8, scores=True))]
    frame = pd.DataFrame(rows).astype({"label": "category"} | {f"score:{name}": dtype for name in NAMES})
    frame.to_parquet(tmp_path / "t.parquet")
    found, expected = load_run(tmp_path / "t.parquet"), load_run(write_rows(tmp_path / "t.csv", rows))
    assert (found.file_names, found.class_names) == (expected.file_names, expected.class_names)
    assert np.array_equal(found.folds[0].predicted, expected.folds[0].predicted)
    assert found.folds[0].groups.tolist() == expected.folds[0].groups.tolist()
    np.testing.assert_allclose(found.folds[0].class_scores, expected.folds[0].class_scores, atol=1e-3)
    with raises(RunMessage.PREDICTION_COLUMNS_MISSING, columns=["prediction"]):
        frame.drop(columns="prediction").to_parquet(tmp_path / "t.parquet")
        load_run(tmp_path / "t.parquet")


def test_the_documented_lines_convert_the_outputs_of_other_programs(tmp_path, monkeypatch):
    for name in ("polyp", "ring"):
        (tmp_path / "images" / "test" / name).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "images" / "test" / name / f"{number:02}.png").touch()
    expected = write_outputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / "statistics.md").read_text().partition("## Predictions of other programs")[2]
    ((_, code),) = [pair for pair in read_commands(section.partition("\n## ")[0]) if pair[0] == "python"]
    exec(code, {})
    programs = ("sklearn", "autogluon", "timm", "retfound")
    comparison = compare([tmp_path / f"{name}.csv" for name in programs])
    (table,) = comparison.tables
    assert len(table.comparisons) == 6 * 7 and all(entry["images"] == 24 for entry in table.comparisons)
    for run in comparison.runs:
        position = {tuple(name.split("/")[-2:]): index for index, name in enumerate(run.file_names[0])}
        rows = [position[tuple(name.split("/"))] for name in expected["filename"]]
        assert [run.class_names[i] for i in run.folds[0].labels[rows]] == list(expected["label"])
        if run.name != "sklearn":
            np.testing.assert_allclose(run.folds[0].class_scores[0, rows], expected[["polyp", "ring"]], atol=1e-6)


def test_other_encodings_are_rejected(tmp_path):
    with raises(FileMessage.NOT_UTF8):
        read_prediction_csv(write_table(tmp_path / "t.csv", ROWS[:2], encoding="latin-1"))


# Reports


def make_rows(right, images=60, seed=0, groups=False, scores=False):
    rng, rows = np.random.default_rng(seed), []
    for number in range(images):
        label = number % 3
        best = label if rng.random() < right else (label + 1) % 3
        row = {"file_name": f"{number}.png", "label": NAMES[label], "prediction": NAMES[best]}
        row |= {"group": f"p{number // 5}"} if groups else {}
        row |= {f"score:{name}": 0.8 if index == best else 0.1 for index, name in enumerate(NAMES)} if scores else {}
        rows.append(row)
    return rows


def write_rows(path, rows):
    return write_table(path, [list(row.values()) for row in rows], list(rows[0]))


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("groups", [False, True])
def test_tables_are_compared_by_image_in_any_order(groups, scores, tmp_path):
    rows = make_rows(0.6, groups=groups, scores=scores), make_rows(0.95, seed=1, groups=groups, scores=scores)
    paths = [write_rows(tmp_path / name / "predictions_test.csv", own) for name, own in zip("ab", rows)]
    (expected,) = compare([path.parent for path in paths]).tables
    assert {entry["units"] for entry in expected.comparisons} == {"groups" if groups else "images"}
    assert [row.method for row in expected.rows] == ["b", "a"] and expected.rows[0].scores["accuracy"].value > 90
    assert bool(expected.rows[0].diagnostic_accuracy.probabilities) == scores
    write_rows(paths[1], rows[1][::-1])
    (reordered,) = compare(paths).tables
    assert reordered.comparisons == expected.comparisons and reordered.title == "prediction tables: test"


def test_groups_of_one_table_are_used_for_all(tmp_path):
    paths = [
        write_rows(tmp_path / f"{name}.csv", make_rows(0.8, seed=seed, groups=groups))
        for name, seed, groups in (("without", 0, False), ("with", 1, True))
    ]
    (table,) = compare(paths).tables
    assert {entry["units"] for entry in table.comparisons} == {"groups"}


def test_a_class_that_is_only_predicted_by_one_table_is_a_class_of_both(tmp_path):
    first, second = make_rows(0.9), make_rows(0.9, seed=1)
    second[0]["prediction"] = "unknown lesion"
    paths = [write_rows(tmp_path / f"{number}.csv", rows) for number, rows in enumerate((first, second))]
    comparison = compare(paths)
    assert all(run.class_names == sorted([*NAMES, "unknown lesion"]) for run in comparison.runs)
    assert len(comparison.tables[0].comparisons) == 3
    sensitivity = comparison.runs[1].class_rates()["polyp"]["sensitivity"].value
    assert sensitivity == np.mean([row["prediction"] == "polyp" for row in second if row["label"] == "polyp"])


def test_tables_with_other_classes_are_not_compared(tmp_path):
    first, second = make_rows(0.9, scores=True), make_rows(0.9, seed=1)
    second[0]["prediction"] = "unknown lesion"
    paths = [write_rows(tmp_path / f"{number}.csv", rows) for number, rows in enumerate((first, second))]
    (table,) = compare(paths).tables
    assert table.differences[0]["different"] == "classes" and not table.comparisons


@pytest.mark.parametrize(
    "change, missing, extra",
    [
        (lambda rows: rows[:30], "30 (30.png, 31.png, 32.png, ...)", "0"),
        (lambda rows: [*rows, {**rows[0], "file_name": "new.png"}], "0", "1 (new.png)"),
        (
            lambda rows: [{**row, "file_name": f"x{row['file_name']}"} for row in rows],
            "60 (0.png, 1.png, 10.png, ...)",
            None,
        ),
    ],
)
def test_tables_of_other_images_are_rejected(change, missing, extra, tmp_path):
    rows = make_rows(0.9)
    paths = [write_rows(tmp_path / "first.csv", rows), write_rows(tmp_path / "second.csv", change(rows))]
    attributes = {"missing": missing} | ({"extra": extra} if extra else {})
    with raises(RunMessage.TABLE_OF_OTHER_IMAGES, path=paths[1], first=paths[0], total=60, **attributes):
        compare(paths)
    other_split = write_rows(tmp_path / "b" / "predictions_validation.csv", change(rows))
    assert len(compare([write_rows(tmp_path / "a" / "predictions_test.csv", rows), other_split]).tables) == 2


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"/data/kvasir/{name}",
        lambda name: f"./{name}",
        lambda name: f"C:\\images\\{name}".replace("/", "\\"),
        lambda name: f"../other root/{name}",
        lambda name: name.removeprefix("test/"),
        lambda name: unicodedata.normalize("NFD", name),
    ],
    ids=["absolute", "current folder", "Windows", "other root", "fewer folders", "macOS"],
)
def test_images_are_matched_whatever_folder_their_names_begin_with(rename, tmp_path):
    """Images of different folders have the same base names."""
    rows = [{**row, "file_name": f"test/{row['label']}/{i // 3}.png"} for i, row in enumerate(make_rows(0.8))]
    other = [{**row, "file_name": rename(row["file_name"])} for row in rows[::-1]]
    paths = [write_rows(tmp_path / f"{name}.csv", own) for name, own in (("first", rows), ("second", other))]
    comparison = compare(paths)
    assert all(entry["difference"] == 0 for entry in comparison.tables[0].comparisons)
    assert comparison.runs[0].file_names == comparison.runs[1].file_names


@pytest.mark.parametrize("name", ["validation/{}/{}", "{}/val/{}"])
def test_the_same_names_in_another_split_are_other_images(name, tmp_path):
    names = [(name, f"{number}.png") for number in range(20) for name in "ab"]
    match = match_names([name.format(*parts) for parts in names], [f"test/{folder}/{file}" for folder, file in names])
    if name.startswith("validation"):
        assert not match.positions and len(match.missing) == len(match.extra) == 40
    else:
        assert match_names(["a/val/1.png"], ["a/test/1.png"]).missing == ["a/test/1.png"]


def test_base_names_that_occur_twice_are_not_matched():
    assert match_names(["1.png", "2.png"], ["a/1.png", "b/1.png"]).missing == ["a/1.png", "b/1.png"]
    match = match_names(["1.png", "2.png"], ["b/2.png", "a/1.png"])
    assert match.is_complete and match.positions == {"b/2.png": 1, "a/1.png": 0}


def test_a_table_is_compared_with_a_run_of_the_same_images(finetuned, tmp_path):
    run = finetuned("mean")
    with open(run / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ("file_name", "label", "prediction")
    own = [[row[column] for column in columns] for row in rows[::-1]]
    comparison = compare([write_table(tmp_path / "other.csv", own, columns), run])
    (table,) = comparison.tables
    assert {row.method for row in table.rows} == {"other", run.name} and table.title.endswith("test")
    assert all(entry["difference"] == 0 for entry in table.comparisons) and len(table.comparisons) == 3
    with raises(RunMessage.TABLE_WITH_UNKNOWN_CLASS, names=["unknown lesion"], first=run):
        compare([write_table(tmp_path / "other.csv", [[*own[0][:2], "unknown lesion"], *own[1:]], columns), run])
    own[0][1] = next(name for name in comparison.runs[1].class_names if name != own[0][1])
    with raises(RunMessage.LABELS_DIFFER_BETWEEN_RUNS, image=own[0][0], second=own[0][1]):
        compare([write_table(tmp_path / "other.csv", own, columns), run])


def test_thresholds_are_chosen_on_the_validation_table(tmp_path):
    for split, seed in (("validation", 1), ("test", 2)):
        write_rows(tmp_path / "run" / f"predictions_{split}.csv", make_rows(0.8, seed=seed, scores=True))
    run = load_run(tmp_path / "run")
    assert (run.split, run.threshold_split) == ("test", "validation")
    row = compare([tmp_path / "run"], positive=["polyp"], operating_points=["youden"]).tables[0].rows[0]
    (point,) = [p for p in row.diagnostic_accuracy.one_vs_rest[0].operating_points if p.rule == "youden"]
    assert point.threshold_split == "validation"
    assert load_run(tmp_path / "run", "validation").threshold_predictions is None
    with raises(RunMessage.SPLIT_NOT_EVALUATED, split="selection", available=["test", "validation"]):
        load_run(tmp_path / "run", "selection")
    with raises(RunMessage.SPLIT_NOT_EVALUATED, split="test", available=["validation"]):
        load_run(tmp_path / "run" / "predictions_validation.csv", "test")


def test_the_command_reports_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("mine.csv", 0), ("theirs.csv", 1)):
        write_rows(tmp_path / name, make_rows(0.8, seed=seed, groups=True, scores=True))
    assert main(["report", "mine.csv", "theirs.csv"]) == 0 and main(["report", "mine.csv"]) == 0
    assert "mine" in capsys.readouterr().out
    (table,) = json.loads((tmp_path / "report" / "report.json").read_text())["tables"]
    assert [row["method"] for row in table["rows"]] == ["mine"] and table["rows"][0]["scores"]["accuracy"]["interval"]

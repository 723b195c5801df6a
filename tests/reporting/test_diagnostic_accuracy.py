"""Reports of diagnostic accuracy, study descriptions, checklists and PDF pages, from a run of grades with patients."""

import csv
import json
import re
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score
from support.cli_process import run_cli
from support.messages import raises, shows
from support.stub_figures import draw_real_figures

import hf_mae
from hf_mae.cli.main import main
from hf_mae.data.messages import DataMessage
from hf_mae.evaluation.messages import EvaluationMessage
from hf_mae.reporting.checklists import CHECKLIST_TITLES, CHECKLISTS_CSV, build_checklist
from hf_mae.reporting.messages import ReportingMessage
from hf_mae.reporting.pdf_summary import MAX_ERROR_EXAMPLES, build_pdf_summary
from hf_mae.reporting.renderers import pdf
from hf_mae.reporting.text_templates import load_templates
from hf_mae.runs.completed_run import Note, NoteCode
from hf_mae.runs.load_run import load_run
from hf_mae.runs.record_io import read_record
from hf_mae.settings.messages import SettingsMessage

GRADES = [f"Mayo {grade}" for grade in range(4)]
MORE = ("device", "age", "sex")


@pytest.fixture(scope="module")
def colitis(tmp_path_factory):
    """36 patients with ten images each; the colour of an image depends on its grade; one image is unreadable."""
    root = tmp_path_factory.mktemp("colitis")
    (root / "images").mkdir()
    rng, rows = np.random.default_rng(0), []
    for patient in range(36):
        split = "train" if patient < 18 else "validation" if patient < 27 else "test"
        columns = [rng.choice(["Olympus", "Fuji"]), int(rng.integers(20, 80)), rng.choice(["f", "m"])]
        for number in range(10):
            grade = int(np.clip(patient % 4 + rng.integers(-1, 2), 0, 3))
            pixels = rng.normal([60 + 45 * grade, 120, 200 - 40 * grade], 60, (32, 32, 3)).clip(0, 255).astype("uint8")
            name = f"images/{patient}_{number}.png"
            Image.fromarray(pixels).save(root / name)
            rows.append([name, GRADES[grade], split, f"p{patient}", *columns])
    (root / rows[0][0]).write_bytes(b"broken")
    with open(root / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "label", "split", "group", *MORE], *rows])
    return root


@pytest.fixture(scope="module")
def graded(tiny_pth, colitis, tmp_path_factory):
    """A run with a loss and a metric for grades."""
    out = tmp_path_factory.mktemp("graded") / "run"
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", colitis, "--output_dir", out]
    argv += ["--class_order", "sorted", "--loss", "cdw", "--metric_for_best_model", "mae", "--on_bad_image", "skip"]
    argv += ["--num_train_epochs", "3", "--warmup_epochs", "1", "--base_learning_rate", "0.02"]
    done = run_cli(*argv, "--per_device_train_batch_size", "32")
    assert "one-off accuracy" in done.stdout
    return out


def test_grades_have_their_own_loss_selection_and_scores(graded):
    record = read_record(graded)
    assert record.ordered and record.data.class_order == ["sorted"] and record.classes == GRADES
    state = json.loads(next(graded.glob("trainer_state.json")).read_text())
    errors = [log["eval_mae"] for log in state["log_history"] if "eval_mae" in log]
    assert len(errors) == 3 and state["best_metric"] == min(errors), "the smallest error is the best"
    assert {"qwk", "mae", "one_off_accuracy"} <= set(record.scores["test"])
    assert "QWK" in (graded / "README.md").read_text()


@pytest.mark.parametrize(
    "argv, message, attributes",
    [
        (["--loss", "cdw"], SettingsMessage.LOSS_NEEDS_ORDERED_CLASSES, {"loss": "cdw"}),
        (["--metric_for_best_model", "qwk"], SettingsMessage.METRIC_NEEDS_ORDERED_CLASSES, {"metric": "qwk"}),
        (
            ["--class_order", "Mayo 0", "Mayo 1"],
            DataMessage.CLASS_ORDER_DIFFERS,
            {"class_order": ["Mayo 0", "Mayo 1"], "names": GRADES},
        ),
        (
            ["--class_order", "sorted", "--loss", "hinge"],
            SettingsMessage.INVALID_CHOICE,
            {"value": "hinge", "name": "loss"},
        ),
    ],
)
def test_losses_and_metrics_for_grades_need_ordered_classes(
    argv, message, attributes, tiny_pth, colitis, tmp_path, capsys
):
    base = ["finetune", "--model_name_or_path", str(tiny_pth), "--data_dir", str(colitis), "--on_bad_image", "skip"]
    assert main([*base, "--output_dir", str(tmp_path / "out"), *argv]) in (1, 2)
    assert shows(capsys.readouterr().err, message, **attributes)


@pytest.fixture(scope="module")
def report(graded, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    argv = ["--positive", "Mayo 2", "Mayo 3", "--operating_point", "sensitivity=0.9", "threshold=0.5"]
    argv += ["--prevalence", "0.2", "--subgroups", "device", "age:40,60", "sex", "--checklist", "claim", "--pdf"]
    with draw_real_figures():
        done = run_cli("report", graded, "--output_dir", out, *argv)
    return out, done.stdout, json.loads((out / "report.json").read_text())["tables"][0]


def test_a_threshold_is_chosen_on_validation_and_applied_to_test(graded, report):
    """The threshold and the rates are computed here from the two prediction files."""
    _, text, table = report
    (result,) = table["rows"][0]["diagnostic_accuracy"]["one_vs_rest"]
    point = next(
        p for p in result["operating_points"] if (p["rule"], p["aggregation"]) == ("sensitivity=0.9", "images")
    )

    def read_scores(split):
        with open(graded / f"predictions_{split}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        scores = np.array([float(row["score:Mayo 2"]) + float(row["score:Mayo 3"]) for row in rows])
        return scores, np.array([row["label"] in GRADES[2:] for row in rows])

    (validation_scores, validation_positive), (scores, positive) = read_scores("validation"), read_scores("test")
    (threshold,) = point["thresholds"]
    assert point["threshold_split"] == "validation"
    positive_scores = validation_scores[validation_positive]
    assert (positive_scores >= threshold - 1e-8).mean() >= 0.9
    expected = np.sort(positive_scores)[::-1][int(np.ceil(0.9 * validation_positive.sum())) - 1]
    assert threshold == pytest.approx(expected, abs=1e-8)
    (tn, fp), (fn, tp) = confusion_matrix(positive, scores >= threshold - 1e-8)
    assert point["rates"]["sensitivity"]["value"] == pytest.approx(tp / (tp + fn))
    assert point["rates"]["specificity"]["value"] == pytest.approx(tn / (tn + fp))
    assert result["auroc"]["images"]["value"] == pytest.approx(roc_auc_score(positive, scores), abs=1e-6)
    assert set(result["auroc"]) == {"images", "mean", "worst"} and result["target_prevalence"] == 0.2
    assert "Mayo 2 or Mayo 3 against the rest" in text and "patients, their worst image" in text


def test_subgroups_are_reported_with_their_patients(report):
    _, text, table = report
    by_column = {entry["column"]: entry for entry in table["rows"][0]["diagnostic_accuracy"]["subgroups"]}
    assert list(by_column) == ["device", "age", "sex"]
    for entry in by_column.values():
        assert sum(level["images"] for level in entry["levels"]) == 90
        assert sum(level["count"] for level in entry["levels"]) == 9
    assert [level["value"] for level in by_column["age"]["levels"]] == ["below 40", "40 to below 60", "60 and above"]
    tests = [test for entry in by_column.values() for test in entry["tests"]]
    assert tests and all(test["p_value"] <= test["p_adjusted"] <= 1 for test in tests)
    assert "Test of no difference between the subgroups" in text


def test_a_small_subgroup_has_no_scores(graded):
    comparison = hf_mae.compare([graded], subgroups=["device"], min_subgroup=60)
    levels = comparison.tables[0].rows[0].diagnostic_accuracy.subgroups[0].levels
    assert [level.scores is None for level in levels] == [level.images < 60 for level in levels]
    assert any(level.images < 60 for level in levels) and "too few" in comparison.summary()


@pytest.mark.parametrize(
    "options, message, attributes",
    [
        ({"positive": ["Mayo 5"]}, EvaluationMessage.UNKNOWN_POSITIVE_CLASS, {"name": "Mayo 5", "names": GRADES}),
        ({"positive": GRADES}, EvaluationMessage.ALL_CLASSES_POSITIVE, {}),
        ({"prevalence": 20.0, "positive": GRADES[:1]}, SettingsMessage.INVALID_PREVALENCE, {"value": 20.0}),
        ({"ppv_at_recall": 90}, SettingsMessage.OUT_OF_BOUNDS, {"value": 90.0}),
        ({"prevalence": 0.2}, ReportingMessage.PREVALENCE_NOT_USED, {}),
        (
            {"subgroups": ["devices"]},
            ReportingMessage.UNKNOWN_COLUMN,
            {"name": "devices", "suggestion": " (did you mean device?)"},
        ),
        ({"subgroups": ["age:old"]}, ReportingMessage.INVALID_BANDS, {"text": "age:old", "name": "age"}),
        ({"subgroups": ["age:40-60"]}, ReportingMessage.INVALID_BANDS, {"text": "age:40-60", "name": "age"}),
        ({"subgroups": ["age:40,inf"]}, ReportingMessage.INVALID_BANDS, {"text": "age:40,inf", "name": "age"}),
        ({"subgroups": ["file_name"]}, EvaluationMessage.TOO_MANY_SUBGROUPS, {"column": "file_name"}),
        ({"subgroups": ["device"], "manifest": "nowhere.csv"}, ReportingMessage.NO_MANIFEST, {}),
        ({"operating_points": ["sens=0.9"]}, EvaluationMessage.INVALID_OPERATING_POINT, {"text": "sens=0.9"}),
    ],
)
def test_options_that_do_not_fit_are_rejected(options, message, attributes, graded):
    with raises(message, **attributes):
        hf_mae.compare([graded], **options)


def test_without_another_split_there_is_no_operating_point(graded):
    comparison = hf_mae.compare([graded], split="validation", operating_points=["sensitivity=0.9", "threshold=0.5"])
    results = comparison.tables[0].rows[0].diagnostic_accuracy
    assert any("No operating point" in note for note in results.notes)
    rules = {point.rule for result in results.one_vs_rest for point in result.operating_points}
    assert rules == {"predicted class", "threshold=0.5"}
    assert len(results.one_vs_rest) == 4, "each class against the rest"


def test_external_validation(graded, colitis, tmp_path):
    """Other classes, joined by a class map: excluded images are counted, and thresholds come from the validation split
    of the training run."""
    with open(colitis / "manifest.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    names = {"Mayo 0": "remission", "Mayo 1": "remission", "Mayo 2": "active", "Mayo 3": "severe"}
    lines = ["file_name,label,split,group"]
    lines += [f"{colitis / row['file_name']},{names[row['label']]},test,{row['group']}" for row in rows]
    lines.append(lines[1].replace("remission", "unclear").replace("active", "unclear").replace("severe", "unclear"))
    del lines[1]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    pairs = "data,model\nremission,Mayo 0\nremission,Mayo 1\nactive,Mayo 2\nsevere,Mayo 3\nunclear,\n"
    (tmp_path / "map.csv").write_text(pairs)
    argv = ["--model_name_or_path", graded, "--data_dir", tmp_path, "--split", "test", "--output_dir", tmp_path / "out"]
    run_cli("evaluate", *argv, "--class_map", tmp_path / "map.csv")
    record = read_record(tmp_path / "out", "results_test.json")
    assert record.classes == ["remission", "Mayo 2", "Mayo 3"] and record.unmapped_images == {"unclear": 1}
    assert record.ordered and record.images == {"test": 89}
    options = {"positive": ["Mayo 2", "Mayo 3"], "operating_points": ["sensitivity=0.9"]}
    (row,) = hf_mae.compare([tmp_path / "out"], split="test", **options).tables[0].rows
    assert any("excluded images of other classes: 1 of unclear" in note for note in row.notes)
    point = row.diagnostic_accuracy.one_vs_rest[0].operating_points[1]
    (row,) = hf_mae.compare([graded], **options).tables[0].rows
    expected = row.diagnostic_accuracy.one_vs_rest[0].operating_points[1]
    assert point.threshold_split == "validation" and point.thresholds == pytest.approx(expected.thresholds, abs=1e-7)
    done = run_cli("evaluate", *argv[:-1], tmp_path / "no", "--temperature", "1.5", status=1)
    assert shows(done.stderr, DataMessage.CLASSES_NOT_IN_CHECKPOINT)


# The study


def test_the_study_describes_images_and_methods(graded, report):
    out, _, _ = report
    text = (out / "study.md").read_text()
    assert "| found | 360 |" in text and "| excluded: unreadable | 1 | images/0_0.png |" in text
    assert "| training | 179 | 18 patients or videos |" in text and "| device: Fuji |" in text
    assert "class distance weighted cross-entropy [@polat2022cdw]" in text and "at 32 x 32 pixels" in text
    assert "best MAE on the validation split" in text
    tex = (out / "study.tex").read_text()
    cited = set(re.findall(r"@\w+\{(\w+),", (out / "study.bib").read_text()))
    assert {key for keys in re.findall(r"\\cite\{([^}]+)\}", tex) for key in keys.split(",")} == cited
    assert tex.count("{") == tex.count("}") and "[@" not in tex
    for name in ("flow.png", "flow.pdf", "decision_curve.png", "decision_curve.pdf"):
        assert (out / "figures" / name).stat().st_size > 3000


def test_docx_files_can_be_opened(report):
    import docx

    out, _, _ = report
    words = docx.Document(out / "report.docx")
    assert any("Mayo 2 or Mayo 3 against the rest" in paragraph.text for paragraph in words.paragraphs)
    cells = [cell.text for table in words.tables for row in table.rows for cell in row.cells]
    assert "macro F1" in cells and "Mayo 3" in cells and len(words.inline_shapes) == 1
    with zipfile.ZipFile(out / "study.docx") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("name", CHECKLIST_TITLES)
def test_checklists_are_filled_in_from_the_record(name, graded):
    items = build_checklist(load_run(graded), name)
    assert len(items) == {"claim": 44, "tripod-ai": 52, "stard-ai": 42}[name]
    assert len({item.number for item in items}) == len(items)
    answered = [item for item in items if item.answer]
    assert len(answered) > 15 and all(item.source for item in answered)
    assert any(item.answer is None for item in items)
    text = " ".join(item.answer for item in answered)
    assert "1 image: unreadable" in text and "179" in text
    assert name == "stard-ai" or "device, sex" in text


def test_every_answer_is_used():
    with open(CHECKLISTS_CSV, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["answer"] for row in rows} - {"author"} == load_templates("checklist_answers").keys()
    assert {row["checklist"] for row in rows} == set(CHECKLIST_TITLES)


def test_a_record_without_a_cohort_has_no_study(graded, tmp_path):
    record = json.loads((graded / "all_results.json").read_text())
    del record["study"]
    (tmp_path / "all_results.json").write_text(json.dumps(record))
    for name in ("predictions_test.csv", "predictions_validation.csv"):
        (tmp_path / name).write_bytes((graded / name).read_bytes())
    assert main(["report", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "study.md").exists()
    with raises(ReportingMessage.NO_COHORT_IN_RECORD, folder=tmp_path):
        build_checklist(load_run(tmp_path), "claim")


def test_a_notebook_shows_a_comparison(graded):
    page = hf_mae.compare([graded])._repr_html_()
    assert page.count("<table>") == page.count("</table>") > 2 and "QWK" in page


def draw_page(run):
    """Draws the PDF page of a run, as a figure."""
    (page,) = pdf.draw(build_pdf_summary(run))
    return page


def test_the_pdf_page_has_the_numbers_of_the_predictions(graded, report, colitis):
    """The numbers are counted here from the prediction file; the images are the errors in order of confidence."""
    out, text, table = report
    assert "page.pdf" in text
    content = (out / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"/Count 1" in content
    page = draw_page(load_run(graded))
    texts = [item.get_text() for item in page.findobj(Text)]
    for score in (score for name, score in table["rows"][0]["scores"].items() if name not in ("mae",)):
        low, high = score["interval"]
        assert f"{score['value']:.2f} [{low:.1f}, {high:.1f}]" in texts
    with open(graded / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    errors = sorted((row for row in rows if row["label"] != row["prediction"]), key=lambda row: -float(row["score"]))
    titles = [f"{row['label']}\nas {row['prediction']}, score {100 * float(row['score']):.0f} %" for row in errors]
    images = [axes for axes in page.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in images] == titles[:MAX_ERROR_EXAMPLES]
    first = np.asarray(Image.open(colitis / errors[0]["file_name"]))
    assert np.array_equal(images[0].images[0].get_array(), first)
    pair, count = Counter((row["label"], row["prediction"]) for row in errors).most_common(1)[0]
    total = sum(row["label"] == pair[0] for row in rows)
    flat = " ".join(" ".join(texts).split())
    assert f"{count} of {total} {pair[0]} ({100 * count / total:.0f} %) as {pair[1]}" in flat
    assert "90 images of the test split of 9 patients or videos" in flat


def test_the_pdf_page_reports_missing_images(graded):
    run = load_run(graded)
    moved = replace(run, source=replace(run.source, data_dir="/moved"), notes=[Note(NoteCode.SELECTION_UNKNOWN)] * 100)
    texts = [item.get_text() for item in draw_page(moved).findobj(Text)]
    assert "The images are not in /moved." in texts
    assert any("the rest is in report.md" in " ".join(text.split()) for text in texts)

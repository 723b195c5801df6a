"""What a clinical reader asks, from a real run of grades with patients: every way from the data to the documents."""

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

import hf_mae
from hf_mae.cli.main import main
from hf_mae.errors import UsageError
from hf_mae.reporting import pdf_summary
from hf_mae.reporting.bibliography import format_bibtex
from hf_mae.reporting.checklists import ANSWER_FUNCTIONS, CHECKLIST_TITLES, CHECKLISTS_CSV, build_checklist
from hf_mae.reporting.render import (
    BulletList,
    Cell,
    Heading,
    Paragraph,
    TableBlock,
    render_html,
    render_latex,
    render_markdown,
)
from hf_mae.reporting.study_description import build_study_description
from hf_mae.runs.load_run import load_run
from hf_mae.runs.record_io import read_record

GRADES = [f"Mayo {grade}" for grade in range(4)]
MORE = ("device", "age", "sex")


@pytest.fixture(scope="module")
def colitis(tmp_path_factory):
    """36 patients with ten images each, in grades that their colour tells; one image is broken."""
    root = tmp_path_factory.mktemp("colitis")
    (root / "images").mkdir()
    rng, rows = np.random.default_rng(0), []
    for patient in range(36):
        split = "train" if patient < 18 else "validation" if patient < 27 else "test"
        known = [rng.choice(["Olympus", "Fuji"]), int(rng.integers(20, 80)), rng.choice(["f", "m"])]
        for number in range(10):
            grade = int(np.clip(patient % 4 + rng.integers(-1, 2), 0, 3))
            pixels = rng.normal([60 + 45 * grade, 120, 200 - 40 * grade], 60, (32, 32, 3)).clip(0, 255).astype("uint8")
            name = f"images/{patient}_{number}.png"
            Image.fromarray(pixels).save(root / name)
            rows.append([name, GRADES[grade], split, f"p{patient}", *known])
    (root / rows[0][0]).write_bytes(b"broken")
    with open(root / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file_name", "label", "split", "group", *MORE], *rows])
    return root


@pytest.fixture(scope="module")
def graded(tiny_pth, colitis, tmp_path_factory):
    """A run of grades, with the loss and the metric of grades."""
    out = tmp_path_factory.mktemp("graded") / "run"
    argv = ["finetune", "--model_name_or_path", tiny_pth, "--data_dir", colitis, "--output_dir", out]
    argv += ["--class_order", "sorted", "--loss", "cdw", "--metric_for_best_model", "mae", "--on_bad_image", "skip"]
    argv += ["--num_train_epochs", "3", "--warmup_epochs", "1", "--base_learning_rate", "0.02"]
    done = run_cli(*argv, "--per_device_train_batch_size", "32")
    assert "one-off accuracy" in done.stdout
    return out


def test_grades_are_trained_chosen_and_scored_as_such(graded):
    record = read_record(graded)
    assert record.ordered and record.data.class_order == ["sorted"] and record.classes == GRADES
    state = json.loads(next(graded.glob("trainer_state.json")).read_text())
    errors = [log["eval_mae"] for log in state["log_history"] if "eval_mae" in log]
    assert len(errors) == 3 and state["best_metric"] == min(errors), "the smallest is the best"
    assert {"qwk", "mae", "one_off_accuracy"} <= set(record.scores["test"])
    assert "QWK" in (graded / "README.md").read_text()


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--loss", "cdw"], "--loss cdw is for grades: tell their order with --class_order"),
        (["--metric_for_best_model", "qwk"], "--metric_for_best_model qwk is for grades"),
        (
            ["--class_order", "Mayo 0", "Mayo 1"],
            "--class_order names Mayo 0, Mayo 1, and .* has the classes Mayo 0, Mayo",
        ),
        (["--class_order", "sorted", "--loss", "hinge"], "it takes one of cross_entropy, focal, cdw, emd"),
    ],
)
def test_grades_that_are_not_told(argv, message, tiny_pth, colitis, tmp_path, capsys):
    base = ["finetune", "--model_name_or_path", str(tiny_pth), "--data_dir", str(colitis), "--on_bad_image", "skip"]
    assert main([*base, "--output_dir", str(tmp_path / "out"), *argv]) in (1, 2)
    assert re.search(message, capsys.readouterr().err)


@pytest.fixture(scope="module")
def asked(graded, tmp_path_factory):
    out = tmp_path_factory.mktemp("asked")
    argv = ["--positive", "Mayo 2", "Mayo 3", "--operating_point", "sensitivity=0.9", "threshold=0.5"]
    argv += ["--prevalence", "0.2", "--subgroups", "device", "age:40,60", "sex", "--checklist", "claim", "--pdf"]
    done = run_cli("report", graded, "--output_dir", out, *argv)
    return out, done.stdout, json.loads((out / "report.json").read_text())["tables"][0]


def test_an_operating_point_is_chosen_on_validation_and_frozen(graded, asked):
    """By hand from the two files of predictions."""
    _, text, table = asked
    (side,) = table["rows"][0]["clinical"]["sides"]
    point = next(p for p in side["points"] if (p["rule"], p["of"]) == ("sensitivity=0.9", "images"))

    def rows_of(split):
        with open(graded / f"predictions_{split}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        scores = np.array([float(row["score:Mayo 2"]) + float(row["score:Mayo 3"]) for row in rows])
        return scores, np.array([row["label"] in GRADES[2:] for row in rows])

    (chosen, truth), (scores, positive) = rows_of("validation"), rows_of("test")
    (threshold,) = point["thresholds"]
    assert point["chosen_on"] == "validation" and (chosen[truth] >= threshold - 1e-8).mean() >= 0.9
    assert threshold == pytest.approx(np.sort(chosen[truth])[::-1][int(np.ceil(0.9 * truth.sum())) - 1], abs=1e-8)
    (tn, fp), (fn, tp) = confusion_matrix(positive, scores >= threshold - 1e-8)
    assert point["rates"]["sensitivity"]["value"] == pytest.approx(tp / (tp + fn))
    assert point["rates"]["specificity"]["value"] == pytest.approx(tn / (tn + fp))
    assert side["auroc"]["images"]["value"] == pytest.approx(roc_auc_score(positive, scores), abs=1e-6)
    assert set(side["auroc"]) == {"images", "mean", "worst"} and side["at_prevalence"] == 0.2
    assert "Mayo 2 or Mayo 3 against the rest" in text and "patients, their worst image" in text


def test_subgroups_are_told_with_their_patients(asked):
    _, text, table = asked
    by_column = {found["column"]: found for found in table["rows"][0]["clinical"]["subgroups"]}
    assert list(by_column) == ["device", "age", "sex"]
    for found in by_column.values():
        assert sum(part["images"] for part in found["parts"]) == 90
        assert sum(part["count"] for part in found["parts"]) == 9
    assert [part["value"] for part in by_column["age"]["parts"]] == ["below 40", "40 to below 60", "60 and above"]
    tests = [test for found in by_column.values() for test in found["tests"]]
    assert tests and all(test["p_value"] <= test["p_adjusted"] <= 1 for test in tests)
    assert "Test of no difference between the parts" in text


def test_a_subgroup_that_is_too_small_has_no_scores(graded):
    found = hf_mae.compare([graded], subgroups=["device"], min_subgroup=60)
    parts = found.tables[0].rows[0].diagnostic_accuracy.subgroups[0].levels
    assert [part.scores is None for part in parts] == [part.images < 60 for part in parts]
    assert any(part.images < 60 for part in parts) and "too few" in found.summary()


@pytest.mark.parametrize(
    "more, message",
    [
        ({"positive": ["Mayo 5"]}, r"has no class Mayo 5 \(did you mean Mayo \d\?\): --positive takes some of Mayo 0"),
        ({"positive": GRADES}, "--positive names every class"),
        ({"prevalence": 20.0}, "prevalence lies between 0 and 1, not 20"),
        ({"subgroups": ["devices"]}, r"no column devices \(did you mean device\?\)"),
        ({"subgroups": ["age:old"]}, "bands are numbers, as in age:50,65"),
        ({"subgroups": ["file_name"]}, "file_name makes no subgroups: it has 90 values"),
        ({"subgroups": ["device"], "manifest": "nowhere.csv"}, "name one with --manifest"),
        ({"operating_points": ["sens=0.9"]}, "an operating point is"),
    ],
)
def test_what_cannot_be_asked(more, message, graded):
    with pytest.raises(UsageError, match=message):
        hf_mae.compare([graded], **more)


def test_without_another_split_there_is_no_operating_point(graded):
    found = hf_mae.compare([graded], split="validation", operating_points=["sensitivity=0.9", "threshold=0.5"])
    clinical = found.tables[0].rows[0].diagnostic_accuracy
    assert any("No operating point" in note for note in clinical.notes)
    assert {point.rule for side in clinical.one_vs_rest for point in side.operating_points} == {
        "predicted class",
        "threshold=0.5",
    }
    assert len(clinical.one_vs_rest) == 4, "each class against the rest"


def test_external_validation(graded, colitis, tmp_path):
    """Other classes, joined by a map: what is left out is counted, and thresholds are those of the run's validation."""
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
    found = hf_mae.compare(
        [tmp_path / "out"], positive=["Mayo 2", "Mayo 3"], operating_points=["sensitivity=0.9"], split="test"
    )
    (row,) = found.tables[0].rows
    assert any("images of other classes left out: 1 of unclear" in note for note in row.notes)
    point = row.diagnostic_accuracy.one_vs_rest[0].operating_points[1]
    own = hf_mae.compare([graded], positive=["Mayo 2", "Mayo 3"], operating_points=["sensitivity=0.9"])
    same = own.tables[0].rows[0].diagnostic_accuracy.one_vs_rest[0].operating_points[1]
    assert point.threshold_split == "validation" and point.thresholds == pytest.approx(same.thresholds, abs=1e-7)
    done = run_cli("evaluate", *argv[:-1], tmp_path / "no", "--temperature", "1.5", status=1)
    assert "classes that the checkpoint does not know: active, remission" in done.stderr


# The study


def test_a_study_writes_itself_down(graded, asked):
    out, _, _ = asked
    text = (out / "study.md").read_text()
    assert "| found | 360 |" in text and "| left out: unreadable | 1 | images/0_0.png |" in text
    assert "| training | 179 | 18 patients or videos |" in text and "| device: Fuji |" in text
    assert "class distance weighted cross-entropy [@polat2022cdw]" in text and "at 32 x 32 pixels" in text
    assert "best mae on the validation split" in text
    tex = (out / "study.tex").read_text()
    cited = set(re.findall(r"@\w+\{(\w+),", (out / "study.bib").read_text()))
    assert {key for keys in re.findall(r"\\cite\{([^}]+)\}", tex) for key in keys.split(",")} == cited
    assert tex.count("{") == tex.count("}") and "[@" not in tex
    for name in ("flow.png", "flow.pdf", "decision_curve.png", "decision_curve.pdf"):
        assert (out / name).stat().st_size > 3000


@pytest.mark.parametrize(
    "settings, sentence, cited",
    [
        (
            {"loss": "focal", "focal_gamma": 1.5},
            "; the loss was the focal loss [@lin2017focal] with a gamma of 1.5 with label smoothing of 0.1 (seed",
            "lin2017focal",
        ),
        (
            {"loss": "cross_entropy", "smoothing": 0, "logit_adjustment": 1.0},
            ", with logits adjusted by the classes' shares [@menon2021logit] (tau 1) (seed",
            "menon2021logit",
        ),
        (
            {"loss": "cross_entropy", "sampling": "square_root", "class_weights": [1.0, 2.0]},
            ", with class weights (1.0 2.0), in epochs of square-root sampling [@kang2020decoupling]",
            "kang2020decoupling",
        ),
    ],
)
def test_a_study_says_what_was_done_for_rare_classes(graded, settings, sentence, cited):
    run = load_run(graded)
    record = replace(run.record, settings={**run.record.settings, **settings})
    blocks, keys = build_study_description(replace(run, record=record))
    assert any(sentence in block.text for block in blocks if isinstance(block, Paragraph)) and cited in keys
    assert all(f"{{{key}," in format_bibtex(keys, None) for key in keys)


def test_documents_open_elsewhere(asked):
    import docx

    out, _, _ = asked
    words = docx.Document(out / "report.docx")
    assert any("Mayo 2 or Mayo 3 against the rest" in paragraph.text for paragraph in words.paragraphs)
    cells = [cell.text for table in words.tables for row in table.rows for cell in row.cells]
    assert "macro F1" in cells and "Mayo 3" in cells and len(words.inline_shapes) == 1
    with zipfile.ZipFile(out / "study.docx") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("name", CHECKLIST_TITLES)
def test_checklists_are_filled_in_as_far_as_the_record_goes(name, graded):
    items = build_checklist(load_run(graded), name)
    assert len(items) == {"claim": 44, "tripod-ai": 52, "stard-ai": 42}[name]
    assert len({item.number for item in items}) == len(items)
    answered = [item for item in items if item.answer]
    assert len(answered) > 15 and all(item.source for item in answered)
    assert any(item.answer is None for item in items)
    told = " ".join(item.answer for item in answered)
    assert "1 image: unreadable" in told and "device, sex" in told and "179" in told


def test_every_answer_is_asked_for():
    with open(CHECKLISTS_CSV, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["answer"] for row in rows} - {"author"} == set(ANSWER_FUNCTIONS)
    assert {row["checklist"] for row in rows} == set(CHECKLIST_TITLES)


def test_a_run_of_before_has_no_study(graded, tmp_path):
    """And a sentence says so."""
    record = json.loads((graded / "all_results.json").read_text())
    del record["study"]
    (tmp_path / "all_results.json").write_text(json.dumps(record))
    for name in ("predictions_test.csv", "predictions_validation.csv"):
        (tmp_path / name).write_bytes((graded / name).read_bytes())
    assert main(["report", str(tmp_path), "--output_dir", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "study.md").exists()
    with pytest.raises(UsageError, match="was recorded by an earlier version"):
        build_checklist(load_run(tmp_path), "claim")


# Documents


def test_a_document_is_the_same_in_every_form():
    table = TableBlock(
        ["a|b", "n"],
        [[Cell("x_1", bold=True, footnote_marks="a"), "50 %"], ["<i>", "2"]],
        "lr",
        "50 % of A & B:",
        {"a": "N"},
    )
    blocks = [Heading("H & M"), Paragraph("See [@holm1979simple; @he2022mae]."), BulletList(["one"]), table]
    text = render_markdown(blocks)
    assert "## H & M" in text and r"| a\|b | n |" in text and "| **x_1** (a) | 50 % |" in text and "&lt;i>" in text
    tex = render_latex(blocks)
    assert r"\cite{holm1979simple,he2022mae}" in tex and r"\textbf{x\_1}$^{\mathrm{a}}$ & 50 \% \\" in tex
    assert r"\caption{50 \% of A \& B:}" in tex
    page = render_html(blocks)
    assert "<td><b>x_1</b><sup>a</sup></td><td>50 %</td>" in page and "&lt;i&gt;" in page
    long = render_latex([TableBlock(["n"], [[str(i)] for i in range(40)], "l")])
    assert "longtable" in long and "tabular" not in long


def test_a_notebook_shows_a_comparison(graded):
    page = hf_mae.compare([graded])._repr_html_()
    assert page.count("<table>") == page.count("</table>") > 2 and "QWK" in page


def test_references_are_whole():
    text = format_bibtex(["he2022mae", "he2022mae", "holm1979simple"], "A data set, 2020")
    assert text.count("@inproceedings{he2022mae,") == 1 and "note = {A data set, 2020}" in text
    assert text.count("{") == text.count("}")


def test_one_page_to_hand_out(graded, asked, colitis, monkeypatch):
    """Its numbers are those of the predictions, counted here by hand, and its pictures the mistakes in their order."""
    out, text, table = asked
    assert "page.pdf" in text
    written = (out / "page.pdf").read_bytes()
    assert written.startswith(b"%PDF") and b"/Count 1" in written
    drawn = []
    monkeypatch.setattr(pdf_summary, "save_figure", lambda figure, path, **more: drawn.append(figure))
    pdf_summary.write_pdf_summary(load_run(graded), out / "page.pdf")
    said = [item.get_text() for item in drawn[0].findobj(Text)]
    for score in (found for name, found in table["rows"][0]["scores"].items() if name not in ("mae",)):
        low, high = score["interval"]
        assert f"{score['mean']:.1f}   ({low:.1f} to {high:.1f})" in said
    with open(graded / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = sorted((row for row in rows if row["label"] != row["prediction"]), key=lambda row: -float(row["score"]))
    titles = [f"{row['label']}\nfor {row['prediction']}, {100 * float(row['score']):.0f} % sure" for row in wrong]
    pictures = [axes for axes in drawn[0].axes if axes.images]
    assert [axes.get_title(loc="left") for axes in pictures] == titles[: pdf_summary.MAX_ERROR_EXAMPLES]
    first = np.asarray(Image.open(colitis / wrong[0]["file_name"]))
    assert np.array_equal(pictures[0].images[0].get_array(), first)
    pair, count = Counter((row["label"], row["prediction"]) for row in wrong).most_common(1)[0]
    of = sum(row["label"] == pair[0] for row in rows)
    flat = " ".join(" ".join(said).split())
    assert f"{count} of {of} {pair[0]} ({100 * count / of:.0f} %) for {pair[1]}" in flat
    assert "90 images of the test split of 9 patients or videos" in flat


def test_a_page_without_its_images_says_so(graded, monkeypatch):
    run = load_run(graded)
    drawn = []
    monkeypatch.setattr(pdf_summary, "save_figure", lambda figure, path, **more: drawn.append(figure))
    moved = replace(run, source=replace(run.source, data_dir="/moved"), notes=["A long note. " * 200])
    pdf_summary.write_pdf_summary(moved, graded / "page.pdf")
    said = [item.get_text() for item in drawn[0].findobj(Text)]
    assert "Their images are not in /moved." in said
    assert any("the rest is in report.md" in text for text in said)

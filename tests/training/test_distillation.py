"""Knowledge distillation: the loss, and distilling an ensemble into one stock model."""

import logging

import numpy as np
import pytest
import torch
from support.cli_process import run_cli
from support.messages import logged, raises, shows
from support.models import TINY, TensorItems
from transformers import pipeline

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, ensemble, finetune
from hf_mae.data.images.transforms import image_processor
from hf_mae.models.messages import ModelMessage
from hf_mae.runs.messages import RunMessage
from hf_mae.settings.messages import SettingsMessage
from hf_mae.training.distillation import Teacher

NAMES = {0: "a", 1: "b", 2: "c"}


def build_tiny_classifier(tiny_pth, seed: int, names=NAMES):
    torch.manual_seed(seed)
    model = build_classifier(tiny_pth, num_labels=3, id2label=names, drop_path=0.0, **TINY)
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def processor():
    return image_processor("endoscopy", 32)


def test_loss_is_the_divergence_of_softened_scores(tiny_pth, processor):
    teacher, student = build_tiny_classifier(tiny_pth, 0), build_tiny_classifier(tiny_pth, 1)
    pixels, logits = torch.randn(5, 3, 32, 32), torch.randn(5, 3)
    distiller = Teacher(teacher, processor, student, processor, temperature=3.0)
    expected = 0.0
    with torch.no_grad():
        theirs = (teacher(pixel_values=pixels).logits / 3).softmax(-1)
    for p, q in zip(theirs, (logits / 3).softmax(-1)):
        expected += 9 * float((p * (p / q).log()).sum())
    assert float(distiller.loss_sum(logits, pixels)) == pytest.approx(expected, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in distiller.parameters())


def test_classes_are_matched_by_name(tiny_pth, processor):
    teacher = build_tiny_classifier(tiny_pth, 0, {0: "c", 1: "a", 2: "b"})
    distiller = Teacher(teacher, processor, build_tiny_classifier(tiny_pth, 1), processor, temperature=1.0)
    pixels = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        theirs = teacher(pixel_values=pixels).logits.softmax(-1)
    torch.testing.assert_close(distiller.scores(pixels), theirs[:, [1, 2, 0]])
    with raises(ModelMessage.ENSEMBLE_CLASSES_DIFFER, number=2):
        Teacher(
            build_tiny_classifier(tiny_pth, 0, {0: "x", 1: "a", 2: "b"}),
            processor,
            build_tiny_classifier(tiny_pth, 1),
            processor,
            1.0,
        )


def build_trainer(tiny_pth, tmp_path, processor, **more):
    pixels = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    items = TensorItems(pixel_values=pixels, labels=torch.arange(24) % 3)
    options = {"num_train_epochs": 12, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "use_cpu": True}
    options |= {"warmup_epochs": 1, "report_to": "none", "disable_tqdm": True, "drop_path": 0.0, "smoothing": 0.0}
    args = FinetuningArguments(output_dir=str(tmp_path), **(options | more))
    student, teacher = build_tiny_classifier(tiny_pth, 1), build_tiny_classifier(tiny_pth, 0)
    distiller = Teacher(teacher, processor, student, processor, args.teacher_temperature)
    return MaeFinetuner(model=student, args=args, train_dataset=items, teacher=distiller), teacher, pixels


def test_the_student_approaches_the_teacher_which_does_not_change(tiny_pth, tmp_path, processor):
    trainer, teacher, pixels = build_trainer(tiny_pth, tmp_path, processor, teacher_weight=1.0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    def mean_difference():
        with torch.no_grad():
            theirs, ours = (m(pixel_values=pixels).logits.softmax(-1) for m in (teacher, trainer.model.eval()))
        return float((theirs - ours).abs().mean())

    first = mean_difference()
    trainer.train()
    assert mean_difference() < first / 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    trainer.save_model(str(tmp_path / "saved"))
    saved = type(trainer.model).from_pretrained(tmp_path / "saved")  # without the teacher
    assert len(saved.state_dict()) == len(trainer.model.state_dict())


def test_the_loss_is_a_weighted_sum_of_labels_and_teacher(tiny_pth, tmp_path, processor):
    trainer, _, pixels = build_trainer(tiny_pth, tmp_path, processor, teacher_weight=0.3, teacher_temperature=1.0)
    inputs = {"pixel_values": pixels[:6], "labels": torch.arange(6) % 3}
    model = trainer.model.train()
    loss = trainer.compute_loss(model, dict(inputs))
    logits = model(pixel_values=pixels[:6]).logits
    label_loss = torch.nn.functional.cross_entropy(logits, inputs["labels"])
    teacher_loss = trainer.teacher.loss_sum(logits, pixels[:6]) / 6
    torch.testing.assert_close(loss, 0.7 * label_loss + 0.3 * teacher_loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"teacher": "x", "class_weights": "balanced"}, SettingsMessage.TEACHER_WITH_LOSS),
        ({"teacher_weight": 1.5}, SettingsMessage.OUT_OF_BOUNDS),
        ({"teacher_temperature": 0.0}, SettingsMessage.OUT_OF_BOUNDS),
    ],
)
def test_invalid_options_are_rejected(tmp_path, options, message):
    with raises(message):
        FinetuningArguments(output_dir=str(tmp_path), report_to="none", **options)


def test_an_ensemble_is_distilled_into_one_stock_model(finetuned, tiny_pth, toy, tmp_path, caplog):
    runs = [str(finetuned("mean")), str(finetuned("cls"))]
    ensemble(runs=runs, output_dir=str(tmp_path / "both"))
    more = ["--output_dir", tmp_path / "student", "--per_device_train_batch_size", 20, "--num_train_epochs", 1]
    done = run_cli("distill", tmp_path / "both", tiny_pth, toy / "labelled", *more)
    assert not shows(done.stderr, RunMessage.TEACHER_SAW_EVAL_DATA)
    card = (tmp_path / "student" / "README.md").read_text()
    assert "The model was distilled from both (weight 0.5)." in card
    assert "teacher: " in (tmp_path / "student" / "recipe.yaml").read_text()
    image = next((toy / "labelled" / "test").glob("*/*.jpg"))
    predictions = pipeline("image-classification", model=str(tmp_path / "student"))(str(image))
    assert np.isclose(sum(entry["score"] for entry in predictions), 1)
    assert shows(run_cli("distill", status=2).stderr, SettingsMessage.MISSING_ARGUMENTS, command="distill")
    # With another selection split, the teacher was trained on images that evaluate the student.
    flags = {"model_name_or_path": str(tiny_pth), "data_dir": str(toy / "labelled"), "teacher": str(tmp_path / "both")}
    flags |= {"per_device_train_batch_size": 20, "num_train_epochs": 1, "disable_tqdm": True, "selection_fraction": 0.2}
    with caplog.at_level(logging.WARNING):
        finetune(**flags, output_dir=str(tmp_path / "other"))
    assert logged(caplog.records, RunMessage.TEACHER_SAW_EVAL_DATA, teacher=tmp_path / "both")

"""Learning from another model's scores: its arithmetic, and one stock model of an ensemble."""

import logging

import numpy as np
import pytest
import torch
from support.cli_process import run_cli
from support.models import TINY, TensorItems
from transformers import pipeline

from hf_mae import FinetuningArguments, MaeFinetuner, build_classifier, ensemble, finetune
from hf_mae.data.transforms import image_processor
from hf_mae.errors import UsageError
from hf_mae.training.distillation import Teacher

NAMES = {0: "a", 1: "b", 2: "c"}


def model_of(tiny_pth, seed: int, names=NAMES):
    torch.manual_seed(seed)
    model = build_classifier(tiny_pth, num_labels=3, id2label=names, drop_path=0.0, **TINY)
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def processor():
    return image_processor("endoscopy", 32)


def test_the_divergence_is_that_of_softened_scores(tiny_pth, processor):
    teacher, student = model_of(tiny_pth, 0), model_of(tiny_pth, 1)
    pixels, logits = torch.randn(5, 3, 32, 32), torch.randn(5, 3)
    made = Teacher(teacher, processor, student, processor, temperature=3.0)
    expected = 0.0
    with torch.no_grad():
        theirs = (teacher(pixel_values=pixels).logits / 3).softmax(-1)
    for p, q in zip(theirs, (logits / 3).softmax(-1)):
        expected += 9 * float((p * (p / q).log()).sum())
    assert float(made.loss_sum(logits, pixels)) == pytest.approx(expected, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in made.parameters())


def test_classes_are_matched_by_name(tiny_pth, processor):
    teacher = model_of(tiny_pth, 0, {0: "c", 1: "a", 2: "b"})
    made = Teacher(teacher, processor, model_of(tiny_pth, 1), processor, temperature=1.0)
    pixels = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        theirs = teacher(pixel_values=pixels).logits.softmax(-1)
    torch.testing.assert_close(made.scores(pixels), theirs[:, [1, 2, 0]])
    with pytest.raises(UsageError, match="model 2 has other classes than model 1"):
        Teacher(model_of(tiny_pth, 0, {0: "x", 1: "a", 2: "b"}), processor, model_of(tiny_pth, 1), processor, 1.0)


def trainer_of(tiny_pth, tmp_path, processor, **more):
    pixels = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    items = TensorItems(pixel_values=pixels, labels=torch.arange(24) % 3)
    options = {"num_train_epochs": 12, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "use_cpu": True}
    options |= {"warmup_epochs": 1, "report_to": "none", "disable_tqdm": True, "drop_path": 0.0, "smoothing": 0.0}
    args = FinetuningArguments(output_dir=str(tmp_path), **(options | more))
    student, teacher = model_of(tiny_pth, 1), model_of(tiny_pth, 0)
    made = Teacher(teacher, processor, student, processor, args.teacher_temperature)
    return MaeFinetuner(model=student, args=args, train_dataset=items, teacher=made), teacher, pixels


def test_a_student_comes_to_agree_and_the_teacher_stays(tiny_pth, tmp_path, processor):
    trainer, teacher, pixels = trainer_of(tiny_pth, tmp_path, processor, teacher_weight=1.0)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    def apart():
        with torch.no_grad():
            theirs, ours = (m(pixel_values=pixels).logits.softmax(-1) for m in (teacher, trainer.model.eval()))
        return float((theirs - ours).abs().mean())

    first = apart()
    trainer.train()
    assert apart() < first / 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    trainer.save_model(str(tmp_path / "saved"))
    saved = type(trainer.model).from_pretrained(tmp_path / "saved")  # and nothing of the teacher
    assert len(saved.state_dict()) == len(trainer.model.state_dict())


def test_labels_and_scores_share_the_loss(tiny_pth, tmp_path, processor):
    trainer, _, pixels = trainer_of(tiny_pth, tmp_path, processor, teacher_weight=0.3, teacher_temperature=1.0)
    inputs = {"pixel_values": pixels[:6], "labels": torch.arange(6) % 3}
    model = trainer.model.train()
    loss = trainer.compute_loss(model, dict(inputs))
    logits = model(pixel_values=pixels[:6]).logits
    own = torch.nn.functional.cross_entropy(logits, inputs["labels"])
    theirs = trainer.teacher.loss_sum(logits, pixels[:6]) / 6
    torch.testing.assert_close(loss, 0.7 * own + 0.3 * theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"teacher": "x", "class_weights": "balanced"}, "without --class_weights"),
        ({"teacher_weight": 1.5}, "teacher_weight must be between 0 and 1"),
        ({"teacher_temperature": 0.0}, "above 0"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        FinetuningArguments(output_dir=str(tmp_path), report_to="none", **options)


def test_an_ensemble_becomes_one_stock_model(finetuned, tiny_pth, toy, tmp_path, caplog):
    runs = [str(finetuned("mean")), str(finetuned("cls"))]
    ensemble(runs=runs, output_dir=str(tmp_path / "both"))
    more = ["--output_dir", tmp_path / "taught", "--per_device_train_batch_size", 20, "--num_train_epochs", 1]
    done = run_cli("distill", tmp_path / "both", tiny_pth, toy / "labelled", *more)
    assert "was trained on images that judge" not in done.stderr
    card = (tmp_path / "taught" / "README.md").read_text()
    assert "It learnt from the scores of both, too (weight 0.5)." in card
    assert "teacher: " in (tmp_path / "taught" / "recipe.yaml").read_text()
    image = next((toy / "labelled" / "test").glob("*/*.jpg"))
    found = pipeline("image-classification", model=str(tmp_path / "taught"))(str(image))
    assert np.isclose(sum(entry["score"] for entry in found), 1)
    assert "missing: teacher" in run_cli("distill", status=2).stderr.replace("--", "")
    # With another share held out, the teacher has seen what judges the student.
    flags = {"model_name_or_path": str(tiny_pth), "data_dir": str(toy / "labelled"), "teacher": str(tmp_path / "both")}
    flags |= {"per_device_train_batch_size": 20, "num_train_epochs": 1, "disable_tqdm": True, "selection_fraction": 0.2}
    with caplog.at_level(logging.WARNING):
        finetune(**flags, output_dir=str(tmp_path / "other"))
    assert "was trained on images that judge this model" in caplog.text

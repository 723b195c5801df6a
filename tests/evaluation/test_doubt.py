"""Sets of classes, outliers, and the risk of what is answered: against their definitions and other implementations."""

import json

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from hf_mae.errors import UsageError
from hf_mae.evaluation.metrics import risk_coverage
from hf_mae.evaluation.scores import softmax
from hf_mae.evaluation.uncertainty import ConformalSets, Gaussian, MahalanobisOOD, Uncertainty, evaluate_coverage
from hf_mae.runs.uncertainty_io import read_uncertainty, write_uncertainty


def long_tailed(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (images, 4) of an overconfident model, and labels of a long tail."""
    labels = draw.choice(4, count, p=[0.6, 0.25, 0.1, 0.05])
    return 3 * (np.eye(4)[labels] * 1.5 + draw.normal(size=(count, 4)) + [0.5, 0, 0, -0.5]), labels


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_sets_hold_the_true_class_of_every_class_as_often_as_asked(level):
    draw, held = np.random.default_rng(0), [[] for _ in range(4)]
    for _ in range(60):
        logits, labels = long_tailed(draw, 2000)
        sets = ConformalSets.fit(softmax(logits[:1000]), labels[:1000]).predict_sets(softmax(logits[1000:]), level)
        for index in range(4):
            rows = labels[1000:] == index
            held[index].append(sets[rows, index].mean())
    for coverage in map(np.mean, held):
        assert level - 0.01 < coverage < level + 0.025  # at most 1 / (images of the class + 1) above


def test_a_p_value_is_a_rank_among_the_images_of_the_class():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]])
    sets = ConformalSets.fit(scores, np.array([0, 0, 0, 1]))
    new = np.array([[0.6, 0.4], [0.95, 0.05], [0.1, 0.9]])
    np.testing.assert_allclose(sets.p_values(new), [[3 / 4, 1 / 2], [1, 1 / 2], [1 / 4, 1]])
    assert sets.predict_sets(new, 0.75).tolist() == [[True, True], [True, True], [False, True]]
    assert sets.uninformative_classes(0.75) == [1] and sets.uninformative_classes(0.9) == [0, 1]
    assert ConformalSets.fit(scores, np.zeros(4, int)).p_values(new)[:, 1].tolist() == [1, 1, 1]  # a class without any


def test_how_well_sets_do_is_counted():
    logits, labels = long_tailed(np.random.default_rng(1), 600)
    doubt = Uncertainty(ConformalSets.fit(softmax(logits[:300]), labels[:300]), None, list("abcd"), "validation")
    facts = evaluate_coverage(doubt, logits[300:], labels[300:], "test")
    held = doubt.conformal_sets.predict_sets(softmax(logits[300:]), 0.9)
    assert facts["coverage"] == np.mean([row[label] for row, label in zip(held, labels[300:])])
    assert facts["size"] == held.sum() / 300 and facts["images"] == 300 and facts["split"] == "test"


def test_risk_is_counted_from_the_surest_and_ties_are_in_no_order():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]])
    right = np.array([0, 1, 0, 0, 1])  # the two of 0.7: one right, one wrong; the last wrong
    found = risk_coverage(scores, right)
    assert found["aurc"] == pytest.approx(np.mean([0, 0, 0.5 / 3, 1 / 4, 2 / 5]))
    again = risk_coverage(scores[[4, 3, 2, 1, 0]], right[[4, 3, 2, 1, 0]])
    assert found == again
    assert found["risk_coverage"][-1] == {"coverage": 1.0, "risk": pytest.approx(0.4)}
    assert found["risk_coverage"][0]["risk"] == 0


def features(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = draw.integers(0, 3, count)
    return (draw.normal(size=(count, 8)) @ MIX + 4 * np.eye(3, 8)[labels]).astype(np.float32), labels


MIX = np.random.default_rng(5).normal(size=(8, 8))


def test_outliers_are_far_in_the_metric_of_the_training_images():
    draw = np.random.default_rng(0)
    training, labels = features(draw, 500)
    found = Gaussian.fit(training, labels)
    means = np.stack([training[labels == index].mean(0) for index in range(3)])
    theirs = LedoitWolf(assume_centered=True).fit(training - means[labels])
    new, _ = features(draw, 300)
    expected = np.sqrt(np.min([theirs.mahalanobis(new - mean) for mean in means], axis=0))
    np.testing.assert_allclose(found.distances(new) * found.distance_std + found.distance_mean, expected, rtol=1e-4)


def test_outliers_are_as_rare_as_they_say_and_far_at_one_depth_is_far():
    draw = np.random.default_rng(0)
    training, labels = features(draw, 500)
    found = MahalanobisOOD.fit([training, -training], labels, [part := features(draw, 400)[0], -part])
    new, _ = features(draw, 300)
    assert abs((found.p_values([new, -new]) <= 0.1).mean() - 0.1) < 0.05
    assert (found.p_values([new, -new]) <= found.p_value_threshold).mean() < 0.03
    far = draw.normal(size=(300, 8)) * 30
    assert (found.p_values([far, -new]) <= found.p_value_threshold).all() and (
        found.p_values([new, far]) <= found.p_value_threshold
    ).all()


def test_few_held_out_images_still_know_an_outlier():
    draw = np.random.default_rng(0)
    training, labels = features(draw, 200)
    found = MahalanobisOOD.fit([training], labels, [features(draw, 12)[0]])
    assert found.p_value_threshold == pytest.approx(1 / 13)
    assert found.p_values([100 * np.ones((1, 8))])[0] <= found.p_value_threshold


def a_doubt(**more) -> Uncertainty:
    draw = np.random.default_rng(0)
    logits, labels = long_tailed(draw, 100)
    seen, kinds = features(draw, 60)
    outliers = MahalanobisOOD.fit([seen, seen[:, :4]], kinds, [part := features(draw, 40)[0], part[:, :4]])
    return Uncertainty(ConformalSets.fit(softmax(logits), labels), outliers, list("abcd"), "validation", **more)


def test_it_is_read_back_as_it_was(tmp_path):
    doubt = a_doubt()
    write_uncertainty(tmp_path, doubt)
    again = read_uncertainty(tmp_path, list("abcd"))
    draw = np.random.default_rng(9)
    logits, _ = long_tailed(draw, 50)
    assert (
        again.conformal_sets.predict_sets(softmax(logits), 0.9)
        == doubt.conformal_sets.predict_sets(softmax(logits), 0.9)
    ).all()
    new, _ = features(draw, 50)
    np.testing.assert_allclose(again.ood.p_values([new, new[:, :4]]), doubt.ood.p_values([new, new[:, :4]]), atol=0.03)
    assert again.fitted_on == "validation" and again.classes == list("abcd")
    write_uncertainty(tmp_path, Uncertainty(doubt.conformal_sets, None, doubt.classes, "test"))
    assert read_uncertainty(tmp_path, list("abcd")).ood is None and not (tmp_path / "doubt.safetensors").exists()


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda values: values.pop("fitted_on"), "is damaged .KeyError.: fit it again"),
        (lambda values: values["scores_of_the_true_class"].update(a="x"), "is damaged"),
        (lambda values: values["scores_of_the_true_class"].pop("d"), "of a model with other classes: a, b, c"),
        (lambda values: values.update(averaged_views=True), "fitted with --tta: use it so"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tmp_path, damage, sentence):
    write_uncertainty(tmp_path, a_doubt())
    values = json.loads((tmp_path / "doubt.json").read_text())
    damage(values)
    (tmp_path / "doubt.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=sentence):
        read_uncertainty(tmp_path, list("abcd"))


def test_a_missing_or_cut_off_file_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="--fit_uncertainty"):
        read_uncertainty(tmp_path, list("abcd"))
    write_uncertainty(tmp_path, a_doubt())
    tensors = tmp_path / "doubt.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:50])
    with pytest.raises(UsageError, match="is damaged"):
        read_uncertainty(tmp_path, list("abcd"))

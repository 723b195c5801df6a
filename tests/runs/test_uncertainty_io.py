"""Files of prediction sets and out-of-distribution detectors: written, read, damaged."""

import json

import numpy as np
import pytest
from support.messages import raises

from hf_mae.evaluation.conformal import ConformalSets
from hf_mae.evaluation.ood import MahalanobisOOD
from hf_mae.inference.uncertainty import Uncertainty
from hf_mae.runs.messages import RunMessage
from hf_mae.runs.uncertainty_io import TENSORS_FILE, UNCERTAINTY_FILE, read_uncertainty, write_uncertainty

CLASSES = list("abcd")


def make_uncertainty() -> Uncertainty:
    rng = np.random.default_rng(0)
    scores, labels = rng.dirichlet(np.ones(4), 100), rng.integers(0, 4, 100)
    training, calibration = rng.normal(size=(60, 8)), rng.normal(size=(40, 8))
    ood = MahalanobisOOD.fit([training, training[:, :4]], np.arange(60) % 3, [calibration, calibration[:, :4]])
    return Uncertainty(ConformalSets.fit(scores, labels), ood, CLASSES, "validation")


def test_uncertainty_is_written_and_read(tmp_path):
    uncertainty = make_uncertainty()
    write_uncertainty(tmp_path, uncertainty)
    loaded = read_uncertainty(tmp_path, CLASSES)
    rng = np.random.default_rng(9)
    scores, features = rng.dirichlet(np.ones(4), 50), rng.normal(size=(50, 8))
    sets = [each.conformal_sets.predict_sets(scores, 0.9) for each in (uncertainty, loaded)]
    assert (sets[0] == sets[1]).all()
    p_values = [each.ood.p_values([features, features[:, :4]]) for each in (uncertainty, loaded)]
    np.testing.assert_allclose(*p_values, atol=0.03)
    assert loaded.fitted_on == "validation" and loaded.classes == CLASSES
    by_patient = ConformalSets.fit(scores, rng.integers(0, 4, 50), rng.integers(0, 12, 50))
    write_uncertainty(tmp_path, Uncertainty(by_patient, None, CLASSES, "validation"))
    p_values = [each.p_values(scores) for each in (by_patient, read_uncertainty(tmp_path, CLASSES).conformal_sets)]
    np.testing.assert_allclose(*p_values, atol=1e-6)
    write_uncertainty(tmp_path, Uncertainty(uncertainty.conformal_sets, None, CLASSES, "test"))
    assert read_uncertainty(tmp_path, CLASSES).ood is None and not (tmp_path / TENSORS_FILE).exists()


@pytest.mark.parametrize(
    "damage, message, attributes",
    [
        (lambda values: values.pop("fitted_on"), RunMessage.UNCERTAINTY_DAMAGED, {"error": "KeyError"}),
        (lambda values: values["true_class_scores"].update(a="x"), RunMessage.UNCERTAINTY_DAMAGED, {}),
        (
            lambda values: values["true_class_scores"].pop("d"),
            RunMessage.UNCERTAINTY_OF_OTHER_CLASSES,
            {"names": ["a", "b", "c"]},
        ),
        (lambda values: values.update(averaged_views=True), RunMessage.FITTED_WITH_TTA, {}),
    ],
)
def test_files_that_do_not_fit_are_rejected(tmp_path, damage, message, attributes):
    write_uncertainty(tmp_path, make_uncertainty())
    values = json.loads((tmp_path / UNCERTAINTY_FILE).read_text())
    damage(values)
    (tmp_path / UNCERTAINTY_FILE).write_text(json.dumps(values))
    with raises(message, **attributes):
        read_uncertainty(tmp_path, CLASSES)


def test_missing_and_truncated_files_are_rejected(tmp_path):
    with raises(RunMessage.UNCERTAINTY_MISSING, path=tmp_path):
        read_uncertainty(tmp_path, CLASSES)
    write_uncertainty(tmp_path, make_uncertainty())
    tensors = tmp_path / TENSORS_FILE
    tensors.write_bytes(tensors.read_bytes()[:50])
    with raises(RunMessage.UNCERTAINTY_DAMAGED):
        read_uncertainty(tmp_path, CLASSES)

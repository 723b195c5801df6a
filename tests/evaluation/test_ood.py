"""Out-of-distribution detection: Mahalanobis distances against scikit-learn, and the false positive rate."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from hf_mae.evaluation.ood import Gaussian, MahalanobisOOD

MIXING = np.random.default_rng(5).normal(size=(8, 8))


def make_features(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 3, count)
    return (rng.normal(size=(count, 8)) @ MIXING + 4 * np.eye(3, 8)[labels]).astype(np.float32), labels


def test_distances_are_mahalanobis_distances_with_a_shrunk_covariance():
    rng = np.random.default_rng(0)
    training, labels = make_features(rng, 500)
    gaussian = Gaussian.fit(training, labels)
    means = np.stack([training[labels == index].mean(0) for index in range(3)])
    expected = LedoitWolf(assume_centered=True).fit(training - means[labels])
    new, _ = make_features(rng, 300)
    distances = np.sqrt(np.min([expected.mahalanobis(new - mean) for mean in means], axis=0))
    np.testing.assert_allclose(
        gaussian.distances(new) * gaussian.distance_std + gaussian.distance_mean, distances, rtol=1e-4
    )


def test_p_values_are_calibrated_and_one_distant_depth_is_sufficient():
    rng = np.random.default_rng(0)
    training, labels = make_features(rng, 500)
    calibration, _ = make_features(rng, 400)
    detector = MahalanobisOOD.fit([training, -training], labels, [calibration, -calibration])
    new, _ = make_features(rng, 300)
    assert abs((detector.p_values([new, -new]) <= 0.1).mean() - 0.1) < 0.05
    assert (detector.p_values([new, -new]) <= detector.p_value_threshold).mean() < 0.03
    distant = rng.normal(size=(300, 8)) * 30
    assert (detector.p_values([distant, -new]) <= detector.p_value_threshold).all()
    assert (detector.p_values([new, distant]) <= detector.p_value_threshold).all()


def test_few_calibration_images_still_detect_a_distant_image():
    rng = np.random.default_rng(0)
    training, labels = make_features(rng, 200)
    detector = MahalanobisOOD.fit([training], labels, [make_features(rng, 12)[0]])
    assert detector.p_value_threshold == pytest.approx(1 / 13)
    assert detector.p_values([100 * np.ones((1, 8))])[0] <= detector.p_value_threshold

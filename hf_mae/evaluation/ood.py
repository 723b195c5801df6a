"""Out-of-distribution detection: Mahalanobis distance of an image's features from the training classes."""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.covariance import ledoit_wolf

OOD_ALPHA = 0.01  # significance level: an image with a p value of at most this is out of distribution


@dataclass(frozen=True)
class Gaussian:
    """Class-conditional Gaussian of the training features at one depth, with a shared covariance (Ledoit-Wolf
    shrinkage).

    Args:
        means: (classes, width).
        precision: (width, width), the inverse of the covariance.
        distance_mean, distance_std: mean and standard deviation of the distances of the training images.
    """

    means: np.ndarray
    precision: np.ndarray
    distance_mean: float = 0.0
    distance_std: float = 1.0

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "Gaussian":
        """Fits to features (images, width) and class ids (images,)."""
        classes, class_index = np.unique(labels, return_inverse=True)
        means = np.stack([features[class_index == index].mean(0, dtype=np.float64) for index in range(len(classes))])
        covariance, _ = ledoit_wolf(features - means[class_index], assume_centered=True)
        precision = np.linalg.pinv(covariance, hermitian=True)
        gaussian = cls(means.astype(np.float32), precision.astype(np.float32))
        distances = gaussian.distances(features)
        return replace(gaussian, distance_mean=float(distances.mean()), distance_std=float(distances.std()) or 1.0)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Computes the standardized Mahalanobis distances (images,) from the nearest class, for features (images,
        width)."""
        difference = features[:, None, :].astype(np.float64) - self.means
        squares = np.einsum("ncw,wv,ncv->nc", difference, self.precision.astype(np.float64), difference, optimize=True)
        nearest: np.ndarray = (np.sqrt(np.maximum(squares.min(1), 0)) - self.distance_mean) / self.distance_std
        return nearest


@dataclass(frozen=True)
class MahalanobisOOD:
    """Out-of-distribution detector on features at several depths of the network (Lee et al., 2018).

    The input of the head separates the classes and says little about images that are not endoscopic; the first layers
    respond to colours and textures. The distance of an image is the largest over all depths.

    Args:
        gaussians: one `Gaussian` per depth.
        calibration_distances: sorted distances of the calibration images.
    """

    gaussians: list[Gaussian]
    calibration_distances: np.ndarray

    @classmethod
    def fit(
        cls, features: list[np.ndarray], labels: np.ndarray, calibration_features: list[np.ndarray]
    ) -> "MahalanobisOOD":
        """Fits to training images and calibrates on other images.

        Args:
            features: per depth, features (images, width) of the training images.
            labels: class ids (images,) of the training images.
            calibration_features: per depth, features of the calibration images.
        """
        detector = cls([Gaussian.fit(depth, labels) for depth in features], np.empty(0))
        return replace(detector, calibration_distances=np.sort(detector.distances(calibration_features)))

    def distances(self, features: list[np.ndarray]) -> np.ndarray:
        """Computes distances (images,), from features (images, width) per depth."""
        by_depth = [gaussian.distances(depth) for gaussian, depth in zip(self.gaussians, features, strict=True)]
        largest: np.ndarray = np.max(by_depth, axis=0)
        return largest

    def p_values(self, features: list[np.ndarray]) -> np.ndarray:
        """Computes p values (images,): fraction of calibration images and this image with at least this distance."""
        num_farther = len(self.calibration_distances) - np.searchsorted(
            self.calibration_distances, self.distances(features), side="left"
        )
        p_values: np.ndarray = (num_farther + 1) / (len(self.calibration_distances) + 1)
        return p_values

    @property
    def p_value_threshold(self) -> float:
        """Largest p value of an out-of-distribution image: `OOD_ALPHA`, or the smallest p value that can occur."""
        return max(OOD_ALPHA, 1 / (len(self.calibration_distances) + 1) + 1e-12)

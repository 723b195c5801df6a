"""Uncertainty of a model (prediction sets, out-of-distribution detector) in `uncertainty.json` and `.safetensors`."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import UsageError
from ..evaluation.conformal import ConformalSets
from ..evaluation.ood import Gaussian, MahalanobisOOD
from ..files.atomic import atomic_write_file, write_json
from ..inference.uncertainty import Uncertainty
from .messages import RunMessage

UNCERTAINTY_FILE, TENSORS_FILE = "uncertainty.json", "uncertainty.safetensors"
SCHEMA_VERSION = 1


def write_uncertainty(folder: Path, uncertainty: Uncertainty) -> None:
    """Writes both files."""
    values = {
        "schema_version": SCHEMA_VERSION,
        "fitted_on": uncertainty.fitted_on,
        "averaged_views": uncertainty.averaged_views,
    }
    scores = dict(
        zip(
            uncertainty.classes,
            map(_round_floats, uncertainty.conformal_sets.calibration_scores),
            strict=True,
        )
    )
    values |= {"true_class_scores": scores}
    sets = uncertainty.conformal_sets
    if sets.weights is not None and sets.new_weights is not None:
        values |= {"weights": list(map(_round_floats, sets.weights)), "new_weights": _round_floats(sets.new_weights)}
    (folder / TENSORS_FILE).unlink(missing_ok=True)
    if uncertainty.ood is not None:
        gaussians = uncertainty.ood.gaussians
        tensors = {f"means_{depth}": gaussian.means for depth, gaussian in enumerate(gaussians)}
        tensors |= {f"precision_{depth}": gaussian.precision for depth, gaussian in enumerate(gaussians)}
        with atomic_write_file(folder / TENSORS_FILE) as temporary:
            save_file(tensors, temporary)
        values |= {"centres": [gaussian.distance_mean for gaussian in gaussians]}
        values |= {"scales": [gaussian.distance_std for gaussian in gaussians]}
        values |= {"distances": _round_floats(uncertainty.ood.calibration_distances)}
    write_json(folder / UNCERTAINTY_FILE, values)


def read_uncertainty(folder: str | Path, classes: list[str], averaged_views: bool = False) -> Uncertainty:
    """Reads both files.

    Args:
        averaged_views: whether the scores are averaged over views (`--tta`).

    Raises:
        UsageError: If the files are missing or damaged, or do not fit the model or `--tta`.
    """
    path = Path(folder) / UNCERTAINTY_FILE
    if not path.is_file():
        raise UsageError(RunMessage.UNCERTAINTY_MISSING, path=folder)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        scores = values["true_class_scores"]
        conformal_sets = ConformalSets(
            [np.array(class_scores, dtype=np.float64) for class_scores in scores.values()],
            [np.array(weights, dtype=np.float64) for weights in values.get("weights", [])] or None,
            [float(weight) for weight in values.get("new_weights", [])] or None,
        )
        ood = None
        if "distances" in values:
            tensors = load_file(path.with_name(TENSORS_FILE))
            gaussians = [
                Gaussian(tensors[f"means_{depth}"], tensors[f"precision_{depth}"], float(centre), float(scale))
                for depth, (centre, scale) in enumerate(zip(values["centres"], values["scales"], strict=True))
            ]
            ood = MahalanobisOOD(gaussians, np.array(values["distances"], dtype=np.float64))
        fitted_on, with_tta, version = (
            str(values["fitted_on"]),
            bool(values["averaged_views"]),
            values["schema_version"],
        )
        uncertainty = Uncertainty(conformal_sets, ood, list(scores), fitted_on, with_tta)
    except Exception as error:  # a truncated or edited file raises many types
        raise UsageError(RunMessage.UNCERTAINTY_DAMAGED, path=path, error=type(error).__name__) from None
    if version != SCHEMA_VERSION:
        raise UsageError(RunMessage.UNCERTAINTY_OF_OTHER_VERSION, path=path, version=version, supported=SCHEMA_VERSION)
    if uncertainty.classes != classes:
        raise UsageError(RunMessage.UNCERTAINTY_OF_OTHER_CLASSES, path=path, names=uncertainty.classes[:5])
    if with_tta != averaged_views:
        raise UsageError(RunMessage.FITTED_WITH_TTA if with_tta else RunMessage.FITTED_WITHOUT_TTA, path=path)
    return uncertainty


def _round_floats(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.9g}") for value in values]

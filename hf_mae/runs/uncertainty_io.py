"""What a run's model does not know, in `doubt.json` and `doubt.safetensors`."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import UsageError
from ..evaluation.uncertainty import ConformalSets, Gaussian, MahalanobisOOD, Uncertainty
from ..files.atomic import atomic_write_file, write_json

UNCERTAINTY_FILE, TENSORS_FILE = "doubt.json", "doubt.safetensors"
FORMAT = 1


def write_uncertainty(folder: Path, uncertainty: Uncertainty) -> None:
    """Writes both files."""
    values = {"format": FORMAT, "fitted_on": uncertainty.fitted_on, "averaged_views": uncertainty.averaged_views}
    scores = dict(
        zip(
            uncertainty.classes,
            (_round_floats(own) for own in uncertainty.conformal_sets.calibration_scores),
            strict=True,
        )
    )
    values |= {"scores_of_the_true_class": scores}
    (folder / TENSORS_FILE).unlink(missing_ok=True)
    if uncertainty.ood is not None:
        parts = dict(enumerate(uncertainty.ood.gaussians))
        tensors = {f"means_{depth}": part.means for depth, part in parts.items()}
        tensors |= {f"precision_{depth}": part.precision for depth, part in parts.items()}
        with atomic_write_file(folder / TENSORS_FILE) as temporary:
            save_file(tensors, temporary)
        values |= {"centres": [part.distance_mean for part in parts.values()]}
        values |= {"scales": [part.distance_std for part in parts.values()]}
        values |= {"distances": _round_floats(uncertainty.ood.calibration_distances)}
    write_json(folder / UNCERTAINTY_FILE, values)


def read_uncertainty(folder: str | Path, classes: list[str], averaged_views: bool = False) -> Uncertainty:
    """Reads them back.

    Args:
        classes: of the model that it is used with.
        averaged_views: whether that model's scores are averaged over views.

    Raises:
        UsageError: there is none, it is damaged, or it is of another model or another way to score.
    """
    path = Path(folder) / UNCERTAINTY_FILE
    if not path.is_file():
        raise UsageError(
            f"{folder} does not say what its model does not know: hf-mae evaluate {folder} DATA --split validation "
            "--fit_uncertainty --output_dir OUT fits it on held-out images, and --uncertainty OUT uses it."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        scores = values["scores_of_the_true_class"]
        sets = ConformalSets([np.array(own, dtype=np.float64) for own in scores.values()])
        outliers = None
        if "distances" in values:
            tensors = load_file(path.with_name(TENSORS_FILE))
            depths = [
                Gaussian(tensors[f"means_{depth}"], tensors[f"precision_{depth}"], float(centre), float(scale))
                for depth, (centre, scale) in enumerate(zip(values["centres"], values["scales"], strict=True))
            ]
            outliers = MahalanobisOOD(depths, np.array(values["distances"], dtype=np.float64))
        doubt = Uncertainty(sets, outliers, list(scores), str(values["fitted_on"]), bool(values["averaged_views"]))
        written = values["format"]
    except Exception as error:  # whatever a file that was cut off or edited makes of it
        raise UsageError(f"{path} is damaged ({type(error).__name__}): fit it again (--fit_uncertainty).") from None
    if written != FORMAT:
        raise UsageError(
            f"{path} is of format {written}, and this hf_mae reads {FORMAT}: fit it again (--fit_uncertainty)."
        )
    if doubt.classes != classes:
        raise UsageError(f"{path} is of a model with other classes: {', '.join(doubt.classes[:5])}.")
    if doubt.averaged_views != averaged_views:
        with_or_without = "with" if doubt.averaged_views else "without"
        raise UsageError(f"{path} was fitted {with_or_without} --tta: use it so.")
    return doubt


def _round_floats(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values]

"""What a run's model does not know, in `doubt.json` and `doubt.safetensors`."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..errors import UsageError
from ..evaluation.doubt import Doubt, Gaussian, Outliers, PredictionSets
from ..files.writing import whole_file, write_json

NAME, TENSORS = "doubt.json", "doubt.safetensors"
FORMAT = 1


def write_doubt(folder: Path, doubt: Doubt) -> None:
    """Writes both files."""
    values = {"format": FORMAT, "fitted_on": doubt.fitted_on, "averaged_views": doubt.averaged_views}
    scores = dict(zip(doubt.classes, (_short(own) for own in doubt.sets.scores), strict=True))
    values |= {"scores_of_the_true_class": scores}
    (folder / TENSORS).unlink(missing_ok=True)
    if doubt.outliers is not None:
        parts = dict(enumerate(doubt.outliers.depths))
        tensors = {f"means_{depth}": part.means for depth, part in parts.items()}
        tensors |= {f"precision_{depth}": part.precision for depth, part in parts.items()}
        with whole_file(folder / TENSORS) as temporary:
            save_file(tensors, temporary)
        values |= {"centres": [part.centre for part in parts.values()]}
        values |= {"scales": [part.scale for part in parts.values()]}
        values |= {"distances": _short(doubt.outliers.held_out)}
    write_json(folder / NAME, values)


def read_doubt(folder: str | Path, classes: list[str], averaged_views: bool = False) -> Doubt:
    """Reads them back.

    Args:
        classes: of the model that it is used with.
        averaged_views: whether that model's scores are averaged over views.

    Raises:
        UsageError: there is none, it is damaged, or it is of another model or another way to score.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        raise UsageError(
            f"{folder} does not say what its model does not know: hf-mae evaluate {folder} DATA --split validation "
            "--fit_doubt --output_dir OUT fits it on held-out images, and --doubt OUT uses it."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        scores = values["scores_of_the_true_class"]
        sets = PredictionSets([np.array(own, dtype=np.float64) for own in scores.values()])
        outliers = None
        if "distances" in values:
            tensors = load_file(path.with_name(TENSORS))
            depths = [
                Gaussian(tensors[f"means_{depth}"], tensors[f"precision_{depth}"], float(centre), float(scale))
                for depth, (centre, scale) in enumerate(zip(values["centres"], values["scales"], strict=True))
            ]
            outliers = Outliers(depths, np.array(values["distances"], dtype=np.float64))
        doubt = Doubt(sets, outliers, list(scores), str(values["fitted_on"]), bool(values["averaged_views"]))
        written = values["format"]
    except Exception as error:  # whatever a file that was cut off or edited makes of it
        raise UsageError(f"{path} is damaged ({type(error).__name__}): fit it again (--fit_doubt).") from None
    if written != FORMAT:
        raise UsageError(f"{path} is of format {written}, and this hf_mae reads {FORMAT}: fit it again (--fit_doubt).")
    if doubt.classes != classes:
        raise UsageError(f"{path} is of a model with other classes: {', '.join(doubt.classes[:5])}.")
    if doubt.averaged_views != averaged_views:
        with_or_without = "with" if doubt.averaged_views else "without"
        raise UsageError(f"{path} was fitted {with_or_without} --tta: use it so.")
    return doubt


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values]

"""Labels that may be wrong, by what models say that were not trained on them."""

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError


@dataclass(frozen=True)
class LabelIssue:
    """A label that may be wrong.

    Args:
        index: of the image.
        quality: from 0 to 1, of its label: the lower, the likelier it is wrong.
        suggested: class id that the models give it.
    """

    index: int
    quality: float
    suggested: int


def label_issues(class_scores: np.ndarray, labels: np.ndarray) -> list[LabelIssue]:
    """Labels that may be wrong, the likeliest first, by confident learning (Northcutt et al. 2021; cleanlab).

    Args:
        class_scores: (images, classes), of models that were not trained on the image.
        labels: class ids (images,) as they are given.

    Raises:
        UsageError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise UsageError("--labels needs a package that is not installed: pip install 'hf_mae[labels]'.") from None
    present = np.unique(labels)
    if len(present) < 2:
        return []
    scores, own = class_scores[:, present], np.searchsorted(present, labels)
    scores = scores / scores.sum(1, keepdims=True)
    suspected = find_label_issues(own, scores, filter_by="both", n_jobs=1)
    wrong = np.flatnonzero(np.asarray(suspected, dtype=bool))
    quality = get_label_quality_scores(own, scores, method="normalized_margin")
    order = wrong[np.argsort(quality[wrong], kind="stable")]
    return [LabelIssue(int(index), float(quality[index]), int(present[scores[index].argmax()])) for index in order]

"""Detection of label errors from the scores of models that were not trained on the images."""

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from .messages import EvaluationMessage


@dataclass(frozen=True)
class LabelIssue:
    """Possible label error: image, quality of its label (0 to 1), and the class id that the models predict."""

    index: int
    quality: float
    suggested: int


def label_issues(class_scores: np.ndarray, labels: np.ndarray) -> list[LabelIssue]:
    """Finds possible label errors by confident learning (Northcutt et al., 2021; cleanlab), most likely errors first.

    cleanlab flags a number of images of each class. Images with the same label and scores are flagged together, so the
    order of the images has no effect.

    Args:
        class_scores: (images, classes), of models that were not trained on the image.
        labels: the given class ids (images,).

    Raises:
        UsageError: If cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise UsageError(EvaluationMessage.CLEANLAB_NOT_INSTALLED) from None
    classes = np.unique(labels)
    if len(classes) < 2:
        return []
    scores, class_index = class_scores[:, classes], np.searchsorted(classes, labels)
    scores = scores / scores.sum(1, keepdims=True)
    _, pattern = np.unique(np.column_stack([class_index, scores]), axis=0, return_inverse=True)
    order = np.argsort(pattern := pattern.ravel(), kind="stable")
    is_issue = find_label_issues(class_index[order], scores[order], filter_by="both", n_jobs=1)
    issues = np.flatnonzero(np.isin(pattern, pattern[order][np.asarray(is_issue, dtype=bool)]))
    quality = get_label_quality_scores(class_index, scores, method="normalized_margin")
    order = issues[np.argsort(quality[issues], kind="stable")]
    return [LabelIssue(int(index), float(quality[index]), int(classes[scores[index].argmax()])) for index in order]

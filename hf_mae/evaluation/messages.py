"""Messages of the evaluation: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class EvaluationMessage(Message):
    """Errors and warnings of metrics, calibration, conformal prediction and statistics."""

    # Label audit
    CLEANLAB_NOT_INSTALLED = "--runs needs cleanlab, which is not installed. Run: pip install 'hf_mae[labels]'."

    # Operating points
    UNKNOWN_POSITIVE_CLASS = (
        "The model does not have the class {name}{suggestion}. Pass --positive with one or more of {names:list}."
    )
    ALL_CLASSES_POSITIVE = "--positive contains all classes. Leave at least one out."
    INVALID_OPERATING_POINT = (
        "{text} is not an operating point. Use sensitivity=0.95, specificity=0.9 or threshold=0.5 (each between 0 and "
        "1), or youden."
    )
    OPERATING_POINT_NEEDS_BOTH_SIDES = (
        "No threshold can be chosen for {rule}: {positive} of {total} images are positive. Both positive and negative "
        "images are needed."
    )

    # Differences
    INVALID_MARGIN = (
        "--{flag} {text} is not valid. Use SCORE=MARGIN with a margin above 0, e.g. accuracy=0.02 for two percentage "
        "points. Scores: {scores:list}."
    )

    MARGIN_OF_UNDEFINED_SCORE = (
        "The margin of {score} cannot be tested: the score is not defined for the predictions of {first} and {second}. "
        "Ranks and probabilities need the scores of the classes, and qwk, mae and one_off_accuracy need grades."
    )

    # Subgroups
    CELL_IS_NOT_A_NUMBER = (
        "The column {column} cannot be divided into bands: {value} is not a number. Correct the cell, or leave it "
        "empty if the value is not known. Decimals have a point."
    )
    TOO_MANY_SUBGROUPS = (
        "The column {column} cannot define subgroups: it has {count} different texts, and {limit} is the limit."
    )

    # Probes
    PROBE_WITHOUT_TRAIN_SPLIT = (
        "A probe needs training images, but the data has no training split. Name one folder or split `train`."
    )
    PROBE_WITHOUT_TEST_SPLIT = (
        "A probe needs images to be evaluated on, and the data has no validation split. Pass --val_fraction 0.2."
    )

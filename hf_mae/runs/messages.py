"""Messages of runs: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class RunMessage(Message):
    """Errors and warnings of output folders, records, predictions and temperatures."""

    # Output folder
    OUTPUT_DIR_IS_A_FILE = "{path} is a file. --output_dir must be a folder."
    OUTPUT_DIR_CONTAINS_A_RUN = (
        "{path} already contains a run ({file}). Pass --resume_from_checkpoint last to resume it, "
        "--overwrite_output_dir to replace it, or another --output_dir."
    )
    CHECKPOINT_UNUSABLE = "{defect} Pass a complete checkpoint-N folder, or `last`."
    DATA_DIFFER_FROM_RECIPE = (
        "The images, labels or splits differ from those of the run that wrote the recipe: a corrections file, a "
        "manifest or an image was changed. Restore it, or remove data_fingerprint from the recipe to train on new data."
    )
    DATA_OPTIONS_CHANGED = (
        "The run in {path} used other images. These options changed: {changes:list}. Resume with the original options, "
        "or start a new run in another --output_dir."
    )
    IMAGES_CHANGED = (
        "The run in {path} used other images: images were added, removed, modified or moved to another class. Restore "
        "them, or start a new run in another --output_dir."
    )

    # Records
    RECORD_MISSING = "{path} is not a completed run ({file} is missing)."
    RECORD_DAMAGED = "{path} is damaged ({error}). Restore it, or repeat the command that wrote it."
    RECORD_OF_OTHER_VERSION = (
        "{path} has schema version {version}, but this version of hf_mae reads version {supported}. Read it with the "
        "version that wrote it, or repeat the command."
    )
    RECORD_WITHOUT_VERSION = (
        "{path} is not a run record of hf_mae (the key schema_version is missing): another program wrote it. Pass the "
        "output folder of a run, or a CSV file with its predictions."
    )
    RECORD_INVALID = (
        "{path} is not a run record of hf_mae ({error}): another program wrote it, or it was edited. Restore it, or "
        "repeat the command that wrote it."
    )

    # Completed runs
    NOT_A_COMPLETED_RUN = (
        "{path} is neither a completed run nor a prediction table. Pass an output folder of hf-mae finetune, hf-mae "
        "crossval or hf-mae evaluate --output_dir, a CSV file, or a folder with predictions_<split>.csv."
    )
    NOT_A_TRAINING_RUN = "{path} is not a completed run. Pass an output folder of hf-mae crossval or hf-mae finetune."
    RUN_WITHOUT_EVALUATION = (
        "{path} was not evaluated: its data has neither a validation nor a test split. Evaluate it with hf-mae "
        "evaluate."
    )
    SPLIT_NOT_EVALUATED = (
        "{path} has no scores for the split {split}. Choose one of {available:list}, or evaluate it with hf-mae "
        "evaluate."
    )
    HELD_OUT_PREDICTIONS_MISSING = (
        "{path} has no predictions of held-out images. Pass an output folder of hf-mae crossval or hf-mae finetune."
    )
    CLASSES_DIFFER_BETWEEN_RUNS = (
        "{path} has different classes from the previous runs: {names:list}. Pass runs with the same classes."
    )
    LABELS_DIFFER_BETWEEN_RUNS = (
        "{image} has the label {first} in one run and {second} in {path}. Pass runs with the same labels."
    )

    # Predictions
    PREDICTIONS_MISSING = (
        "{path} has no predictions of the split {split}: the run was not completed, or they were removed. Repeat the "
        "evaluation."
    )
    PREDICTIONS_DAMAGED = "{path} is damaged ({error}). Restore it, or repeat the evaluation."
    PREDICTION_ROWS_UNREADABLE = (
        "{path} has a row with more or fewer cells than columns, or with an open quote ({error}). Quote cells that "
        "contain the separator, and write numbers with a decimal point."
    )
    PREDICTION_FORMAT_UNKNOWN = (
        "{path} is not a CSV or parquet file. Convert it (docs/statistics.md: predictions of other programs)."
    )
    TABLE_OF_OTHER_IMAGES = (
        "{path} and {first} do not have the same images. Of {total} images of {first}, missing in {path}: {missing}; "
        "only in {path}: {extra}. Pass predictions of the same images, or name the splits "
        "(predictions_<split>.csv)."
    )
    TABLE_WITH_UNKNOWN_CLASS = (
        "{path} has classes that {first} does not have: {names:list}. The classes of {first} are {known:list}. Use "
        "these names in the columns label and prediction and in score:CLASS."
    )
    PREDICTIONS_CSV_CHANGED = (
        "{path} was changed after the evaluation. The change has no effect, because {used} is used. To use the changed "
        "table, pass the CSV file itself."
    )
    PREDICTION_TABLE_EMPTY = "{path} has no rows. Write one row per image."
    PREDICTION_COLUMNS_MISSING = (
        "{path} is not a prediction table: these columns are missing: {columns:list}. Separate columns by commas, "
        "semicolons or tabs, or pass the output folder of a run."
    )
    PREDICTION_COLUMN_REPEATED = "{path} has several columns {column}. Remove or rename all but one."
    PREDICTIONS_REPEAT_FILE_NAME = "{path} has several rows with the file name {name}. Write one row per image."
    PREDICTION_FILE_NAME_MISSING = "{path} has rows without a file name. Fill them in, or remove these rows."
    PREDICTION_GROUP_MISSING = "{path}: {name} has no group. Fill in its patient or video, or remove the column group."
    PREDICTION_SCORE_NOT_A_NUMBER = (
        "{path}: the column {column} contains a score that is not a number ({error}). Write numbers with a decimal "
        "point."
    )
    SCORE_COLUMNS_MISSING = "{path} has no scores (one column score:CLASS per class). Repeat the evaluation."
    PREDICTIONS_OF_OTHER_IMAGES = "{path} and {first} do not contain the same images. Pass runs on the same images."
    SCORES_INVALID = (
        "{path}: the scores of {name} are not probabilities (>= 0, with a sum of 1 over the columns score:CLASS; their "
        "sum is {total}). Apply a softmax, or remove these columns."
    )
    SCORES_OF_CLASS_MISSING = (
        "{path} contains the class {name}, but has scores for {known:list} only. If you renamed a class, rename its "
        "score column, too."
    )

    # Costs of decisions
    COSTS_NOT_SQUARE = (
        "{path} is not a table of costs: its rows are {rows:list}, and its columns {columns:list}. Write one row per "
        "true class, with its name in the first column, and one column per predicted class."
    )
    COSTS_OF_OTHER_CLASSES = (
        "{path} has other classes than {name}. Missing: {missing:list}; unknown: {unknown:list}. Write one row and one "
        "column per class."
    )
    COST_INVALID = (
        "{path}, row {row}, column {column}: {value} is not valid. Costs and priors are numbers of at least 0, and not "
        "all priors are 0."
    )

    # Splits of the training run
    HOLDOUTS_OF_MEMBERS_DIFFER = (
        "The members of {path} held out different images of this dataset, so some were trained on the images to "
        "evaluate. Evaluate it on a test split, or on other data."
    )
    HOLDOUT_DIFFERS = (
        "{path} was trained on this dataset with other images held out ({changes}), so it was trained on images to "
        "evaluate. Remove {flags}; the split of the run is used instead."
    )
    MEMBERS_ARE_CROSSVAL_FOLDS = (
        "{path} contains runs of a cross-validation, each with its own validation fold. Every other image of this "
        "dataset was used to train some of the members. Evaluate it on a test split, or on other data."
    )
    RUN_IS_CROSSVAL_FOLD = (
        "{path} is a run of a cross-validation with {folds} folds. The predictions for its validation fold are in "
        "{predictions}; other images of this dataset may be training images. Evaluate it on other data."
    )

    # Temperature scaling and uncertainty
    FITTED_WITH_TTA = "{path} was fitted with --tta. Add --tta, or fit it again without --tta."
    FITTED_WITHOUT_TTA = "{path} was fitted without --tta. Remove --tta, or fit it again with --tta."
    TEMPERATURE_AT_BOUND = (
        "Temperature scaling is skipped: the temperature fitted on {split} ({value:.3f}) is at the bound of its range. "
        "There are too few images, or nearly all predictions are right or random."
    )
    TEMPERATURE_WORSENS_CALIBRATION = (
        "Temperature scaling is skipped: the temperature fitted on {split} ({value:.3f}) increases the calibration "
        "error from {before:.4f} to {after:.4f}."
    )
    TEMPERATURE_UNREADABLE = (
        "--temperature must be a number, a {file}, or a folder that contains one, not {path}. To fit a temperature, "
        "run hf-mae evaluate --fit_temperature --output_dir FOLDER."
    )
    TEMPERATURE_NOT_POSITIVE = "--temperature must be a finite number above 0, not {value}."
    UNCERTAINTY_MISSING = (
        "{path} has no fitted uncertainty (prediction sets, out-of-distribution detector). Fit it on held-out images "
        "with hf-mae evaluate {path} DATA --split validation --fit_uncertainty --output_dir OUTPUT_DIR, and pass "
        "--uncertainty OUTPUT_DIR."
    )
    UNCERTAINTY_DAMAGED = "{path} is damaged ({error}). Fit it again (--fit_uncertainty)."
    UNCERTAINTY_OF_OTHER_VERSION = (
        "{path} has schema version {version}, but this version of hf_mae reads version {supported}. Fit it again "
        "(--fit_uncertainty)."
    )
    UNCERTAINTY_OF_OTHER_CLASSES = (
        "{path} was fitted for a model with other classes: {names:list}. Fit it for this model (--fit_uncertainty)."
    )
    TEACHER_SAW_EVAL_DATA = (
        "{teacher} was trained on images that evaluate this model, so the scores of this model are optimistically "
        "biased. Hold out the same images for both, or evaluate on other data."
    )

    # Publishing
    PSEUDONYMS_DAMAGED = "{path} is not a key file of random codes. Restore it, or pass another --pseudonym_key."
    LICENCE_NOT_WRITTEN = "No licence is written: {reason}"
    LICENCE = "Licence: {licence}"
    LICENCE_UNKNOWN = (
        "The licence of {names:list} is not known, so the model card names none. State it with --license, e.g. "
        "--license cc-by-nc-4.0 for models derived from the ImageNet MAE weights."
    )

"""Messages of the commands: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class WorkflowMessage(Message):
    """Errors and warnings of the commands."""

    # Processes that load images
    WORKER_LOST = (
        "A process that loads images ended ({reason}). The shared memory (/dev/shm) has {megabytes:.0f} MB; a "
        "container gets more with --shm-size. Otherwise, pass --dataloader_num_workers 0, or a smaller batch size."
    )
    TEMP_PATH_TOO_LONG = (
        "The processes that load images cannot connect, because the path of the temporary folder is too long ({path}). "
        "Set TMPDIR to a shorter path, or pass --dataloader_num_workers 0."
    )
    SAMPLE_SIZE_TOO_LARGE = "A half-width of {half_width:g} needs over a billion images. Pass a larger --half_width."

    # finetune, plan
    AUTO_SETTING = "--auto chose {name} {value}: {reason}."

    # search
    OPTUNA_MISSING = "hf-mae search needs optuna. Install it with pip install 'hf_mae[search]'."
    SEARCH_WITHOUT_EVALUATION = (
        "The data has neither a validation nor a test split, so the best model only has the scores that selected it, "
        "which are optimistically biased. Pass --val_fraction 0.2 to hold out a validation split."
    )

    # audit, prepare, shard, push-dataset, cache
    AUDIT_IMAGES_DIFFER = (
        "{data_dir} contains none of the images that the runs predicted. Pass the dataset of the runs as --data_dir."
    )
    AUDIT_LABEL_DIFFERS = (
        "{file_name} has the label {predicted_label} in the predictions and {label} in {data_dir}. Pass the "
        "--corrections that the runs were trained with, or train them again."
    )
    PREPARED_CACHE_FULL = "{reason} To check the images without caching them, pass --cache false."
    PUSH_WITHOUT_GROUPS = (
        "The patients are unknown, so users of the dataset cannot split it by patient. Pass --group_column or "
        "--group_pattern if they are known."
    )

    # crossval
    CROSSVAL_SETTINGS_DIFFER = (
        "{folder} has a completed run with different settings ({differences}). Choose another --output_dir."
    )
    PREDICTIONS_NOT_POOLED = "Some images are in several folds of {folder}, so their predictions are not pooled."

    # checkpoints
    UNKNOWN_CHECKPOINT = "Unknown checkpoint {name}{suggestion}. Run hf-mae checkpoints for the list."

    # evaluate, predict
    CLASSES_DIFFER = "{model} and {benchmark} have different classes: {names:list}. Pass --class_map FILE."
    CLASS_ORDER_DIFFERS = (
        "{model} and {benchmark} have the same classes in a different order. Fine-tune the model with --benchmark "
        "{benchmark}."
    )
    OOD_NOT_FITTED = (
        "{data} has no training images, so no out-of-distribution detector is fitted. Pass data with a training split "
        "to fit one."
    )
    OOD_MISSING = (
        "{folder} has no out-of-distribution detector, because it was fitted without training images. Run hf-mae "
        "evaluate with --fit_uncertainty on data with a training split, and pass its output folder as --uncertainty."
    )
    SETS_UNINFORMATIVE = (
        "Every prediction set contains {names:list}, because there are too few calibration images for this coverage. "
        "Lower --prediction_sets, or calibrate on more images."
    )

    # probe
    PROBE_NEEDS_CLASSES = "{data} has only one class. A probe needs at least two."
    PROBE_FLAG_NEEDS_MAE = "--{flag} applies to MAE ViTs only, and {source} is a different architecture. Omit it."

    # explain
    EXPLAIN_ENSEMBLE = "{ensemble} is an ensemble, and explain supports single models only. Explain a member: {member}."
    EXPLAIN_NEEDS_VIT = "{source} is a {model}, and explain supports ViTs only."
    UNKNOWN_TARGET = "--target {target} is not a class of {model}. Choose one of {classes:list}."

    # ensemble
    ENSEMBLE_OF_ONE = "{source} is a single model. An ensemble needs at least two. Pass more runs."
    ENSEMBLE_DUPLICATE = "{source} is specified twice, so it would count twice in the mean. Specify it once."

    # reconstruct
    NO_DECODER = (
        "{source} has no decoder, which is needed for reconstruction. Use a checkpoint with the pre-training decoder, "
        "such as {names:list} (hf-mae checkpoints lists all)."
    )
    NORM_PIX_LOSS_UNKNOWN = (
        "{source} does not state whether its decoder predicts normalized patches. Pass --norm_pix_loss true or "
        "--norm_pix_loss false."
    )
    PLATFORM_UNTESTED = (
        "hf-mae {command} is tested on Linux only, not on {platform}. Conversion, evaluation and prediction are tested "
        "there."
    )
    IMAGE_UNREADABLE = "{path} cannot be read ({reason})."

    # push, demo, export-onnx
    PACKAGE_NOT_INSTALLED = "{package} is not installed. Run: pip install 'hf_mae[{extra}]'."
    DEMO_NEEDS_CLASSIFIER = "{model} is not a classifier, so it has no demo. Omit --demo."
    PRIVATE_SPACE_NEEDS_TOKEN = (
        "The model is private. Add a secret HF_TOKEN in the settings of the Space, so that it can read the model."
    )
    DEMO_SHOWS_IMAGES = (
        "The page would show training images (--data_dir) to others. Pass --publish_images, or omit --data_dir."
    )
    DEMO_REACHABLE = (
        "Other machines can access the demo and upload files to this machine. Omit --host and --share to prevent this."
    )
    PORT_UNAVAILABLE = "Port {port} of {host} cannot be used. Pass another --port."
    ONNX_NEEDS_RUN_FOLDER = (
        "{model} is not a local folder, so the output folder cannot be chosen automatically. Pass an OUTPUT_DIR."
    )
    ONNX_NEEDS_OUTPUT_DIR = (
        "{model} has no preprocessor_config.json (timm stores the preprocessing elsewhere). Pass an OUTPUT_DIR."
    )
    ONNX_LOGITS_DIFFER = (
        "The logits of the exported model differ from those of PyTorch by {difference:.2g}, more than {tolerance:g}. "
        "No file was written. Please open an issue with the versions of torch and onnxruntime."
    )

"""Messages of models: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class ModelMessage(Message):
    """Errors and warnings of building, loading and combining models."""

    # Building
    POOLING_NEEDS_MAE = "--pooling applies to MAE ViTs only, and {source} is a different architecture. Omit it."
    ATTENTION_HEADS_NEED_MAE = (
        "--num_attention_heads applies to MAE ViTs only, and {source} is a different architecture. Omit it."
    )
    PATCH_DROPOUT_NEEDS_MAE = "--patch_dropout applies to MAE ViTs only, and this model is a {model}. Omit it."
    INPUT_NOT_RGB = (
        "{source} takes images of {channels} channels, but images are read as RGB (3 channels). Use a model with 3 "
        "input channels."
    )
    INPUT_NOT_SQUARE = (
        "{source} takes images of {size} pixels, but only square images are supported. Pass --image_size N to resize "
        "its position embeddings, if the command has this flag."
    )
    LABEL_IDS_HAVE_GAPS = "id2label must number its {count:count class} from 0 without gaps."
    NUM_LABELS_DIFFER = "num_labels is {num_labels}, but id2label names {count:count class}."
    LABEL_MAPS_DISAGREE = "id2label and label2id disagree."
    UNKNOWN_SIZE = "{size} is not a model size. Choose one of: {sizes:list}."

    # Networks other than an MAE ViT
    UNUSABLE = "{source} cannot be used. {reason}"
    INPUT_SIZE_UNSUPPORTED = "{source} does not accept images of {size} pixels ({reason})."
    NO_LINEAR_HEAD = (
        "The last linear layer of a {model} does not have one output per class ({classes:count class}), so it is not a "
        "linear classification head, which hf_mae requires."
    )
    SEVERAL_HEADS = (
        "A {model} has {count:count classification head} ({names:list}), and only networks with one are supported. "
        "Choose the variant without distillation."
    )
    NO_BLOCKS = "No residual blocks were found in a {model}, so this command does not support it."
    NUM_CLASSES_MISSING = "{source} has no classification head. Specify the number of classes."
    WEIGHTS_MISSING = (
        "Weights of a {model} are missing from {source}, or have a different shape: {names:list}. Check that its "
        "config.json belongs to these weights."
    )

    # Loading
    IS_A_FILE = (
        "{path} is a file, not a model folder. Convert it with `hf-mae convert {path} FOLDER` and pass the folder. If "
        "the model is only pre-trained, fine-tune it first: hf-mae finetune {path} DATA."
    )
    ONLY_PRETRAINED = "{source} is only pre-trained. Fine-tune it first: hf-mae finetune {source} DATA"
    HEAD_MISSING = "{source} has no classification head. Fine-tune it first: hf-mae finetune {source} DATA."
    HEAD_WEIGHTS_MISSING = (
        "{source} has no trained weights for {names:list}. Fine-tune it first: hf-mae finetune {source} DATA"
    )
    HEAD_IS_UNTRAINED = (
        "The classification head of {source} was never trained, so its predictions are random. Fine-tune it first."
    )
    PROCESSOR_FAILS = "The preprocessor_config.json of {source} fails on an image ({reason})."
    PROCESSOR_SIZE_DIFFERS = (
        "{source} takes images of {size} pixels, but its preprocessor_config.json makes them {width} x {height}. "
        "Correct the preprocessor_config.json."
    )

    # Ensembles
    ENSEMBLE_DAMAGED = "{path} does not list the members of an ensemble. Build it again: hf-mae ensemble RUN ..."
    ENSEMBLE_OF_OTHER_VERSION = (
        "{path} has schema version {version}, but this version of hf_mae reads version {supported}. Build it again."
    )
    ENSEMBLE_CLASSES_DIFFER = (
        "Model {number} and model 1 have different classes ({names:list}). Use models of the same classes."
    )
    ENSEMBLE_PROCESSORS_DIFFER = (
        "Model {number} uses different preprocessing from model 1 ({differences}). Only mean and standard deviation "
        "may differ."
    )

    # Public checkpoints
    CHECKPOINT_UNUSABLE = "{path} is not a usable checkpoint ({reason}). Delete it and try again."
    CHECKPOINT_DIGEST_DIFFERS = (
        "{path} is not the published {file} (MD5 {found}, expected {expected}). Delete it and try again, or download "
        "it from {url}."
    )

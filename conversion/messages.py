"""Messages of the checkpoint conversion: one member per cause and fix (see `hf_mae.errors.Message`)."""

from hf_mae.errors import Message, UsageError


class ConversionError(UsageError):
    """A checkpoint cannot be read, has an unsupported architecture, or cannot be written to its destination."""


class ConversionMessage(Message):
    """Errors and warnings of reading, converting and exporting checkpoints."""

    # Flags
    NOT_A_CHOICE = "Invalid value for --{flag}: {value}. Choose from {choices:list}."
    POOLING_WITHOUT_CLASSIFIER = (
        "--pooling {pooling} applies to classifiers, but the checkpoint is converted to a {target}. Omit --pooling."
    )
    NORM_PIX_LOSS_WITHOUT_DECODER = (
        "--norm_pix_loss applies to --to pretraining; a classifier or backbone has no pixel loss. Omit it."
    )
    NORM_PIX_LOSS_CONTRADICTS = (
        "--norm_pix_loss {value} contradicts {source}, which was trained with {recorded}. Omit --norm_pix_loss."
    )
    IMAGE_SIZE_NOT_DIVISIBLE = (
        "--image_size {image_size} is not a multiple of the patch size ({patch_size}). Choose a multiple of it."
    )

    # Sources
    NOT_FOUND = "The checkpoint {path} does not exist. Check the path."
    NOT_A_PATH_OR_HUB_ID = (
        "{source} does not exist, and it is not a valid Hub id. Check the path, or pass a Hub id such as "
        "facebook/vit-mae-base."
    )
    NOT_A_MODEL_FOLDER = (
        "{source} is not a transformers model (config.json is missing). Pass a folder with a config.json and weights, "
        "or a checkpoint file."
    )
    WEIGHTS_MISSING = (
        "{folder} contains a config.json, but no weights (model.safetensors or pytorch_model.bin). Download or copy "
        "the weights, too."
    )
    CANNOT_LOAD_CONFIG = (
        "{source} is neither a file nor a model folder, and it cannot be loaded from the Hub ({reason}). Check the "
        "path or the Hub id."
    )

    # Files
    FILE_EMPTY = "{path} is empty. Download or copy it again."
    FILE_IS_LFS_POINTER = "{path} is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository."
    FILE_IS_WEB_PAGE = "{path} is a web page, not a checkpoint. Download the file itself."
    FILE_DAMAGED = "{path} is damaged, or is not a checkpoint ({reason}). Download or copy it again."
    FILE_COMPRESSED = (
        "{path} contains compressed data (it would expand to {gigabytes:.1f} GB), which torch.save never writes. Save "
        "the weights again with torch.save."
    )
    PICKLE_FORBIDDEN_NAME = (
        "{path} was rejected, and nothing in it was executed. Its pickle imports {name}, but a checkpoint needs only "
        "tensors, numpy scalars and argparse.Namespace. Save only the state dict of the model."
    )
    PICKLE_TOO_LARGE = (
        "{path} was rejected: its pickle nests values that expand to more than {limit:,} values, which no checkpoint "
        "needs. Save only the state dict of the model."
    )
    INDEX_INVALID = "{path} is not an index of safetensors files ({reason}). Download or copy it again."
    SHARD_MISSING = "{path} lists {file}, which is not in the same folder. Download or copy that file, too."

    # JSON files of a model
    JSON_INVALID = "{path} is not valid JSON ({reason}). Fix the file, or download it again."
    JSON_NOT_AN_OBJECT = "{path} contains a {type}. A JSON object is required."
    CUSTOM_CODE = (
        "{source} requests custom Python code (auto_map), which is never executed. Only the model classes of "
        "transformers itself are supported."
    )
    CUSTOM_KERNELS = (
        "{source} requests custom kernels ({name} = {value!r}), which are code and are never executed. "
        "Delete that entry."
    )
    QUANTIZED_CONFIG = "{source} has quantized weights (quantization_config). Use the weights before quantization."
    WEIGHT_MAP_OUTSIDE_FOLDER = (
        "{path} refers to weights outside its folder ({name}), which are not read. Move them into the folder, and "
        "change the path."
    )
    VALUE_OUT_OF_RANGE = "{source} has {name} = {value!r} in its {file}. Expected: {low:,} to {high:,}."
    CONFIG_CLASS_NAMES_INVALID = "{source} has id2label = {value!r} in its config.json. Expected: class names as text."
    TIMM_ARCHITECTURE_INVALID = "{source} has architecture = {value!r}, which is not the name of a timm model."
    TIMM_NOT_AN_OBJECT = "{source} has {name} = {value!r}. A JSON object is required."
    TIMM_MODEL_ARG_INVALID = (
        "{source} has {name} = {value!r} in model_args. Only numbers and single words are allowed, and no files."
    )
    PROCESSOR_UNREADABLE = "The image processor of {source} cannot be read ({reason})."
    PROCESSOR_CONFIG_INVALID = (
        "The preprocessor_config.json of {source} does not contain an image processor, but a {type}."
    )

    # Layouts
    NOT_A_STATE_DICT = "{source} contains a {type}, which is neither a state dict nor a checkpoint that contains one."
    NO_TENSORS = "{source} contains no tensors. Its keys are: {keys:list}."
    NO_LAYOUT = (
        "{source} has no layout that can be converted. Keys that no layout has{location}: {keys:list}. Supported: "
        "{layouts:list}."
    )
    LAYOUT_AMBIGUOUS = (
        "{source} has the keys of several layouts ({layouts:list}). Keys{location}: {keys:list}. Save the parameters "
        "of one model to a file of their own."
    )
    UNSUPPORTED_LAYOUT = "{source} is {layout}, which cannot be converted: {reason}. It contains {keys:list}."
    PREFIX_AMBIGUOUS = (
        "{source} contains some parameters both with and without the prefix '{prefix}'. Save the ones that you need "
        "to a file of their own."
    )
    WRAPPER_AMBIGUOUS = (
        "{source} contains some parameters twice, with and without {wrappers:list}. Save the ones that you need to a "
        "file of their own."
    )
    NO_AVERAGED_WEIGHTS = "{source} contains no averaged weights. Omit --weights ema."
    ONLY_AVERAGED_WEIGHTS = "{source} contains only averaged weights ({location}). Omit --weights."
    SEVERAL_VITS = (
        "{source} contains {count} ViTs ({locations:list}), and the one to convert is ambiguous. "
        "Save the one that you need to a file of its own."
    )
    UNSUPPORTED_MODEL_TYPE = (
        "{source} is a {model_type} model. Only vit_mae, vit, and beit with mean pooling, without relative positions "
        "and layer scale, can be converted."
    )

    # Tensors
    PARAMETERS_MISSING = "{source} lacks {count:count parameter} of {layout}, for example {names:list}."
    NO_ENCODER = "{source} contains no ViT encoder (it has no transformer blocks, blocks.0...)."
    BLOCK_NUMBER_TOO_LARGE = "{source} contains block {number} of {prefix}, but lacks other blocks."
    DECODER_UNSUPPORTED = (
        "The decoder of {source} differs from facebookresearch/mae ({names:list}). Pass --to backbone to convert only "
        "the encoder, or --num_labels N to make a classifier from it."
    )
    TENSOR_TYPE_UNSUPPORTED = "{source}: {name} is not a dense floating-point tensor (it is {tensor_type})."
    DIMENSIONS_WRONG = "{source}: {name} has the shape {shape}. Expected: {expected:count non-empty dimension}."
    SHAPE_WRONG = "{source}: {name} has the shape {shape}, but {expected} is expected."
    PARAMETERS_INCONSISTENT = "{source} is inconsistent: {name} does not fit the other parameters."
    PATCH_EMBEDDING_NOT_A_CONVOLUTION = (
        "{source}: {name} has the shape {shape}, a linear layer over flattened patches. Only a convolution (width, "
        "channels, patch, patch) defines the order of the pixels."
    )
    PATCHES_NOT_SQUARE = "{source} has patches of {height} x {width} pixels. Only square patches are supported."
    POSITIONS_NOT_SQUARE = (
        "pos_embed of {source} has {rows} rows, which do not form a square grid of patches. "
        "Set input_size = [height, width] in the args of the checkpoint."
    )
    POSITIONS_CONTRADICT_IMAGE_SIZE = (
        "pos_embed of {source} has {rows} rows, which form neither a square grid of patches nor the grid of the image "
        "size in its args ({height} x {width}). Correct input_size = [height, width] in the args of the checkpoint."
    )
    NOT_FINITE = (
        "{source}: {name} contains {count:count non-finite value} (NaN or infinity). The training diverged, or the "
        "file is damaged. Use an earlier checkpoint."
    )
    TENSOR_LARGER_THAN_STORAGE = (
        "{source}: {name} has the shape {shape}, which is larger than the {stored:,} bytes stored for it."
    )
    CONFIG_CONTRADICTS_WEIGHTS = (
        "{source} is inconsistent: {name} has the shape {shape} in its weights, but its config.json requires "
        "{expected}."
    )
    MODEL_TOO_LARGE = (
        "{source} was not loaded: its config.json describes a model that is too large (stopped at {parts:,} modules "
        "and parameters, {millions:,.0f} million values). Check that config.json belongs to the weights."
    )
    CANNOT_BUILD_MODEL = "The model of {source} cannot be built from its config.json ({reason})."
    CANNOT_LOAD_MODEL = "{source} cannot be loaded as {class_name} ({reason})."

    # Attention heads and other facts that the args of a checkpoint state
    HEADS_CONTRADICT = "--{flag} {value} contradicts the checkpoint, which has {recorded}. Omit the flag."
    HEADS_UNKNOWN = (
        "The number of attention heads cannot be read from the weights (width {width}), and the args of the checkpoint "
        "do not contain it. Pass --{flag} N. Possible values: {choices:list}."
    )
    HEADS_DO_NOT_DIVIDE_WIDTH = (
        "{flag} = {value} does not divide the width ({width}). Correct the number of attention heads."
    )
    ARGS_VALUE_INVALID = "{source} has {name} = {value!r} in its args. Expected: {expected}."

    # Classes and heads
    CLASSES_UNKNOWN = "A classifier requires classes. Pass --num_labels N, or --labels FILE."
    NUM_LABELS_CONTRADICTS = (
        "--num_labels {num_labels} contradicts --labels, which contains {count:count name}. Omit --num_labels, or "
        "correct the names."
    )
    CLASS_NAMES_CONTRADICT_HEAD = "{source} has {names:count class name}, but a head for {head} classes."
    POOLING_CONTRADICTS_HEAD = (
        "{source} was fine-tuned with --pooling {pooling}, so its head does not fit --pooling {requested}. "
        "Use --pooling {pooling}, or convert the pre-trained checkpoint instead."
    )
    HEAD_UNSUPPORTED = (
        "{source} has parameters that facebookresearch/mae does not have ({names:list}), so its head was trained on a "
        "different input. Pass --to backbone to convert only the encoder, or a different --num_labels N for a new head."
    )
    RETFOUND_MEAN_POOLING = (
        "{source} is a RETFound classifier with mean pooling (args.model is {model}). With its timm 0.9 it applies "
        "the last norm twice, which no transformers class does. Convert it with --to backbone, or fine-tune from its "
        "encoder."
    )
    NORM_BEFORE_AND_AFTER_POOLING = (
        "{source} has a norm both before and after its pooling (norm, fc_norm), which no transformers class has. "
        "Convert it with --to backbone, or fine-tune from its encoder."
    )
    POOLING_CONTRADICTS_NORM = (
        "{source} is inconsistent: its args contain --pooling {pooling}, but its fc_norm requires mean pooling. "
        "Correct its args."
    )
    POOLING_UNSUPPORTED = (
        "{source} was fine-tuned with pooling '{pooling}' and has no fc_norm, so it pools after its norm, which no "
        "transformers class does. Convert it with --to backbone, or fine-tune from its encoder."
    )
    BATCH_NORM_UNSUPPORTED = (
        "The head of {source} contains a batch norm with weights (head.0.weight), which is not supported. Remove the "
        "parameters head.* from the file to convert only the encoder."
    )
    LABELS_NOT_FOUND = "{path} does not exist. --labels requires a file with one class name per line, or a JSON file."
    LABELS_DUPLICATE = "{source} contains the class name '{name}' more than once. Each class needs a name of its own."
    LABELS_TOO_FEW = "{source} contains {count:count class name}. At least two are required."
    LABELS_INVALID = (
        "{path} must contain a JSON list of class names, or a JSON object that maps each class name to its number."
    )
    LABELS_NOT_NUMBERED = "{path} does not number its {count} classes from 0 without gaps. Correct the numbers."

    # BEiT and data2vec
    BEIT_FLAG = "{flag} applies to MAE checkpoints, but {source} is a BEiT or data2vec checkpoint. Omit {flag}."
    BEIT_TARGET = (
        "{source} is a BEiT or data2vec checkpoint, which is converted to a classifier with mean pooling only. "
        "Omit --to and --pooling, and pass --num_labels N."
    )
    BEIT_IMAGE_SIZE = (
        "{source} requires images of {image_size} pixels, because its relative position biases have a fixed size. "
        "Omit --image_size."
    )
    BEIT_SIZES_UNSUPPORTED = (
        "{source} is a BEiT of an unsupported size. Only square images and patches with three channels are supported."
    )

    # Image processors
    PROCESSOR_CHANNELS = "--processor {processor} requires images with 3 channels, but the model has {channels}."
    PROCESSOR_NOT_SQUARE = (
        "--processor mae crops squares, but the model requires images of {height} x {width} pixels. "
        "Pass --processor square."
    )
    CANNOT_LOAD_PROCESSOR = (
        "The image processor of the source ({type}) cannot be loaded ({reason}). Pass --processor mae or --processor "
        "square."
    )

    # Verification and export
    VERIFICATION_FAILED = (
        "Verification failed: the outputs differ by {difference:.2g} (largest output {largest:.2g}) from {baseline}. "
        "Nothing was written. Non-finite weights can cause this."
    )
    TIMM_EPSILON = (
        "timm's ViT has layer norms with epsilon {expected:g}, but this model has {epsilon:g}. Use the model with "
        "transformers instead."
    )
    TIMM_PREPROCESSING = (
        "timm's evaluation cannot reproduce the image processor of this model. Use the model with transformers, or "
        "convert it with --processor mae or --processor square first."
    )

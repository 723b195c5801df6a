"""Messages of settings: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class SettingsMessage(Message):
    """Errors of commands, flags, recipes and settings."""

    # Commands and names
    UNKNOWN_COMMAND = "{name!r} is not an hf-mae command{suggestion}. See 'hf-mae --help'."
    UNRECOGNIZED_ARGUMENTS = "unrecognized arguments: {values}. Usage: {usage}"
    UNKNOWN_FLAG = "hf-mae {command} has no flag --{name}{location}{suggestion}. See 'hf-mae {command} --help_all'."
    MISSING_ARGUMENTS = "the following arguments are required: {names:list}. See 'hf-mae {command} --help'."

    # Recipes
    UNKNOWN_RECIPE = "{name} is neither a file nor a recipe{suggestion}. Choose one of {known:list}."
    YAML_INVALID = "{path} is not valid YAML ({error})."
    YAML_UNREADABLE = "{path} cannot be read ({error}). Expected: a YAML file of at most 1 MB."
    YAML_WITH_ALIASES = "{path} contains YAML aliases (&name, *name). Write the values out."
    YAML_NOT_A_MAPPING = "{path} must contain one `name: value` pair per line."
    YAML_REPEATS_NAMES = "{path} sets several values for {names:list}. Keep one of them."

    # Values
    INVALID_INTEGER = "Invalid value {value!r} for --{name}{location}: expected an integer."
    INVALID_NUMBER = "Invalid value {value!r} for --{name}{location}: expected a finite number."
    INVALID_BOOLEAN = "Invalid value {value!r} for --{name}{location}: expected true or false."
    INVALID_JSON = "Invalid value {value!r} for --{name}{location}: expected JSON."
    INVALID_TEXT = "Invalid value {value!r} for --{name}{location}: expected text."
    INVALID_PREVALENCE = (
        "Invalid value {value!r} for --{name}{location}: expected a prevalence above 0 and below 1, as 0.01, 1%, 1/101 "
        "or 1:100 (1 positive for 100 negative images)."
    )
    INVALID_CHOICE = "Invalid value {value!r} for --{name}{location}: choose from {choices:list}."
    OUT_OF_BOUNDS = "--{name} must be {bounds}, not {value!r}."
    INVALID_SIZE = "Invalid size {value!r} for {flag}: expected a size such as 200GB or 500MB."

    POSITIVE_WITHOUT_RECALL = "--positive and --prevalence need --ppv_at_recall. Pass it (e.g. 0.9), or omit them."
    PPV_METRIC_NEEDS_OPTIONS = (
        "--metric_for_best_model ppv_at_recall needs --positive CLASS and --ppv_at_recall 0.9 (and --prevalence, if it "
        "is not that of the images)."
    )

    # Paths
    PATH_NOT_FOUND = "{path} does not exist. Check the path."
    NAME_NOT_FOUND = (
        "{name} does not exist{suggestion}. Check the path, or pass a Hub id (OWNER/NAME) or a name that "
        "`hf-mae checkpoints` lists."
    )
    ARGUMENTS_SWAPPED = "{model} is a model, but it is not in the place of the model. Run: {command}"
    URL_NOT_SUPPORTED = (
        "--{name} does not accept a URL ({value}). Pass a local path; only --data_dir and IMAGES can be URLs."
    )
    OUTPUT_NOT_A_TABLE = "--output must end in .csv or .jsonl, not {path}."
    OUTPUT_NOT_AN_IMAGE = "--output must be an image file ({suffixes:list}), not {path}."
    FEATURES_NOT_A_TABLE = "--features must end in .parquet or .npz, not {path}."
    RESUME_WITHOUT_OUTPUT = "--resume requires --output FILE, the file to resume."

    # Sharded prediction
    INCOMPLETE_SHARD = "Pass --num_shards and --shard_index together."
    SHARD_INDEX_OUT_OF_RANGE = "--shard_index must be >= 0 and < --num_shards ({num_shards}), not {index}."
    SHARDS_WITHOUT_OUTPUT = "Sharded prediction requires --output FILE, on storage that all processes can access."

    # Pre-training
    STREAMING_WITH_CACHE = "--streaming does not use the pixel cache. Remove --cache_shortest_edge."
    STREAMING_WITH_AUTO_MEAN_STD = (
        "--mean_std auto needs a pass over all images, which --streaming does not make. Pass six numbers."
    )
    STREAMING_WITH_HASHES = (
        "--exclude_by hash needs a pass over all images, which --streaming does not make. Pass --exclude_by name, or "
        "pack the images with hf-mae shard and remove --streaming."
    )
    SIZE_WITH_CHECKPOINT = (
        "--{name} applies to training from scratch only; the checkpoint {checkpoint} has its own. Omit it."
    )

    # Distributed training and batch size
    BACKEND_WITHOUT_PROCESSES = "--ddp_backend applies to several processes only. Start the run with accelerate launch."
    ENGINE_WITHOUT_LAUNCHER = "--{name} requires a launcher. Start the run with accelerate launch."
    BATCH_NOT_A_MULTIPLE = (
        "--effective_batch_size {batch_size} is not a multiple of {step_size} ({processes:count process} x "
        "{per_device:count image}). Change it or --per_device_train_batch_size."
    )
    BATCH_AND_ACCUMULATION = (
        "--effective_batch_size {batch_size} requires {steps} accumulation steps ({processes:count process} x "
        "{per_device:count image}), but --gradient_accumulation_steps is {given}. Remove one of the two flags."
    )
    CONFIGS_MISSING = "{path} is missing from the installation. Reinstall hf_mae."
    UNKNOWN_CONFIG = "Unknown accelerate config {name!r}{suggestion}. Choose one of {known:list}."

    # Training arguments
    REJECTED_BY_TRANSFORMERS = "transformers rejects these arguments: {error}"
    NO_LOADER_WORKERS = (
        "{names:list} cannot be used without worker processes that load images. Pass --dataloader_num_workers N, or "
        "omit the setting."
    )
    TWO_ACCUMULATIONS = (
        "--accelerator_config has {config} accumulation steps (num_steps), but --gradient_accumulation_steps is "
        "{given}. Remove one of the two."
    )
    FP16_ON_CPU = "--fp16 requires a GPU. On a CPU, pass --bf16, or omit it."
    TRACKER_NOT_INSTALLED = "--report_to {tracker} requires a package that is not installed: pip install {tracker}."

    # Class imbalance, losses, distillation
    INVALID_CLASS_WEIGHTS = "--class_weights must be none, balanced or one number per class, not {value!r}."
    CLASS_WEIGHTS_OUT_OF_RANGE = "--class_weights must be finite and >= 0, not {value}."
    SEVERAL_REBALANCINGS = "{flags:list} each compensate for class imbalance. Choose one."
    OPTION_NOT_SUPPORTED_BY_LOSS = "--{option} is not supported by --loss {loss}. Use one of {supported:list}."
    TEACHER_WITH_LOSS = (
        "--teacher requires --loss cross_entropy without class weights. Remove --class_weights, --logit_adjustment "
        "and other losses."
    )

    AVERAGE_NOT_SAVED = (
        "--ema_decay stores the averaged weights in the checkpoints, which --save_only_model omits. Remove "
        "--save_only_model."
    )

    # Fields of TrainingArguments that are not supported
    LABEL_SMOOTHING_FACTOR = "--label_smoothing_factor has no effect here. Use --smoothing for label smoothing."
    OPTIM_TARGET_MODULES = (
        "--optim_target_modules conflicts with the parameter groups of layer-wise learning-rate decay. Omit it."
    )
    LANGUAGE_MODELS_ONLY = "--{name} applies to language models only. Omit it."
    AUTO_FIND_BATCH_SIZE = (
        "--auto_find_batch_size would change the batch size from which the learning rate is computed. Pass a smaller "
        "--per_device_train_batch_size, with --effective_batch_size to keep the number of images per update."
    )
    PARALLELISM_CONFIG = (
        "--parallelism_config is not supported: it is meant for models that exceed the memory of one device. Omit it."
    )
    LOCAL_RANK = "--local_rank is set by the launcher, in the environment. Use accelerate launch."
    SCORES_NEED_ALL_PREDICTIONS = (
        "--{name} is not supported: scores are computed from the predictions of all images together. Omit it."
    )
    NOT_NEEDED = "--{name} is not needed here: columns, labels and checkpoints on signals need no setting. Omit it."
    SET_BY_COMMAND = "--{name} has no effect here: the command determines what is run. Omit it."
    PRETRAINING_NOT_EVALUATED = (
        "--{name} {value} does not apply to pre-training, which has no images to evaluate on. Omit it. hf-mae probe "
        "evaluates a pre-trained model."
    )
    SAMPLING_STRATEGY = (
        "--train_sampling_strategy must be one of {known:list}, not {value}: all images have the same length."
    )
    SPLIT_BATCHES = (
        "--accelerator_config split_batches reduces the batch size from which the learning rate is computed. Omit it."
    )

    # Combinations of options
    FIT_TEMPERATURE_WITHOUT_OUTPUT = "--fit_temperature writes temperature.json, so it needs --output_dir."
    FIT_TEMPERATURE_TWICE = "Pass either --fit_temperature or --temperature, not both."
    FIT_UNCERTAINTY_WITHOUT_OUTPUT = "--fit_uncertainty writes uncertainty.json, so it needs --output_dir."
    FIT_UNCERTAINTY_WITH_CLASS_MAP = "--fit_uncertainty does not support --class_map. Omit one of the two."
    EXPLAIN_WITHOUT_IMAGES = "Specify images to explain, or --data_dir for the most confident mistakes on a split."
    AUDIT_DATA_MISSING = "DATA is missing. Pass a dataset, or --runs to find label errors. See 'hf-mae audit --help'."
    SHARD_OUTPUT_MISSING = "hf-mae shard requires an OUTPUT_DIR, or --check to check existing shards."
    SHARD_SIZE_INVALID = "--shard_size must be a size such as 500MB, not {value}."
    NAME_REQUIRED = "'{action}' requires a NAME. Without arguments, the command lists the names."
    REPORT_WITHOUT_RUNS = (
        "RUN is missing. Pass the folders of completed runs, --benchmark to show the published results only, or "
        "--annotators with --manifest for the agreement of annotators."
    )
    EXPECTED_SCORE_MISSING = "Pass the expected {score} with --expected, a fraction between 0 and 1."
    PREVALENCE_MISSING = "The sample size for {score} depends on the prevalence. Pass --prevalence."
    DISCORDANT_MISSING = (
        "Pass --discordant, the fraction of the images on which exactly one model is right: at least {difference:g}."
    )
    DIFFERENCE_WITHOUT_EFFECT = (
        "No effect can be found. Pass an --expected difference other than 0, or a --margin that is greater than an "
        "expected loss."
    )
    CHECKLIST_WITHOUT_RUN = "--checklist describes a run. Pass the folder of one."
    SEVERAL_MODELS_CANNOT_BE_PUSHED = (
        "hf-mae {command} trains several models, so it cannot use --push_to_hub. Push one of them with hf-mae push."
    )
    INVALID_FOLDS = "Invalid value {value} for --folds: expected official, a number of folds, or each:COLUMN."
    RANDOM_FOLDS_WITHOUT_CENTRES = (
        "--random_folds needs --folds each:COLUMN. Omit it, or name a column of the manifest."
    )
    CENTRES_WITH_BENCHMARK = (
        "--folds each:COLUMN reads a column of a manifest, which a benchmark does not have. Omit --benchmark, and "
        "pass the images with a manifest."
    )
    UNKNOWN_SEARCH_SETTING = "--search supports {known:list}, not {unknown:list}."
    SEARCH_NEEDS_ONE_PROCESS = "hf-mae search supports one process only. Start it without accelerate launch."
    OUTPUT_DIR_REQUIRED = "Runs with several processes require an output folder. Pass --output_dir."
    INT8_NEEDS_DATA = "--int8 changes scores. Pass --data_dir, so that the difference can be measured."
    CLASS_ORDER_WITH_BENCHMARK = "--class_order cannot be used with --benchmark, which defines the order. Omit it."
    GROUP_COLUMN_WITH_BENCHMARK = (
        "--group_column is a column of a manifest. With --benchmark, use --group_pattern instead."
    )
    MANIFEST_WITH_BENCHMARK = (
        "--manifest, --class_level and --split_from cannot be used with --benchmark, which defines classes and splits. "
        "Omit them."
    )
    BENCHMARK_OPTIONS_WITHOUT_BENCHMARK = (
        "--split_file, --fold and --agreement require --benchmark. Omit them, or pass --benchmark NAME."
    )
    UNKNOWN_BENCHMARK = (
        "Unknown benchmark {name}{suggestion}. Choose one of {known:list}, or pass a file of your own (.yaml)."
    )
    GROUP_PATTERN_WITH_BENCHMARK = "{benchmark} defines its patients or videos. Omit --group_pattern."
    VAL_FRACTION_WITH_OFFICIAL_SPLIT = "{benchmark} has official splits. Omit --val_fraction."
    BENCHMARK_UNKNOWN_FOLD = "{benchmark} has the folds 1 to {folds}, not {fold}."
    BENCHMARK_UNKNOWN_AGREEMENT = "{benchmark} has no annotator agreement {agreement}. Choose one of {agreements:list}."
    BENCHMARK_WITHOUT_AGREEMENTS = "{benchmark} has one label per image. Omit --agreement {agreement}."
    BENCHMARK_INVALID = "The benchmark {path} is not valid: {reason}."
    BENCHMARK_DUPLICATE_CLASSES = "Benchmark {path}: classes must be at least two different names."
    BENCHMARK_UNKNOWN_CLASS = "Benchmark {path}: {name} is not one of its classes{suggestion}."
    BENCHMARK_FOLD_COUNTS = (
        "Benchmark {path}: the protocol {protocol} has counts of {count:count fold}, but the setting folds is {folds}."
    )
    BENCHMARK_UNKNOWN_PROTOCOL = (
        "Benchmark {path}: the published result of {method} is ranked, but its protocol {protocol} is not in protocols."
    )
    BENCHMARK_INVALID_GROUP_PATTERN = (
        "Benchmark {path}: group_pattern {pattern} is not valid: {reason}. Put the part that matches the patient or "
        "video in parentheses."
    )
    ODD_BATCH_FOR_MIXUP = (
        "Mixup and CutMix mix pairs of images. --per_device_train_batch_size must be even, not {batch_size}."
    )

    # Metrics and losses
    LOSS_NEEDS_ORDERED_CLASSES = "--loss {loss} needs ordered classes. Pass their order with --class_order."
    METRIC_NEEDS_ORDERED_CLASSES = (
        "--metric_for_best_model {metric} needs ordered classes. Pass their order with --class_order."
    )
    UNKNOWN_METRIC = (
        "--metric_for_best_model must be one of {known:list} (computed on the validation split), not "
        "{metric}{suggestion}."
    )
    SMALLEST_IS_BEST = (
        "--greater_is_better true contradicts --metric_for_best_model {metric}: its smallest value is the best. Remove "
        "--greater_is_better."
    )
    GREATEST_IS_BEST = (
        "--greater_is_better false contradicts --metric_for_best_model {metric}: its greatest value is the best. "
        "Remove --greater_is_better."
    )

    # Licences
    UNKNOWN_LICENCE = "--license {value!r} is not a licence id of the Hub{suggestion}, e.g. cc-by-4.0 or other."
    LICENCE_TOO_PERMISSIVE = (
        "The model inherits the licence {inherited}, so it cannot be published under {stated}. Pass --license "
        "{inherited}, or omit it."
    )
    LICENCE_WITHOUT_DERIVATIVES = (
        "The licence of {name} ({licence}) does not allow derived models, so this model cannot be published."
    )
    LICENCES_CONTRADICT = (
        "The licences of {first} and {second} contradict each other, so a model that is derived from both cannot be "
        "published."
    )

"""Messages of training: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class TrainingMessage(Message):
    """Errors and warnings of trainers, schedules, checkpoints and plans."""

    # Settings that do not fit together, or do not fit the data or the network
    BATCH_NORM_UNSUPPORTED = (
        "{flag} does not support batch normalization, and the network ({network}) uses it. Remove {flag}."
    )
    CLASS_WEIGHTS_DO_NOT_MATCH = (
        "--class_weights has {found} numbers, but the model has {expected} classes. Pass one number per class."
    )
    CLASS_COUNTS_OF_SOFT_LABELS = "Soft labels have no class counts. Pass class_weights as a list of numbers."
    SAMPLING_OF_OTHER_DATASET = (
        "The training dataset does not sample its images as --sampling {sampling} requires. Pass a datasets.Dataset "
        "of images, or an hf_mae TrainDataset with the same sampling."
    )
    PROCESSING_CLASS_MISSING = (
        "A dataset of images needs an image processor. Pass processing_class=image_processor(family, image_size) from "
        "hf_mae.data."
    )
    FEWER_IMAGES_THAN_A_BATCH = (
        "The training set has {images:count image}, fewer than a batch of {batch_size}. Mixup and "
        "--dataloader_drop_last drop incomplete batches. Pass a smaller --per_device_train_batch_size."
    )

    # Optimizer and schedule
    OPTIMIZER_UNAVAILABLE = "--optim {name} cannot be used: {error}"
    OPTIMIZER_DEFINES_GROUPS = (
        "The optimizer {name} defines its own parameter groups ({arguments:list}), which conflict with the groups of "
        "layer-wise learning-rate decay. Choose another optimizer."
    )
    LEARNING_RATES_CHANGED = (
        "{engine} changed the learning rate or the weight decay of {count:count parameter} ({examples}). Use another "
        "accelerate config (hf-mae configs lists them), and report this as a bug."
    )
    SCHEDULER_UNAVAILABLE = "--lr_scheduler_type {name} cannot be used with --lr_scheduler_kwargs {settings} ({error})."
    SETTING_WITHOUT_EFFECT = "{setting} has no effect with --lr_scheduler_type {name}."
    WARMUP_SHORTENED = (
        "The warm-up of {warmup:.0f} updates is as long as the training ({updates:count update}), so it is shortened "
        "to {shortened} (a tenth). Pass --warmup_epochs or --warmup_steps to choose another."
    )

    # Building the trainer
    SETUP_REJECTED = "The training cannot start with these settings: {error}"
    COMPILATION_FAILED = (
        "--torch_compile failed: {error} Install a C++ compiler (g++ or clang++), or remove --torch_compile."
    )
    DEEPSPEED_DEFINES_OPTIMIZER = (
        "The DeepSpeed config defines its own {sections:list}, which would replace the layer-wise learning rates and "
        "the schedule of these settings. Remove these sections{also}."
    )
    DEEPSPEED_CONTRADICTS = (
        "The DeepSpeed config contradicts the settings: {mismatches:list}. Write auto for these values, or change the "
        "settings."
    )
    ARGUMENTS_OF_OTHER_CLASS = (
        "args must be {expected}, not {found}, because the trainer reads settings that {found} lacks. Pass "
        "{expected}(output_dir=..., ...), which has the same fields and more."
    )

    # Losses, interruptions and trackers
    TRACKER_FAILED = "{tracker} failed ({reason}). The training continues without this tracker."
    LOSS_NOT_FINITE = (
        "The loss became {loss} at update {step}, so training stopped. Use a lower learning rate. Images of the batch: "
        "{images:list}. Last checkpoint: {checkpoint}."
    )
    LOSS_NOT_FINITE_FP16 = (
        "The loss became {loss} at update {step}, so training stopped. Use --bf16 instead of --fp16, or a lower "
        "learning rate. Images of the batch: {images:list}. Last checkpoint: {checkpoint}."
    )
    STOP_SIGNAL = "Received {signal}: saving a checkpoint at update {step}."
    STOP_SIGNAL_ON_OTHER_PROCESS = "Another process received a stop signal: saving a checkpoint at update {step}."
    STOPPED_BY_SIGNAL = (
        "A signal stopped the run at update {step}; a checkpoint was saved. To resume, repeat the command with "
        "--resume_from_checkpoint last."
    )
    PROCESS_LOST = (
        "Another process of this run ended or cannot be reached ({error}). Process {rank} stopped at update {step}. To "
        "resume, repeat the command with --resume_from_checkpoint last."
    )

    # Checkpoints
    NOT_A_CHECKPOINT = "{path} is not a checkpoint."
    CHECKPOINT_INCOMPLETE = "{path} is incomplete: the run was killed while it saved this checkpoint."
    CHECKPOINT_STATE_UNREADABLE = "{path} is damaged: trainer_state.json or launch.json cannot be read."
    CHECKPOINT_STATE_OF_OTHER_STEP = "{path} is damaged: its trainer_state.json belongs to update {step}."
    CHECKPOINT_FILE_TRUNCATED = "{path} is damaged: {file} is truncated."
    CHECKPOINT_FILE_NOT_REGULAR = "{path} was rejected: {file} is not a regular file."
    CHECKPOINT_FILE_TOO_LARGE = "{path} was rejected: {file} is larger than {limit:.0f} MB, which no checkpoint needs."
    CHECKPOINT_IMPORTS = (
        "{path} was rejected, and nothing in it was executed. {file} imports {name}, but a checkpoint needs only "
        "tensors and plain values."
    )
    CHECKPOINT_VALUE_INVALID = "{path} is damaged: {file} has {name} {value}."
    CHECKPOINT_CANNOT_BE_LOADED = "{path} cannot be loaded ({reason}). Resume with the settings of the original run."
    OPTIMIZER_STATE_SHAPE = (
        "{path} belongs to another model: the optimizer state of {name} has the shape {saved}, but the parameter has "
        "{found}."
    )
    CHECKPOINT_SKIPPED = "{defect} This checkpoint is skipped."
    OPTIMIZER_STATE_MISSING = (
        "{path} was saved without optimizer state (--save_only_model), so a run cannot resume from it. Start a new run "
        "from its weights: --model_name_or_path {path} and another --output_dir."
    )
    CHECKPOINT_BEYOND_MAX_STEPS = (
        "{path} is at update {step}, beyond --max_steps {max_steps}. Resume with the original --max_steps or a larger "
        "one."
    )
    CHECKPOINT_BEYOND_EPOCHS = (
        "{path} belongs to a run of {saved:g} epochs ({done:g} completed), more than --num_train_epochs {epochs:g}. "
        "Resume with the original number of epochs or a larger one."
    )
    SCHEDULE_EXTENDED = (
        "The run was started for {saved:g} epochs and now has {epochs:g}. From here on, the learning rate follows the "
        "schedule of the longer run."
    )
    CHECKPOINT_CLASSES_DIFFER = (
        "{path} was trained with the classes {saved:list}, but the data has {found:list}. Resume with the original "
        "classes."
    )
    CHECKPOINT_MODEL_DIFFERS = (
        "{path} has {name} {saved}, but this run has {found}. Resume with the settings of the original run."
    )
    CHECKPOINT_ENGINE_DIFFERS = (
        "{path} was saved by {processes:count process} under {saved}, but this run uses {engine}. Resume with the same "
        "accelerate config, or start a new run from its weights (--model_name_or_path {path})."
    )
    CHECKPOINT_SHARDS_DIFFER = (
        "{path} was saved by {saved:count process} under DeepSpeed, each with its shard of the optimizer state, but "
        "this run has {processes}. Resume with the same number of processes."
    )
    PROCESSES_CHANGED = "{path} was saved by {saved:count process} under {engine}. This run resumes with {processes}."
    EFFECTIVE_BATCH_CHANGED = (
        "The effective batch size was {saved} and is now {batch_size}. The run resumes at the next image, with the "
        "learning rate of this batch size. Pass --effective_batch_size {saved} for the updates of the original run."
    )
    BATCH_OF_STREAM_CHANGED = (
        "{path} was saved with an effective batch size of {saved}, now it is {batch_size}. Data of unknown length can "
        "only be resumed with the same one. Pass --effective_batch_size {saved}."
    )
    DATASET_LENGTH_CHANGED = (
        "{path} was saved within an epoch of {saved:count image}, but the training set has {found}. Resume with the "
        "original images."
    )

    # Weight averages in checkpoints
    CHECKPOINT_WITHOUT_AVERAGE = (
        "{path} was saved without --ema_decay. Resume without it, or start a new run from its weights "
        "(--model_name_or_path {path}, another --output_dir)."
    )
    CHECKPOINT_WITH_AVERAGE = "{path} was saved with --ema_decay. Resume with it."
    AVERAGE_OF_OTHER_PARAMETERS = (
        "{path} averages other parameters than this run trains. Resume with the settings of the original run."
    )
    EMA_DECAY_CHANGED = "{path} was averaged with --ema_decay {saved:g}. The average continues with {decay:g}."

    # Streams
    TORCHDATA_MISSING = "--streaming needs torchdata. Install it with pip install 'hf_mae[streaming]'."
    STREAM_LENGTH_UNKNOWN = "The number of images in {source} is unknown. Pass --max_steps N, the number of updates."
    TOO_FEW_STREAM_FILES = (
        "{source} has {count:count file} for {num_loaders} loaders (processes x --dataloader_num_workers), but each "
        "loader reads its own files. Use fewer loaders, or smaller shards."
    )
    STREAMED_IMAGE_SKIPPED = "{file} cannot be read ({reason}). The next image replaces it."
    NO_READABLE_STREAMED_IMAGE = "None of the images in {file} and the other files of the stream can be read."
    CHECKPOINT_WITHOUT_STREAM = (
        "{path} was not saved by a run with --streaming. Resume with the settings of the original run."
    )
    STREAM_WORKERS_DIFFER = (
        "{path} was saved with --dataloader_num_workers {saved}, and each worker reads its own files. Resume with that "
        "number, not {workers}."
    )

    # Hyper-parameter search
    STUDY_UNREADABLE = (
        "{path} cannot be read as the Optuna study of a search ({error}). Move it away to start a new search."
    )
    STUDY_SETTINGS_DIFFER = (
        "The search in this folder was started with other settings ({names:list}). Choose another --output_dir."
    )
    UNKNOWN_TRIAL_SETTINGS = "The search space has {names:list}, which the training arguments do not have."
    NO_FINITE_TRIAL = "No trial finished with a finite loss. Search around a lower --learning_rate."

    # Memory
    BATCH_DOES_NOT_FIT = (
        "A training step with --per_device_train_batch_size {batch_size} does not fit into the memory of {gpu}. "
        "Pass --per_device_train_batch_size {fitting} --effective_batch_size {effective_batch_size}, which makes the "
        "same updates."
    )
    NO_BATCH_FITS = "Not even one image fits into the memory. Use a smaller model or a smaller --image_size."

    # Warnings of the plan
    UNUSUAL_LEARNING_RATE = (
        "The learning rate is {rate:.3g}; published rates for these models are between {low:g} and {high:g}."
    )
    CACHE_DOES_NOT_FIT = (
        "Decoded images would take {needed}, but the cache has space for {available}. They are decoded again in every "
        "epoch, which is slower. Raise --cache_limit, or set HF_HOME to a folder on a larger disk."
    )
    BATCH_LARGER_THAN_DATASET = (
        "The effective batch of {batch_size} images is larger than the training set. Reduce "
        "--per_device_train_batch_size or --effective_batch_size."
    )
    LONG_WARMUP = "The warm-up takes {warmup} of {updates} updates. Consider a smaller --warmup_epochs."
    SMALL_CLASSES = "These classes have fewer than {minimum} training images: {classes:list}."
    CLASS_IMBALANCE = (
        "The largest class has {ratio:.0f} times as many images as the smallest. Consider --sampling square_root."
    )
    SMALL_SELECTION_SPLIT = (
        "The best epoch is selected on only {images:count image}, so one image changes the accuracy by {points:.1f} "
        "percentage points."
    )
    GROUPS_UNKNOWN = (
        "The patients or videos of the images are unknown, so one may occur in several splits. Add a group column to "
        "the manifest, or pass --group_pattern."
    )
    NO_VALIDATION_SPLIT = (
        "The data has no validation split, so the last epoch is kept without validation. Pass --val_fraction 0.1 to "
        "hold out a validation split."
    )
    FP16_WITH_VIT_HUGE = "--fp16 leads to NaN losses with a ViT-H. Use --bf16."

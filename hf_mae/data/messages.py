"""Messages of data sources: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ..errors import Message


class DataMessage(Message):
    """Errors and warnings of folders, manifests, archives, tables, benchmarks and splits."""

    # Sources
    SOURCE_UNREACHABLE = "{source} cannot be reached ({reason}). Check the address and the network connection."
    NO_DATA_AT_URL = "{source} contains no tar, zip or parquet files and no saved dataset. Check the address."
    DATASET_NOT_LOADED = (
        "{source} is not an existing path, and datasets cannot load it ({reason}). Check the path or the Hub id."
    )
    NOT_A_DATA_SOURCE = (
        "{source} does not exist, or is not a folder, manifest, archive or table of images. Check the path."
    )
    FILES_IGNORED = "Ignored in {source}: {ignored:list}."
    NO_IMAGES_IN_FOLDER = "The folder {folder} contains no images. Check the path."
    GLOB_MATCHES_NOTHING = "No file matches {pattern}. Check the pattern."

    # Folder layouts
    FOLDER_WITHOUT_CLASSES = "{root} contains no images. Put the images into one folder per class."
    FOLDER_WITHOUT_READABLE_IMAGES = (
        "{root} contains no images (ignored: {ignored}). Put the images into one folder per class."
    )
    SPLITS_AT_TWO_LEVELS = (
        "{root} contains folders of different splits above one image ({name}: {splits:list}). Remove one of these "
        "levels. If one of them is a class, pass --class_level {level}, or --split_from none or column to ignore the "
        "names of the folders."
    )
    IMAGES_OUTSIDE_CLASS_FOLDERS = (
        "{root} contains {count:count image} outside class folders ({names}). The class of an image is the name of its "
        "folder. Move the images into class folders. If their folder is a class that is named like a split, pass "
        "--split_from none."
    )
    SAME_CLASSES_IN_TWO_FOLDERS = (
        "{root} contains {names:list} in both {first}/ and {second}/. If these are splits, rename them to train, "
        "validation or test. If {example} is a class, pass --class_level {level}. If {first} is a class and {example} "
        "is a patient or a part of it, pass --class_level 1."
    )
    PATIENT_FOLDERS_IN_PART = (
        "{root} contains folders that look like patients or videos ({patient}) and other folders ({other}). If the "
        "first folder is the class, pass --class_level 1. If {folder} is a class, pass --class_level {level}."
    )
    PATIENTS_ABOVE_CLASSES = (
        "{root} contains only folders that look like patients or videos ({folder}, ...), and no class folders. Name "
        "the level of the classes with --class_level."
    )
    NUMBERS_IN_ONE_FOLDER = (
        "{root}: all images are below {folder}/, in folders that are numbers ({number}, ...). If these are classes, "
        "pass --class_level {next_level}. If they are patients and {folder} is the class, pass --class_level {level}."
    )
    CLASS_LEVEL_TOO_DEEP = (
        "--class_level {level} is too deep for {name} in {root}, which has {count:count folder} in its path (not "
        "counting the split). Pass a smaller level."
    )
    FILE_NAME_NOT_UTF8 = (
        "{source} contains {count:count image} with a name that is not UTF-8 ({name!r}) and cannot be written to a "
        "table. Rename the files."
    )

    # Manifests and tables
    COLUMN_REPEATED = (
        "{source} has the column {columns:list} more than once, so its values are ambiguous. Rename or remove one of "
        "the columns."
    )
    TABLE_NOT_FOUND = "The table {path} does not exist. Check the path."
    TABLE_EMPTY = "{path} has no rows."
    TABLE_UNREADABLE = "{path} is not a valid table ({reason})."
    LINE_NOT_JSON = "{path}, line {line}, is not valid JSON ({reason}). Fix the line."
    LINE_NOT_OBJECT = "{path}, line {line}, is not a JSON object with one value per column. Fix the line."
    TOO_MANY_CELLS = "{path}, row {line}, has more cells than the header. Fix the row."
    COLUMNS_MISSING = "{path} has no column {columns:list}. Its columns are {existing:list}. Rename or add the column."
    LABEL_MISSING = "{location}: the value is missing ({value!r}). Fill it in, or remove the row."
    LABEL_NOT_SINGLE = "{location}: {value!r} is not a single value. An image must have exactly one class."
    MANIFEST_VALUE_MISSING = "{location}: {column} is missing ({row}). Fill it in, or remove the row."
    MANIFEST_FILES_NOT_FOUND = (
        "{manifest} lists {count:count file|that does|that do} not exist: {names}. Paths are relative to --data_dir."
    )
    SEVERAL_MANIFESTS = "{root} contains several manifests: {names:list}. Name one with --manifest."
    MANIFESTS_IN_PART = (
        "{root} has manifests in some folders only ({manifest}): {count:count image|is|are} in other folders, e.g. "
        "{example}. Write a manifest for each folder, or one for all images."
    )
    MANIFEST_CONTRADICTORY = (
        "{manifest} lists {count:count file} with different {column}: {names}. Keep one row per file."
    )
    MANIFEST_FILES_REPEATED = "{manifest} lists {count:count file} more than once ({names}). Each is used once."
    TABLE_NAMES_REPEATED = (
        "{source} repeats {count:count name} in its column file_name ({name}). The images are named by split and row "
        "number, too."
    )
    UNKNOWN_SPLIT_NAMES = "{source} has unknown split names: {unknown:list}. Rename them to one of {known:list}."

    # Datasets and their columns
    IMAGE_COLUMN_NOT_UNIQUE = (
        "{source} must have exactly one image column. Image columns: {images}. All columns: {columns:list}."
    )
    IMAGE_OR_LABEL_COLUMN_NOT_UNIQUE = (
        "{source} must have exactly one image column and one label column. Image columns: {images}. Label columns: "
        "{labels}. All columns: {columns:list}."
    )
    SPLIT_COLUMNS_DIFFER = (
        "{source} has different columns in {split} ({columns:list}) and in the first split ({expected:list})."
    )
    SEVERAL_SPLITS_WITH_ONE_NAME = (
        "{source} has several splits that are {names:list} ({splits:list}). Remove or rename all but one."
    )
    ROWS_WITHOUT_LABEL = (
        "{location} has {count:count image} without a label (row {row} has {value}). Remove these rows, e.g. with "
        "dataset.filter."
    )
    ROWS_WITHOUT_IMAGE = (
        "The {split} split has {count:count row} without an image, e.g. row {row}. Remove these rows, e.g. with "
        "dataset.filter."
    )

    # Archives
    ARCHIVE_DAMAGED = "{archive} is damaged or is not an archive of this type ({reason}). Download or copy it again."
    TAR_COMPRESSED = (
        "{archive} is a compressed tar file, from which single images cannot be read. Extract it, and create shards "
        "with hf-mae shard."
    )
    ZIP_MEMBER_ENCRYPTED = "{archive}: {member} is encrypted. Extract the archive, and zip it without a password."
    ZIP_COMPRESSION_UNSUPPORTED = (
        "{archive}: {member} has an unsupported compression method. Extract the archive, and zip it with deflate."
    )
    ARCHIVES_WITHOUT_IMAGES = "{root} contains no images ({count:count archive|was|were} searched)."
    ARCHIVE_WITHOUT_LABELS = (
        "{source} contains images without a class. Put them into one folder per class, or add a .cls "
        "or .json file for each image (WebDataset's layout), and create the archive again."
    )
    SIDECAR_JSON_DAMAGED = "The JSON file of {name} is damaged. Fix it, and create the archive again."
    TAR_KEY_AMBIGUOUS = (
        "{archive} has several images or labels for the key {key} ({members:list}). The key is the name up to the "
        "first dot, and each key must have one image and one label. Rename the members, e.g. without other dots, or "
        "leave out the masks, and create the archive again."
    )
    CLASS_NAMES_MISSING = (
        "{path} has {count:count line}, but {root} has images of class {label} (counted from 0). Add the missing class "
        "names, one per line."
    )
    CLASS_NAMES_DIFFER = "{root} has different class names in {paths:list}. Keep one of these files."
    INDEX_DAMAGED = "{index} is damaged ({reason}). Create the shards again with hf-mae shard."
    INDEX_INCOMPATIBLE = (
        "{index} is not a shard index of this version of hf_mae. Create the shards again with hf-mae shard."
    )
    INDEX_UNKNOWN_SHARDS = "{index} refers to shards that it does not list. Create the shards again with hf-mae shard."
    SHARDS_CHANGED = (
        "{index} does not match {count:count shard} (missing or of a different size): {names}. Copy the shards again, "
        "or create them again with hf-mae shard."
    )

    # Streams
    NO_STREAM_FILES = "{source} contains no archives or parquet files to stream. hf-mae shard creates them."
    STREAM_WITH_ARROW_FILES = (
        "{source} contains Arrow files, which cannot be streamed ({names:list}). Remove --streaming, or save them as "
        "parquet files."
    )
    UNREADABLE_STREAM_FILE = "{file} cannot be read as a stream ({reason}). Check the file, or create it again."

    # Invalid images
    INVALID_IMAGES = (
        "The dataset contains invalid images or folders. Fix them, or pass --on_bad_image skip to exclude them.\n"
        "{problems}"
    )
    INVALID_IMAGES_EXCLUDED = "These images are excluded from the dataset:\n{problems}"
    UNREADABLE_IMAGES = (
        "{count:count image} in {source} cannot be read. Fix them, or pass --on_bad_image skip to exclude them.\n"
        "  {images}"
    )
    UNREADABLE_IMAGES_EXCLUDED = "{count:count unreadable image|is|are} excluded from {source}:\n  {images}"
    NO_READABLE_IMAGES = "{source} contains no image that can be read."
    NO_IMAGES_LEFT = (
        "{root} has no images left. Put images ({suffixes:list}, ...) into class folders, or fix the excluded ones."
    )
    INVALID_ON_BAD_IMAGE = "on_bad_image must be error or skip, not {value}."

    # Classes and labels
    CLASS_NAMES_SIMILAR = (
        "{source} has names that differ only in upper and lower case or in the encoding of their characters: "
        "{names:list}. Give each class, or each centre, one name."
    )
    CLASSES_NOT_IN_CHECKPOINT = (
        "{source} has classes that are not in the checkpoint: {unknown:list}. The checkpoint has {known:list}. Rename "
        "or remove these classes; hf-mae evaluate also accepts a --class_map."
    )
    CLASSES_IN_ONE_SPLIT = (
        "{root} has classes with images in one split only: {classes}. Correct the names, or pass --on_missing_class "
        "keep if this is intended."
    )
    CLASSES_WITHOUT_IMAGES = "The {split} split has no images of {names:list}. The class ids stay the same."
    INVALID_ON_MISSING_CLASS = "on_missing_class must be error or keep, not {value}."
    CLASS_LEVEL_WITH_MANIFEST = "--class_level applies to class folders. Omit it: the manifest has the classes."
    CLASS_ORDER_DIFFERS = (
        "--class_order has {class_order:list}, but {source} has the classes {names:list}. List each class once."
    )
    CLASS_MAP_COLUMNS_MISSING = "{path} has no column {columns:list}. A class map has the columns data and model."
    CLASS_MAP_UNKNOWN_CLASS = "{path}: the model has no class {name}{suggestion}."
    CLASS_MAP_CONTRADICTORY = "{path} both maps and excludes {names:list}. Remove one of the rows."
    CLASS_MAP_INCOMPLETE = (
        "{source} has classes that are not in the class map: {names:list}. Add a row for each; an empty `model` "
        "excludes the class."
    )
    CLASS_MAP_WITHOUT_IMAGES = "{source} has no images of the model's classes. Check the class map."
    CORRECTIONS_UNREADABLE = "The label corrections {path} cannot be read ({reason})."
    CORRECTIONS_COLUMNS_MISSING = (
        "{path} is not a valid file of label corrections: the column {columns:list} is missing. hf-mae audit --runs "
        "writes such a file; fill in its column decision."
    )
    CORRECTION_INVALID = (
        "{path}, line {line}: the decision {decision} is not a class{suggestion}. Use the name of a class, keep or "
        "remove."
    )
    CORRECTION_CONTRADICTORY = (
        "{path}, line {line}: a different decision for {file_name} is in an earlier line. Keep one of them."
    )
    CORRECTIONS_UNKNOWN_IMAGES = (
        "{path} has decisions about {count:count image} that the data does not contain, e.g. {example}. Check that it "
        "belongs to this dataset and that the file names are the same."
    )
    CORRECTIONS_OUTDATED = (
        "{path} was written when the label of {file_name} was {label}, and it is {current_label} now. Review the "
        "labels again (hf-mae audit --runs)."
    )

    # Lists of images
    EXCLUDE_MATCHES_NOTHING = (
        "--exclude {pattern} matches no image. Pass files, folders, globs or lists of images (LIST or LIST:SPLIT)."
    )
    LIST_WITHOUT_FILE_NAMES = "{path} has no column with file names. Name it one of {columns:list}."
    LIST_WITHOUT_SPLITS = (
        "{path} has no column split, so the rows of {split} are unknown. Add this column, or pass the list without a "
        "split."
    )
    LIST_UNKNOWN_SPLIT = "{path} has no rows of {split}. The values of its column {column} are {values:list}."
    PAIRS_FILE_NOT_FOUND = "The file of image pairs {path} does not exist. Check the path."
    PAIRS_COLUMNS_MISSING = (
        "{path} is not a valid file of image pairs: the column {columns:list} is missing. hf-mae audit writes such a "
        "file."
    )
    PAIRS_MATCH_NO_IMAGE = "{path} lists no image of the dataset. Its file names must be relative to --data_dir."

    # Splits, groups and folds
    SPLITS_CONTRADICT = (
        "{source} gives {count:count image} two splits. {name}: {readings:list}. Correct one of them, or pass "
        "--split_from {choices}."
    )
    SPLITS_INCOMPLETE = (
        "{source} gives only some images a split: {name} is in {split} ({reading}), but {count:count image|has|have} "
        "none, e.g. {other}. Move all images into splits, or name the splits in a column `split`. To train on all "
        "images, or if a class is named like a split, pass --split_from none."
    )
    SEVERAL_SPLITS_IN_NAME = (
        "The names in {source}, e.g. {name}, may mean several splits ({splits:list}), and nothing else states a split. "
        "Move the images into splits, name the splits in a column `split`, or pass --split_from none to "
        "train on all images."
    )
    SPLITS_IN_CLASS_NAMES = (
        "{source} has class names that differ only in the names of splits: {names:list}. Move the images into split "
        "folders, or name the splits in a column `split`. If these are classes, pass --split_from."
    )
    GROUP_COLUMN_UNUSED = (
        "{source} has the column {column}, which may name patients or videos, but the images have no groups, so one "
        "patient may be in two splits. Pass --group_column {column}, or rename the column."
    )
    SPLIT_READING_MISSING = "{source} has no splits that --split_from {reading} could use. Omit it."
    GROUPS_FROM_FOLDERS = (
        "{source}: images in one folder of a patient or video are one group ({examples:list}, ...), because the names "
        "of these folders are {pattern}. To group by something else, pass --group_pattern."
    )
    PATIENTS_IN_PART = (
        "{source}: {count:count image|is|are} in folders that look like patients or videos ({examples:list}, ...), and "
        "{others:count image|is|are} not, so the images have no groups. Move all images into such folders, or pass "
        "--group_pattern."
    )
    SPLIT_COLUMNS_UNUSED = (
        "{source}: {columns:list} may be splits or folds, but the values ({values:list}, ...) are not, so they are not "
        "used. Name the splits in a column `split`: train, validation or test."
    )
    SPLIT_NOT_FOUND = "{data_dir} has no split {split}. Its splits are {splits:list}."
    NO_TRAINING_SPLIT = (
        "The dataset has no training split from which images could be held out. Name one folder or split `train`."
    )
    VALIDATION_SPLIT_EXISTS = "The dataset already has a validation split. Omit --val_fraction {val_fraction}."
    FRACTION_NOT_BELOW_1 = "{name} must be >= 0 and < 1, not {value}."
    GROUPS_HELD_OUT = (
        "Held out {images} of {all_images} images, {percent} % (requested: {requested} %): all images of {groups} of "
        "{all_groups} patients or videos."
    )
    GROUPS_IN_TWO_SPLITS = (
        "{count} patients or videos have images in both {first} and {second} ({examples:list}), so scores are "
        "optimistically biased. Move all images of a patient or video to one split."
    )
    TOO_FEW_GROUPS = (
        "Cannot hold out a fraction of {fraction}: there are only {count} patients or videos. Pass a fraction closer "
        "to 0.5."
    )
    GROUP_PATTERN_INVALID = "--group_pattern {pattern} is not a valid regular expression ({reason})."
    GROUP_PATTERN_WITHOUT_GROUP = (
        "--group_pattern {pattern} has no capture group. Put the part that matches the patient or video in parentheses."
    )
    GROUP_PATTERN_UNMATCHED = (
        "--group_pattern {pattern} does not match {count:count file}, e.g. {example}. Change it so that it matches "
        "every file name."
    )
    GROUP_COLUMN_WITHOUT_MANIFEST = (
        "--group_column {column} requires a manifest with this column, and {root} has none. Use --group_pattern "
        "instead."
    )
    NO_OFFICIAL_FOLDS = (
        "--folds official requires a validation split, but {data_dir} only has {splits:list}. Pass --folds N."
    )
    TOO_MANY_FOLDS = (
        "--folds must be between 2 and {smallest}, the number of images of the smallest class, not {num_folds}."
    )
    MORE_FOLDS_THAN_GROUPS = "--folds {num_folds} exceeds the number of patients or videos ({count}). Use fewer folds."
    CENTRES_NEED_A_MANIFEST = (
        "--folds each:{column} requires a manifest with this column, and {root} has none. Pass one with --manifest."
    )
    ONE_CENTRE = "All images have the same {column} ({name}), so none can be left out. Pass --folds N."
    PATIENTS_IN_TWO_CENTRES = (
        "{count:count patient or video|has|have} images with several values of {column} ({examples:list}), so a model "
        "would be trained on patients that it is evaluated on. If they are different patients, give them different "
        "names (A_1, B_1)."
    )
    FOLD_WITHOUT_TRAINING_IMAGES = (
        "Fold {fold} has no training images of {names:list}: all of them are in its validation fold. Change --folds "
        "or the groups, or exclude the class."
    )
    FOLD_WITHOUT_VALIDATION_IMAGES = "Fold {fold} has no validation images of {names:list}."

    # Benchmarks
    BENCHMARK_WITHOUT_FILES = "{root} contains no images. Pass the archive from {homepage} as --data_dir."
    BENCHMARK_WITHOUT_TEST_FOLDER = (
        "The archive has no folder {folder}, which contains the test split. Pass the complete archive as --data_dir."
    )
    BENCHMARK_MISSING_IMAGES = (
        "{root} lacks {count:count image} of {benchmark}: {names}. By class: {by_class}. Add them, or pass "
        "--on_bad_image skip to ignore them."
    )
    BENCHMARK_INCOMPLETE = (
        "{root} lacks {count:count image} of {benchmark}: {names}. By class: {by_class}. Check that it is the complete "
        "archive from {homepage} in the right version, or pass --on_bad_image skip to ignore the missing images."
    )
    BENCHMARK_LOADED = "{title}: {counts} ({published}). Licence of the dataset: {licence}. Please cite: {citation}"
    MISSING_IMAGES_SKIPPED = "{count:count image|is|are} missing from the archive: {names}."
    BENCHMARK_DUPLICATE_IMAGES = "{root} contains {count:count image} twice: {names}. Remove one of the copies."
    BENCHMARK_CONFLICTING_LABELS = "{title}: the split files give {count:count image} two labels: {names}."
    CONFLICTING_LABELS_EXCLUDED = "The split files give {count:count image} two labels; excluded: {names}."
    BENCHMARK_GROUP_NOT_FOUND = (
        "{title}: the group_pattern {pattern} does not match {name}, so its patient or video is unknown. Change the "
        "pattern."
    )
    SPLIT_FILE_NOT_FOUND = "The split file {path} does not exist. Check the path."
    SPLIT_FILE_NOT_PASSED = "--split_file does not include {name}. Get it from {url}."
    SPLIT_FILE_CHANGED = (
        "{location} is not the official {name} (SHA-256 {sha256}..., expected {expected}...). It was edited or "
        "replaced. Get the original from {url}."
    )
    TRAINING_SPLIT_MISSING = (
        "{path} has no training split (splits found: {splits:list}). Name one folder or split `train`."
    )

"""Messages of images, their cache and their checks: one member per cause and fix (see `hf_mae.errors.Message`)."""

from ...errors import Message


class ImageMessage(Message):
    """Errors and warnings of image files, transforms, pixel caches, shards and duplicates."""

    # Reasons of an `ImageError`. They follow the file name in other messages, so they are phrases, not sentences.
    NOT_REGULAR_FILE = "not a regular file"
    MISSING_FILE = "no such file"
    UNSUPPORTED_FORMAT = "not an image in a supported format"
    TRUNCATED_FILE = "the end of the file is missing"
    DAMAGED_FILE = "the image data is damaged"
    TOO_MANY_PIXELS = "{width} x {height} pixels, more than {limit:,}; raise the limit with --max_pixels"
    PIXEL_LIMIT_EXCEEDED = "more than {limit:,} pixels; raise the limit with --max_pixels"
    NON_FINITE_LEVELS = "grey levels are NaN or infinite"
    UNKNOWN_RANGE_OF_LEVELS = (
        "levels from {low} to {high}, and the file does not declare which of them are black and white; save it with 8 "
        "or 16 bits"
    )
    DEEP_ANIMATION = "an animated PNG of 16 bits; save its frames as single files"
    DEEP_COLOURS_REQUIRE_PACKAGE = (
        "colours of 16 bits require opencv-python-headless and tifffile: pip install opencv-python-headless tifffile"
    )
    HEIC_REQUIRES_PACKAGE = "HEIC requires pillow-heif: pip install 'hf_mae[formats]'"
    DICOM_REQUIRES_PACKAGE = "DICOM requires pydicom: pip install 'hf_mae[formats]'"
    DICOM_DECODER_MISSING = "DICOM with {compression} requires python-gdcm: pip install 'hf_mae[formats]'"
    DICOM_WITHOUT_PIXELS = "a DICOM file without pixels"
    UNSUPPORTED_DICOM = "DICOM with {name} {value}, which is not supported"
    META_IMAGE_REQUIRES_PACKAGE = "MetaImage requires SimpleITK: pip install 'hf_mae[formats]'"
    META_IMAGE_IN_TWO_FILES = "a MetaImage header without its pixels; save it as one file (.mha)"
    TIFF_REQUIRES_PACKAGE = "this compression of TIFF requires imagecodecs: pip install 'hf_mae[formats]'"
    UNSUPPORTED_TIFF = "a TIFF with colours or levels that are not supported; save it with 8 or 16 bits"
    SEVERAL_FRAMES = "the file contains {count} frames; select one (FILE#frame=0), or pass --frames"
    FRAMES_WITHOUT_PAGES = "a TIFF of {count} images with one page; save it with one page per image"
    NO_SUCH_FRAME = "frame {index} does not exist; the file contains {count:count frame}, counted from 0"
    NO_FRAME_TIMES = "the file does not declare the times of its frames; select one by its number (FILE#frame=0)"
    VIDEO_IS_NOT_AN_IMAGE = "a video, not an image; --frames selects frames of it"
    VIDEO_IN_ARCHIVE = "a video in an archive; extract it first"
    VIDEO_IN_DICOM = "a DICOM file with a video ({compression}); extract the video first"
    VIDEO_PLAYLIST = "a playlist, not a video"
    UNREADABLE_VIDEO = "not a readable video"
    VIDEO_WITHOUT_FRAMES = "the video contains no frames"
    TRUNCATED_VIDEO = "the video breaks off after {found:count frame}"

    PREVIEWS_SKIPPED = "{file}: {count:count preview|is|are} skipped."

    # Images during training
    UNREADABLE_IMAGE = "{file} cannot be read ({reason}). Fix the file, or pass --on_bad_image skip."
    IMAGE_REPLACED = "{file} cannot be read ({reason}). Another image replaces it."
    NO_READABLE_IMAGE = (
        "None of the training images can be read. Check that they are complete and in a supported format."
    )
    NO_PIXEL_VALUES = "The items of the dataset have no pixel_values, only {keys:list}."

    # Transforms
    UNKNOWN_TRANSFORMS = "{family} is not a family of transforms. Choose one of {families:list}."
    INVALID_MEAN_STD = (
        "Invalid value {value} for --mean_std: expected auto, imagenet, endoscopy, or six numbers (mean, then std)."
    )
    MEAN_STD_WITHOUT_IMAGES = (
        "--mean_std auto requires training images, but there are none. Pass imagenet, endoscopy or six numbers."
    )
    SAMPLING_REQUIRES_CLASS_IDS = (
        "--sampling requires one class per image. Remove the flag, or use labels that are class ids."
    )

    # Pixel cache
    CACHE_LIMIT_TOO_SMALL = (
        "The decoded images need about {required} in the cache, but --cache_limit {limit} leaves only {available}. "
        "Raise the limit, or remove entries (hf-mae cache lists them)."
    )
    DISK_TOO_SMALL = (
        "The decoded images need about {required} in the cache, but the disk of {folder} has only {available} "
        "available. Free disk space, or remove entries (hf-mae cache lists them)."
    )
    DISK_BECAME_FULL = "The disk of {folder} became full while images were cached."
    CACHED_IMAGES_REMOVED = "Cached images in {folder} were removed by another run that needed the space."
    DECODING_EVERY_EPOCH = "{reason} Images are decoded again in every epoch, which is slower."
    JPEG_CACHE = (
        "Training images are cached as JPEG of quality {quality}: {fraction:.2f} of the size of the pixels. The pixels "
        "differ by {difference:.2f} of 255 levels on average (measured on {images:count image})."
    )
    CACHE_ENTRY_NOT_FOUND = "The cache has no entry {name}. Its entries: {entries:list}."
    CACHE_EMPTY = "The cache has no entry {name}: it is empty."

    # Shards
    SHARD_FOLDER_NOT_EMPTY = "{folder} exists and is not empty. Choose another folder."
    SHARD_FOLDER_DIFFERS = (
        "{folder} contains an unfinished set of shards of other images, or with another --shard_size or --seed. Choose "
        "another folder."
    )
    INVALID_SHARD_INDEX = "{folder} has no valid {file}. Create the shards with hf-mae shard."
    DAMAGED_SHARDS = (
        "{count:count shard|is|are} missing or damaged in {folder}: {names}. Copy them again, or create the shards "
        "again."
    )

    # Duplicates and contamination
    IMAGE_NOT_COMPARED = "{file} cannot be read ({reason}), so it is not compared with other images."
    AUDIT_REQUIRES_FILES = (
        "The images are not separate files (they are in a parquet file or a Hub dataset). Extract them to a folder "
        "first."
    )
    EXCLUDE_WITHOUT_MATCH = "--exclude {sources}: none of these images is in the dataset. Check the paths and names."
    EXCLUDE_LEAVES_NOTHING = (
        "--exclude {sources} excludes all images, so none is left to train on. Exclude fewer images."
    )
    SEEN_IN_PRETRAINING = (
        "{base} was pre-trained on {counts:list} (listed in {file}). The scores on these images are optimistically "
        "biased. Exclude such images with hf-mae pretrain --exclude."
    )

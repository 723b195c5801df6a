"""Checks of the files of a checkpoint, which may come from others, before any of them is loaded.

The Trainer, accelerate and DeepSpeed unpickle them; a pickle may name any function and call it.
"""

import re
import sys
import zipfile
from pathlib import Path

from ..conversion.messages import ConversionError
from ..conversion.safety import check_pickle_size, check_zip_checkpoint
from ..errors import UsageError
from .messages import TrainingMessage

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".distcp")
SHARD_INDEX = ".metadata"  # of torch.distributed.checkpoint
ARGUMENTS_FILE = "training_args.bin"  # never loaded
MAX_JSON_BYTES, MAX_INDEX_BYTES = 200_000_000, 100_000_000
# Names of objects that pickles of checkpoints may import; all of them only build values.
ALLOWED_NAMES = re.compile(
    r"torch\.(\w+Storage|Size|device|dtype|Tensor|u?int\d+|b?float\d+\w*|bool|complex\d+|strided|nn\.Parameter)"
    r"|torch\.storage\.(Typed|Untyped)Storage|torch\.serialization\._get_layout"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|device_tensor_from_numpy)"
    r"|torch\.distributed\.checkpoint\.metadata\.(\w+Metadata|Metadata|MetadataIndex|StorageMeta|TensorProperties"
    r"|_MEM_FORMAT_ENCODING)|torch\.distributed\.checkpoint\.filesystem\.(_StorageInfo|_StoragePrefix)"
    r"|numpy\.(_core|core)\.multiarray\.(_reconstruct|scalar)|numpy\.(ndarray|dtype)|numpy\.dtypes\.\w+DType"
    r"|_codecs\.encode|collections\.(OrderedDict|defaultdict|Counter|deque)|argparse\.Namespace"
    r"|(builtins|__builtin__)\.(dict|list|set|frozenset|tuple|int|float|str|bool|bytes|bytearray|complex|slice|range)"
    r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path|datetime\.(timedelta|datetime|date)"
    r"|deepspeed\.runtime\.(fp16\.loss_scaler|zero\.config|zero\.offload_config)\.[A-Z]\w+"
    r"|deepspeed\.utils\.tensor_fragment\.(fragment_address|tensor_fragment)"
)


def check_checkpoint_files(checkpoint: Path) -> None:
    """Checks that no pickle of a checkpoint imports anything but values, and that sizes are limited. Nothing is built.

    A damaged file is not reported here.

    Raises:
        UsageError: If a file is not a regular file, imports a forbidden name or is too large.
        ConversionError: If a file is compressed inside, or its values expand beyond a limit.
    """
    for path in sorted(checkpoint.rglob("*")):
        if path.is_dir():
            continue
        name = str(path.relative_to(checkpoint))
        if not path.is_file():
            raise UsageError(TrainingMessage.CHECKPOINT_FILE_NOT_REGULAR, path=checkpoint, file=name)
        limit = MAX_INDEX_BYTES if path.name == SHARD_INDEX else MAX_JSON_BYTES if path.suffix == ".json" else None
        if limit is not None and path.stat().st_size > limit:
            raise UsageError(TrainingMessage.CHECKPOINT_FILE_TOO_LARGE, path=checkpoint, file=name, limit=limit / 1e6)
        for imported in sorted(_find_imports(path)):
            if not _is_allowed(imported, path):
                raise UsageError(
                    TrainingMessage.CHECKPOINT_IMPORTS, path=checkpoint, file=name, name=" ".join(imported.split())
                )


def _find_imports(path: Path) -> set[str]:
    """Returns the names that the pickles in a file import."""
    if path.name != SHARD_INDEX and path.suffix not in PICKLE_SUFFIXES:
        return set()
    if zipfile.is_zipfile(path):
        return check_zip_checkpoint(path)
    if path.suffix == ".distcp" or path.stat().st_size > MAX_INDEX_BYTES:
        return set()  # tensors; torch loads other values with `weights_only` (`compat.torch.load_weights_only`)
    try:
        return check_pickle_size(path.read_bytes(), path)
    except ConversionError:  # not a pickle
        return set()


def _is_allowed(name: str, path: Path) -> bool:
    if ALLOWED_NAMES.fullmatch(name):
        return True
    return path.name == ARGUMENTS_FILE and name.split(".")[0] not in {*sys.stdlib_module_names, "__builtin__", "?"}

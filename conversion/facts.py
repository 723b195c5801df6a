"""Facts about a conversion: why a tensor is not used, or new, and what the reader of the report should know.

`hf_mae.reporting.conversion_summary` has their sentences.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class FactCode(str, Enum):
    """A kind of fact; the comment names its values."""

    # The file
    NOT_A_TENSOR = "not_a_tensor"  # type
    TRAINING_STATE = "training_state"
    OUTSIDE_MODULE = "outside_module"  # prefix
    PREFIX_REMOVED = "prefix_removed"  # prefix
    WRAPPERS_REMOVED = "wrappers_removed"  # names
    KEYS_RENAMED = "keys_renamed"  # layout
    AVERAGED_WEIGHTS = "averaged_weights"  # location
    OTHER_AVERAGED_WEIGHTS = "other_averaged_weights"  # location
    OTHER_PLAIN_WEIGHTS = "other_plain_weights"  # location
    CAST_TO_FLOAT32 = "cast_to_float32"  # dtypes
    # Tensors without a place in the target
    NOT_A_PARAMETER = "not_a_parameter"  # class_name
    NOT_LOADED = "not_loaded"  # class_name
    DECODER = "decoder"
    PRETRAINING_ONLY = "pretraining_only"
    POOLING_NORM_OF_CLASSIFIER = "pooling_norm_of_classifier"
    HEAD_OF_CLASSIFIER = "head_of_classifier"
    NORM_OF_MEAN_POOLING = "norm_of_mean_pooling"
    NORM_BEFORE_MEAN_POOLING = "norm_before_mean_pooling"
    COMPUTED_FROM_IMAGE_SIZE = "computed_from_image_size"
    # A part of a tensor that is used
    KEY_BIAS_OMITTED = "key_bias_omitted"  # BEiT has none: the softmax cancels it
    # New parameters
    NEW_FC_NORM = "new_fc_norm"
    NEW_NORM = "new_norm"
    NO_DECODER = "no_decoder"
    # The head is new
    NO_HEAD = "no_head"
    HEAD_SIZE_DIFFERS = "head_size_differs"  # found, requested
    HEAD_CLASSES_DIFFER = "head_classes_differ"
    RANDOM_WEIGHTS = "random_weights"
    SOURCE_WITHOUT_HEAD = "source_without_head"  # classes
    SOURCE_CLASSES_DIFFER = "source_classes_differ"  # names (empty: unknown)
    # Changes and assumptions
    HEAD_NAMES_FROM_LABELS = "head_names_from_labels"  # classes
    LINEAR_PROBE_FOLDED = "linear_probe_folded"
    CLASS_TOKEN_POSITION_ADDED = "class_token_position_added"
    ASSUMED = "assumed"  # name, value
    NORM_PIX_LOSS_ASSUMED = "norm_pix_loss_assumed"
    POSITIONS_RESIZED = "positions_resized"  # old, new
    PROCESSOR_OF_SOURCE = "processor_of_source"
    PROCESSOR_SCALED = "processor_scaled"  # pixels
    PROCESSOR_RESIZES = "processor_resizes"  # height, width
    NO_PROCESSOR = "no_processor"  # channels
    MEAN_AND_STD_OF_BEIT = "mean_and_std_of_beit"


@dataclass(frozen=True)
class Fact:
    """A fact, with the numbers and names of its sentence."""

    code: FactCode
    values: dict[str, Any] = field(default_factory=dict)


def fact(code: FactCode, **values: Any) -> Fact:
    """Builds a fact."""
    return Fact(code, values)


class BaselineModel(str, Enum):
    """What `--verify` compares a converted model with."""

    FACEBOOKRESEARCH_MAE = "facebookresearch/mae"  # a reimplementation, `mae_forward`
    TIMM = "timm"
    TRANSFORMERS = "transformers"  # the source itself

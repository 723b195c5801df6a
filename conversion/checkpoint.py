"""Types of the conversion: a checkpoint that was read, its layout, and the plan to convert it.

Importing this module imports neither torch nor transformers, so that help texts can list the layouts.
"""

import re
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hf_mae.files.caches import file_digest

from .facts import BaselineModel, Fact, FactCode
from .metadata import CheckpointMetadata

if TYPE_CHECKING:
    import torch

State: TypeAlias = "dict[str, torch.Tensor]"
# Computes what the source computes: (parameters under original keys, pixel values, noise) -> (baseline, outputs).
Baseline: TypeAlias = "Callable[[State, torch.Tensor, torch.Tensor], tuple[BaselineModel, torch.Tensor]]"
PARTS = re.compile(r"\{(\w*(?:\|\w*)+)\}")  # of a pattern
# Parameters of an encoder, as opposed to those of a decoder, a head, or a training program.
ENCODER_KEY = r"(blocks|patch_embed|norm_pre|rel_pos_bias)\.|(reg|register|dist)_tokens?$|(cls_token|pos_embed)$"


@dataclass(frozen=True)
class Target:
    """A stock class of transformers, and its parameters in a checkpoint.

    In patterns of keys, `{i}` is a block number, `{p}` is `weight` or `bias`, and `{rest}` is any text. `{a|b|c}` in a
    key of the stock class splits a fused parameter into equal parts; an empty name omits a part.

    Args:
        class_name: class in transformers.
        keys: (original key, key of the stock class in memory).
        unused: (original key, why the class does not use it).
        pooling: `mean` or `cls` for a classifier.
    """

    class_name: str
    keys: tuple[tuple[str, str], ...]
    unused: tuple[tuple[str, FactCode], ...] = ()
    pooling: str | None = None


@dataclass(frozen=True)
class Layout:
    """A family of checkpoints: how its files are recognized, and how they are converted.

    Args:
        name: key in `layouts.LAYOUTS`.
        title: noun phrase for help texts, docs and messages, e.g. `BEiT, BEiT v2 and data2vec`.
        anchor: regular expression of a key that every model of the family has; what precedes it is a prefix.
        condition: what the keys of one model and the `args` of its training run must fulfil, in addition to `matches`.
        renames: (regular expression, replacement), applied in order: keys in the file -> original keys.
        targets: the stock classes, with the original keys. Keys that are in none of them are unknown.
        canonicalize: changes the storage of the parameters without changing their function; adds notes.
        plan: decides the class, its configuration and its head.
        unsupported: reason why no stock class has this layout; empty: it is converted.
    """

    name: str
    title: str
    anchor: str = ""
    condition: Callable[[Collection[str], dict[str, Any]], bool] | None = None
    renames: tuple[tuple[str, str], ...] = ()
    targets: tuple[Target, ...] = ()
    canonicalize: "Callable[[Checkpoint], State] | None" = None
    plan: "Callable[[Checkpoint, ConversionRequest], ConversionPlan] | None" = None
    unsupported: str = ""

    def matches(self, keys: Collection[str], args: dict[str, Any]) -> bool:
        """Whether a model has this layout: the anchor, and no unknown key in the encoder.

        Args:
            keys: keys of one model, without the names of wrappers and without prefix.
            args: arguments of the training run, if the file contains them.
        """
        if self.condition and not self.condition(keys, args):
            return False
        is_anchored = any(self.find_prefix(key) == "" for key in keys)
        return not self.anchor or (is_anchored and not self.unknown_encoder_keys(keys))

    def find_prefix(self, key: str) -> str | None:
        """Returns what precedes the anchor in a key; None if the key is not the anchor."""
        match = self.anchor and re.fullmatch(rf"((?:[^.]+\.)*?){self.anchor}", key)
        return match[1] if match else None

    def original_key(self, key: str) -> str:
        """Returns the original key of a key in the file."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def is_parameter(self, key: str) -> bool:
        """Whether a stock class of this layout has a parameter for an original key."""
        return any(match_key(pattern, key) is not None for target in self.targets for pattern, _ in target.keys)

    def is_known(self, key: str) -> bool:
        """Whether an original key is a parameter, or is known to be unused."""
        patterns = (pattern for target in self.targets for pattern, _ in target.unused)
        return self.is_parameter(key) or any(match_key(pattern, key) is not None for pattern in patterns)

    def unknown_encoder_keys(self, keys: Collection[str]) -> list[str]:
        """Returns the keys of the encoder, in the file, that no stock class of this layout has."""
        originals = {key: self.original_key(key) for key in keys}
        return [key for key, name in originals.items() if re.match(ENCODER_KEY, name) and not self.is_known(name)]


@dataclass
class Checkpoint:
    """Parameters under their original names, and facts about their source."""

    state: State
    source: str
    layout: Layout
    contents: list[str] = field(default_factory=list)  # keys of the file, e.g. model, optimizer; empty: a state dict
    unused: list[dict[str, Any]] = field(default_factory=list)  # {"source", "reason"} of entries that are not used
    notes: list[Fact] = field(default_factory=list)
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)
    file: Path | None = None
    stock_class: str | None = None  # the transformers class that loads the source
    is_self_distilled: bool = False  # teacher weights of a self-distillation, not a masked autoencoder
    _digest: Future[str] | None = None

    @property
    def size(self) -> int | None:
        """Size of the file in bytes."""
        return self.file.stat().st_size if self.file else None

    @property
    def sha256(self) -> str | None:
        """Digest of the file; waits until the background thread has computed it."""
        return self._digest.result() if self._digest else None

    def start_digest(self) -> None:
        """Computes the digest of the file in a background thread."""
        if self.file:
            executor = ThreadPoolExecutor(1)
            self._digest = executor.submit(file_digest, self.file, "sha256")
            executor.shutdown(wait=False)


@dataclass(frozen=True)
class ConversionRequest:
    """What the user asks for; `convert.convert_checkpoint` documents the fields."""

    to: str = "auto"
    pooling: str = "auto"
    names: list[str] | None = None
    num_labels: int | None = None
    image_size: int | None = None
    num_attention_heads: int | None = None
    decoder_num_attention_heads: int | None = None
    norm_pix_loss: bool | None = None


@dataclass
class ConversionPlan:
    """The decisions of a conversion, before the model is built.

    Args:
        checkpoint: the source.
        target: the class to build.
        state: the parameters to use, under their original names.
        baseline: computes what the source computes.
        sizes: for the report.
        assumed: flag -> default that was used for an unknown value.
        dropped_tensors: {"source", "reason"} of tensors that are replaced.
        init_reasons: module of an original key -> reason for its initial values. Any other parameter that the
            checkpoint lacks is an error.
    """

    checkpoint: Checkpoint
    target: Target
    state: State
    config: Any
    baseline: Baseline
    sizes: dict[str, Any]
    assumed: dict[str, Any] = field(default_factory=dict)
    dropped_tensors: list[dict[str, Any]] = field(default_factory=list)
    init_reasons: dict[str, Fact] = field(default_factory=dict)


@cache
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    regex = re.escape(pattern)
    for name, values in (("i", r"(?P<i>\d+)"), ("p", "(?P<p>weight|bias)"), ("rest", "(?P<rest>.+)")):
        regex = regex.replace(re.escape("{" + name + "}"), values)
    return re.compile(regex)


def match_key(pattern: str, key: str) -> dict[str, str] | None:
    """Returns the values of the fields of a pattern (see `Target`) if `key` matches it, else None."""
    match = _compile_pattern(pattern).fullmatch(key)
    return match.groupdict() if match else None


@cache
def split_pattern(pattern: str) -> list[str]:
    """Returns one pattern for each part of a fused parameter; an empty text for a part that is omitted."""
    match = PARTS.search(pattern)
    if match is None:
        return [pattern]
    return [PARTS.sub(part, pattern) if part else "" for part in match[1].split("|")]

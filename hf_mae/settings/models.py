"""Settings of the model that a command starts from."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .options import option

RANDOM_WEIGHTS = "random weights"  # name of the base model without a checkpoint
NUM_HEADS_HELP = "Number of attention heads, if it cannot be inferred from the checkpoint."
DECODER_NUM_HEADS_HELP = "Number of attention heads of the decoder, if it cannot be inferred from the checkpoint."
# Options that apply to a model from scratch only.
SIZE_OPTIONS = ("patch_size", "hidden_size", "num_hidden_layers", "decoder_hidden_size", "decoder_num_hidden_layers")


@dataclass
class ModelArguments:
    """The pre-trained checkpoint and how the classifier is built from it."""

    option_group = "Model"

    model_name_or_path: str | None = option(
        None, "An MAE .pth file, a converted folder, a Hub id, or a name listed by hf-mae checkpoints."
    )
    pooling: str = option(
        "auto",
        "Pooling of the classifier. mean: mean of the patch tokens (default of the original MAE code). cls: class "
        "token. auto: that of a fine-tuned checkpoint, else mean.",
        choices=("auto", "mean", "cls"),
    )
    image_size: int | None = option(
        None, "Image size in pixels; position embeddings are interpolated. Default: that of the checkpoint.", ge=1
    )
    num_attention_heads: int | None = option(None, NUM_HEADS_HELP, ge=1, hidden=True)
    random_weights: bool = option(
        False,
        "Initialize the architecture of the checkpoint with random weights (baseline without pre-training).",
        hidden=True,
    )

    @property
    def base(self) -> str:
        """Name of the base model, for reports."""
        return RANDOM_WEIGHTS if self.random_weights else str(self.model_name_or_path)


@dataclass
class RunModeArguments:
    """Automatic configuration and dry run."""

    option_group = "Plan"

    auto: bool = option(
        False,
        "Choose the settings that are not given (precision, batch size, epochs, class weights, validation split, "
        "...), and print the reasons.",
    )
    dry_run: bool = option(False, "Print the plan (like hf-mae plan) without training.")


@dataclass
class PretrainingModelArguments:
    """The checkpoint to continue from, or the architecture of a model from scratch."""

    option_group = "Model"

    model_name_or_path: str | None = option(
        None,
        "An MAE .pth file, a converted folder, a Hub id, or a name listed by hf-mae checkpoints. Default: train from "
        "scratch.",
    )
    size: str = option(
        "vit_base_patch16",
        "Architecture of a model from scratch: vit_{tiny,small,base,large}_patch16, vit_huge_patch14.",
        metavar="NAME",
    )
    image_size: int | None = option(
        None, "Image size in pixels. Default: that of the checkpoint; 224 from scratch.", ge=1
    )
    patch_size: int | None = option(None, "Patch size, from scratch.", ge=1, hidden=True)
    hidden_size: int | None = option(None, "Width of the encoder, from scratch.", ge=1, hidden=True)
    num_hidden_layers: int | None = option(None, "Number of encoder blocks, from scratch.", ge=1, hidden=True)
    num_attention_heads: int | None = option(None, NUM_HEADS_HELP, ge=1, hidden=True)
    decoder_hidden_size: int | None = option(None, "Width of the decoder, from scratch.", ge=1, hidden=True)
    decoder_num_hidden_layers: int | None = option(None, "Number of decoder blocks, from scratch.", ge=1, hidden=True)
    decoder_num_attention_heads: int | None = option(None, DECODER_NUM_HEADS_HELP, ge=1, hidden=True)

    def __post_init__(self) -> None:
        if self.model_name_or_path and (sizes := self.from_scratch_sizes()):
            raise UsageError(
                SettingsMessage.SIZE_WITH_CHECKPOINT, name=next(iter(sizes)), checkpoint=self.model_name_or_path
            )

    @property
    def base(self) -> str:
        """Name of the base model, for reports."""
        return self.model_name_or_path or RANDOM_WEIGHTS

    def from_scratch_sizes(self) -> dict[str, int]:
        """Returns the given sizes of a model from scratch, with the derived MLP widths."""
        sizes = {name: getattr(self, name) for name in SIZE_OPTIONS if getattr(self, name) is not None}
        if "hidden_size" in sizes:
            sizes["intermediate_size"] = 4 * sizes["hidden_size"]
        if "decoder_hidden_size" in sizes:
            sizes["decoder_intermediate_size"] = 4 * sizes["decoder_hidden_size"]
        return sizes

"""Which model a verb starts from."""

from dataclasses import dataclass

from ..errors import UsageError
from .options import option

RANDOM_WEIGHTS = "random weights"  # in place of a checkpoint


@dataclass
class ModelArguments:
    """What to start from."""

    model_name_or_path: str | None = option(
        None, "An MAE .pth, a converted folder, or a Hub id.", show_in_help=True, group="Model"
    )
    pooling: str = option(
        "auto",
        "mean (of the patches, the reference's default), cls (class token), or auto.",
        choices=("auto", "mean", "cls"),
        show_in_help=True,
        group="Model",
    )
    image_size: int | None = option(
        None,
        "Pixels; position embeddings are resized. Not given: the checkpoint's.",
        show_in_help=True,
        group="Model",
        ge=1,
    )
    num_attention_heads: int | None = option(
        None, "Where neither the width nor the checkpoint's args tell.", group="Model", ge=1
    )
    random_weights: bool = option(
        False,
        "Take the checkpoint's sizes alone, and fresh weights: what its pre-training is worth.",
        group="Model",
    )

    @property
    def base(self) -> str:
        """What the weights come from, for whoever reads about the run."""
        return RANDOM_WEIGHTS if self.random_weights else str(self.model_name_or_path)


@dataclass
class RunModeArguments:
    """How much a user wants to decide, and to see first."""

    auto: bool = option(
        False,
        "Choose what is not given (precision, batch, epochs, class weights, a held-out share, ...) and say why.",
        show_in_help=True,
        group="Plan",
    )
    dry_run: bool = option(
        False, "Say what would happen (hf-mae plan does the same), and train nothing.", show_in_help=True, group="Plan"
    )


@dataclass
class PretrainingModelArguments:
    """What to start from: a checkpoint, or sizes for a model from scratch."""

    model_name_or_path: str | None = option(
        None, "An MAE .pth, a converted folder or a Hub id; not given: from scratch.", show_in_help=True, group="Model"
    )
    size: str = option(
        "vit_base_patch16",
        "From scratch: vit_{tiny,small,base,large}_patch16, vit_huge_patch14.",
        show_in_help=True,
        group="Model",
    )
    image_size: int | None = option(None, "Pixels; from scratch 224.", show_in_help=True, group="Model", ge=1)
    patch_size: int | None = option(None, "From scratch.", group="Model", ge=1)
    hidden_size: int | None = option(None, "From scratch: width of the encoder.", group="Model", ge=1)
    num_hidden_layers: int | None = option(None, "From scratch: blocks of the encoder.", group="Model", ge=1)
    num_attention_heads: int | None = option(None, "Where the width does not tell.", group="Model", ge=1)
    decoder_hidden_size: int | None = option(None, "From scratch.", group="Model", ge=1)
    decoder_num_hidden_layers: int | None = option(None, "From scratch.", group="Model", ge=1)
    decoder_num_attention_heads: int | None = option(None, "Where the width does not tell.", group="Model", ge=1)

    @property
    def base(self) -> str:
        """What the weights come from, for whoever reads about the run."""
        return self.model_name_or_path or RANDOM_WEIGHTS

    def from_scratch_sizes(self) -> dict[str, int]:
        """The sizes that are given for a model from scratch, with what follows from them."""
        names = ("patch_size", "hidden_size", "num_hidden_layers", "decoder_hidden_size", "decoder_num_hidden_layers")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if given and self.model_name_or_path:
            raise UsageError(
                f"--{next(iter(given))} is for a model from scratch: {self.model_name_or_path} has its own."
            )
        if "hidden_size" in given:
            given["intermediate_size"] = 4 * given["hidden_size"]
        if "decoder_hidden_size" in given:
            given["decoder_intermediate_size"] = 4 * given["decoder_hidden_size"]
        return given

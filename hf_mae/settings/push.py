"""Settings of `push` and `push-dataset`."""

from dataclasses import dataclass

from .data import DataSourceArguments
from .options import option

REPO_ID_HELP = "Repository on the Hub. Default: the name of the folder, in the namespace of the token's owner."


@dataclass
class PublishingArguments:
    """What is published."""

    license: str | None = option(None, "License id of the Hub, e.g. cc-by-4.0.", metavar="NAME")
    allow_identifiers: bool = option(
        False, "Publish names of patients, videos and files as they are, and metadata of images. Default: random codes."
    )
    pseudonym_key: str | None = option(
        None, "Key file of the random codes, which is not published. Default: pseudonyms.json.", metavar="FILE"
    )


@dataclass
class PushArguments(PublishingArguments):
    """The run to push and the repository to push it to."""

    model_name_or_path: str | None = option(None, "Output folder of finetune or pretrain.", metavar="RUN")
    repo_id: str | None = option(None, REPO_ID_HELP, metavar="USER/NAME")
    private: bool = option(False, "Make a new repository private.")
    update: bool = option(False, "Add a commit to a repository that already contains files.")
    ignore_patterns: list[str] | None = option(
        None, "Glob patterns of files that are not uploaded, e.g. 'predictions_*.csv'.", metavar="PATTERN"
    )
    publish_images: bool = option(False, "Also push reconstructions, which show images of the training data.")
    demo: bool = option(False, "Also create a Space of the same name with the page of hf-mae demo.")


@dataclass
class PushDatasetArguments(PublishingArguments, DataSourceArguments):
    """The dataset to push and the repository to push it to."""

    repo_id: str | None = option(None, REPO_ID_HELP, metavar="USER/NAME")
    private: bool = option(False, "Make a new repository private.")
    update: bool = option(False, "Add a commit to a repository that already contains files.")
    output_dir: str | None = option(
        None, "Keep the written files here; without --repo_id nothing is pushed.", group="Output"
    )
    overwrite: bool = option(False, "Replace existing output.", group="Output")
    seed: int = option(
        0,
        "Seed of the validation split (--val_fraction); use the seed of the training run.",
        group="Data",
        ge=0,
        le=2**32 - 1,
        hidden=True,
    )

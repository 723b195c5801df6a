"""Settings of `ensemble`."""

from dataclasses import dataclass

from .options import option


@dataclass
class EnsembleArguments:
    """The members of the ensemble."""

    runs: list[str] | None = option(
        None,
        "Fine-tuned models with the same classes: folders, Hub ids, or a cross-validation (all of its runs).",
        show_in_help=True,
        group="Runs",
        metavar="RUN",
    )
    output_dir: str | None = option(None, "Output folder for the ensemble.", show_in_help=True, group="Output")
    overwrite: bool = option(False, "Replace existing output.", show_in_help=True, group="Output")

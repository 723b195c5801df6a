"""Settings of `ensemble`."""

from dataclasses import dataclass

from .options import option


@dataclass
class EnsembleArguments:
    """The members of the ensemble."""

    option_group = "Output"

    runs: list[str] | None = option(
        None,
        "Fine-tuned models with the same classes: folders, Hub ids, or a cross-validation (all of its runs).",
        group="Runs",
        metavar="RUN",
    )
    output_dir: str | None = option(None, "Output folder for the ensemble.")
    overwrite: bool = option(False, "Replace existing output.")

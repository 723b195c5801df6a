"""Settings of `audit`."""

from dataclasses import dataclass

from ..errors import UsageError
from .data import DataSourceArguments
from .messages import SettingsMessage
from .options import option

PAIRS_PER_SHEET = 24


@dataclass
class AuditArguments(DataSourceArguments):
    """The images to audit and the thresholds of near-duplicates."""

    option_group = "Audit"

    output_dir: str | None = option(None, "Output folder for the CSV files and contact sheets.", group="Output")
    unlabelled: bool = option(False, "DATA is a tree of images without classes.", group="Data")
    runs: list[str] | None = option(
        None,
        "Find label errors (confident learning) with the predictions of these runs, or of a cross-validation; each "
        "image is checked by models that were not trained on it.",
        metavar="RUN",
    )
    max_hash_distance: int = option(
        8, "Maximum Hamming distance of the 64-bit perceptual hashes of a candidate pair.", ge=0, le=64
    )
    min_similarity: float = option(
        0.6, "Minimum structural similarity (SSIM) of a near-duplicate pair.", metavar="FRACTION", ge=0, le=1
    )
    min_detail: float = option(
        0.5, "Minimum correlation of the fine detail of a near-duplicate pair.", metavar="FRACTION", ge=0, le=1
    )
    max_sheets: int = option(
        20, f"Maximum number of contact sheets, with {PAIRS_PER_SHEET} pairs or images each.", group="Output", ge=0
    )

    def __post_init__(self) -> None:
        if not self.data_dir and not self.runs:
            raise UsageError(SettingsMessage.AUDIT_DATA_MISSING)

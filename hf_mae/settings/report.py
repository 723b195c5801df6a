"""Settings of `report`."""

from dataclasses import dataclass

from ..errors import UsageError
from .messages import SettingsMessage
from .one_vs_rest import OneVsRestArguments
from .options import option


@dataclass
class ReportArguments(OneVsRestArguments):
    """The runs to compare and the analyses to add."""

    option_group = "Report"

    runs: list[str] | None = option(
        None,
        "Output folders of finetune, crossval and evaluate, or prediction tables of any program (CSV).",
        metavar="RUN",
    )
    benchmark: str | None = option(
        None, "Benchmark whose published results are shown, with or without runs.", metavar="NAME"
    )
    split: str | None = option(
        None,
        "Split to report; selection: the images of --selection_fraction. Default: test, if a run has one.",
        choices=("validation", "test", "selection"),
    )
    operating_point: list[str] | None = option(
        None,
        "Decision threshold: sensitivity=0.95, specificity=0.9, threshold=0.5 or youden, selected on the validation "
        "split and applied to the reported split. Without --positive: for each class against the rest.",
        metavar="RULE",
    )
    subgroups: list[str] | None = option(
        None,
        "Manifest columns for subgroup analysis (device, centre, sex; age:50,65 makes age bands): scores per subgroup "
        "and a test of their difference.",
        metavar="COLUMN",
    )
    annotators: list[str] | None = option(
        None,
        "Manifest columns with the labels of two or more annotators (empty cells: no label): their agreement, and that "
        "of the model with each. Without RUN: of all rows of --manifest, or of --benchmark.",
        metavar="COLUMN",
    )
    manifest: str | None = option(
        None,
        "Table with the columns of --subgroups and --annotators. Default: the manifest of the run, or the official "
        "split of its benchmark.",
        metavar="FILE",
    )
    costs: str | None = option(
        None,
        "Square table (CSV) with the cost of each decision: rows are true classes (names in the first column), columns "
        "predicted classes; an optional column prior has the prevalence of each class where the model is used. Adds "
        "the expected cost of the predicted classes and of Bayes decisions.",
        metavar="FILE",
    )
    min_subgroup: int = option(20, "Minimum number of images of a subgroup whose scores are reported.", ge=1)
    non_inferiority: list[str] | None = option(
        None,
        "Test whether the other runs are not worse than the first run by a margin (accuracy=0.02, brier=0.01; "
        "sensitivity=0.05 with --positive).",
        metavar="SCORE=MARGIN",
    )
    equivalence: list[str] | None = option(
        None, "Test whether the other runs and the first run differ by less than a margin.", metavar="SCORE=MARGIN"
    )
    checklist: str | None = option(
        None,
        "Fill in a reporting checklist as far as the record of the run contains the answers.",
        choices=("claim", "tripod-ai", "stard-ai"),
    )
    pdf: bool = option(False, "Write a one-page PDF summary per run: data, scores, failures, example mistakes.")
    output_dir: str | None = option(
        None, "Output folder. Default: the folder of the run; ./report for several runs or a CSV file."
    )

    def __post_init__(self) -> None:
        if not self.runs and not self.benchmark and not (self.annotators and self.manifest):
            raise UsageError(SettingsMessage.REPORT_WITHOUT_RUNS)
        if not self.runs and self.checklist:
            raise UsageError(SettingsMessage.CHECKLIST_WITHOUT_RUN)

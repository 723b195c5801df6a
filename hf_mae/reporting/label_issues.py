"""Results of an audit of labels: a CSV file for decisions, and contact sheets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.checks.audit import AuditImage
from ..data.sources.corrections import COLUMNS
from ..files.atomic import write_csv, write_image
from ..runs.record import FIGURES_DIR
from .audit import THUMBNAIL_SIZE, load_thumbnail
from .renderers.terminal import truncate_middle

LABEL_ISSUES_CSV = "label_issues.csv"
SHEET_PATTERN = "label_issues_{}.png"
IMAGES_PER_ROW, IMAGES_PER_SHEET = 6, 24
MAX_LINE_LENGTH = 32  # characters of a line below an image


@dataclass(frozen=True)
class LabelIssueRow:
    """An image whose label may be wrong.

    Args:
        image: the image with its label.
        quality: quality of the label, 0 to 1.
        suggested_label: the class that the models predict.
        label_score: the models' score of the label.
        suggested_label_score: the models' score of the predicted class.
    """

    image: AuditImage
    quality: float
    suggested_label: str
    label_score: float
    suggested_label_score: float


@dataclass(frozen=True)
class LabelFindings:
    """Result of an audit of labels.

    Args:
        num_evaluated_images: number of images classified by models that were not trained on them.
        num_images: number of images of the dataset.
        issues: labels that may be wrong, the most likely first.
        num_shown: number of issues on the contact sheets.
    """

    folder: Path
    num_evaluated_images: int
    num_images: int
    issues: list[LabelIssueRow]
    num_shown: int

    @property
    def csv_path(self) -> Path:
        """The CSV file with the column `decision`."""
        return self.folder / LABEL_ISSUES_CSV


def write_label_issues(folder: Path, issues: Sequence[LabelIssueRow], max_sheets: int) -> int:
    """Writes the CSV file, with an empty column `decision` for a reviewer, and the contact sheets.

    Returns:
        The number of issues on the contact sheets.
    """
    for old in (folder / FIGURES_DIR).glob(SHEET_PATTERN.format("*")):
        old.unlink()
    rows = [
        [issue.image.file_name, issue.image.label, "", issue.suggested_label, issue.image.split]
        + [f"{value:.4f}" for value in (issue.quality, issue.label_score, issue.suggested_label_score)]
        for issue in issues
    ]
    columns = ["suggested_label", "split", "quality", "label_score", "suggested_label_score"]
    write_csv(folder / LABEL_ISSUES_CSV, [*COLUMNS, *columns], rows, for_people=True)
    shown = issues[: IMAGES_PER_SHEET * max_sheets]
    for start in range(0, len(shown), IMAGES_PER_SHEET):
        path = folder / FIGURES_DIR / SHEET_PATTERN.format(start // IMAGES_PER_SHEET + 1)
        _write_sheet(path, shown[start : start + IMAGES_PER_SHEET], start)
    return len(shown)


def _write_sheet(path: Path, issues: Sequence[LabelIssueRow], start: int) -> None:
    """Writes a PNG of images with their row number in the CSV file, file name, label and suggested class."""
    caption_height, rows = 50, -(-len(issues) // IMAGES_PER_ROW)
    width, height = THUMBNAIL_SIZE + 12, THUMBNAIL_SIZE + caption_height + 8
    sheet = Image.new("RGB", (min(IMAGES_PER_ROW, len(issues)) * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, issue in enumerate(issues):
        left, top = index % IMAGES_PER_ROW * width + 6, index // IMAGES_PER_ROW * height + 4
        sheet.paste(load_thumbnail(issue.image), (left, top))
        lines = [
            f"{start + index + 1}  {Path(issue.image.file_name).name}",
            f"label: {issue.image.label} ({issue.label_score:.2f})",
            f"predicted: {issue.suggested_label} ({issue.suggested_label_score:.2f})",
        ]
        text = "\n".join(truncate_middle(line, MAX_LINE_LENGTH) for line in lines)
        draw.text((left, top + THUMBNAIL_SIZE + 1), text, fill="black", font=font, spacing=2)
    write_image(path, sheet)

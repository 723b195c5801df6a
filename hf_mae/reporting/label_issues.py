"""What an audit of labels leaves behind: a CSV to decide in, and contact sheets to decide by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.audit import AuditImage
from ..data.corrections import COLUMNS
from ..files.atomic import write_csv, write_image
from .audit import THUMBNAIL_SIZE, load_thumbnail, truncate_middle

LABEL_ISSUES_CSV = "label_issues.csv"
SHEET_PATTERN = "label_issues_{}.png"
IMAGES_PER_ROW, IMAGES_PER_SHEET = 6, 24  # images in a row, on a sheet
MAX_LINE_LENGTH = 32  # of a line below an image


@dataclass(frozen=True)
class LabelIssueRow:
    """An image whose label may be wrong: how good its label is (0 to 1), what the models say, and how sure they are."""

    image: AuditImage
    quality: float
    suggested_label: str
    label_score: float
    suggested_label_score: float


@dataclass(frozen=True)
class LabelFindings:
    """What an audit of labels found.

    Args:
        num_evaluated_images: that models judged which were not trained on them.
        num_images: that the data has.
        issues: labels that may be wrong, the likeliest first.
        num_shown: of these, on the contact sheets.
    """

    folder: Path
    num_evaluated_images: int
    num_images: int
    issues: list[LabelIssueRow]
    num_shown: int

    @property
    def csv_path(self) -> Path:
        """The CSV to decide in."""
        return self.folder / LABEL_ISSUES_CSV


def write_label_issues(folder: Path, issues: Sequence[LabelIssueRow], max_sheets: int) -> int:
    """Writes the CSV, whose column `decision` is for a person to fill, and the sheets; returns how many are shown."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(SHEET_PATTERN.format("*")):
        old.unlink()
    rows = [
        [one.image.file_name, one.image.label, "", one.suggested_label, one.image.split]
        + [f"{value:.4f}" for value in (one.quality, one.label_score, one.suggested_label_score)]
        for one in issues
    ]
    more = ["suggested", "split", "quality", "score_of_label", "score_of_suggested"]
    write_csv(folder / LABEL_ISSUES_CSV, [*COLUMNS, *more], rows)
    shown = issues[: IMAGES_PER_SHEET * max_sheets]
    for start in range(0, len(shown), IMAGES_PER_SHEET):
        _write_sheet(
            folder / SHEET_PATTERN.format(start // IMAGES_PER_SHEET + 1), shown[start : start + IMAGES_PER_SHEET], start
        )
    return len(shown)


def _write_sheet(path: Path, issues: Sequence[LabelIssueRow], start: int) -> None:
    """A PNG of images with their number in the CSV, file, label and suggested class."""
    text, rows = 50, -(-len(issues) // IMAGES_PER_ROW)
    width, height = THUMBNAIL_SIZE + 12, THUMBNAIL_SIZE + text + 8
    sheet = Image.new("RGB", (min(IMAGES_PER_ROW, len(issues)) * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, one in enumerate(issues):
        left, top = place % IMAGES_PER_ROW * width + 6, place // IMAGES_PER_ROW * height + 4
        sheet.paste(load_thumbnail(one.image), (left, top))
        lines = [
            f"{start + place + 1}  {truncate_middle(Path(one.image.file_name).name, MAX_LINE_LENGTH)}",
            truncate_middle(f"label: {one.image.label} ({one.label_score:.2f})", MAX_LINE_LENGTH),
            truncate_middle(f"models: {one.suggested_label} ({one.suggested_label_score:.2f})", MAX_LINE_LENGTH),
        ]
        draw.text((left, top + THUMBNAIL_SIZE + 1), "\n".join(lines), fill="black", font=font, spacing=2)
    write_image(path, sheet)

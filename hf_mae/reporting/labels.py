"""What an audit of labels leaves behind: a CSV to decide in, and contact sheets to decide by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.audit import Audited
from ..data.corrections import COLUMNS
from ..files.writing import write_csv, write_picture
from .audit import TILE, short, tile_of

NAME = "label_issues.csv"
SHEET = "label_issues_{}.png"
ACROSS, A_SHEET = 6, 24  # images in a row, on a sheet
LETTERS = 32  # of a line below an image


@dataclass(frozen=True)
class Suspected:
    """An image whose label may be wrong: how good its label is (0 to 1), what the models say, and how sure they are."""

    image: Audited
    quality: float
    suggested: str
    score_of_label: float
    score_of_suggested: float


@dataclass(frozen=True)
class LabelFindings:
    """What an audit of labels found.

    Args:
        images: that models judged which were not trained on them.
        of: that the data has.
        found: labels that may be wrong, the likeliest first.
        shown: of these, on the contact sheets.
    """

    folder: Path
    images: int
    of: int
    found: list[Suspected]
    shown: int

    @property
    def table(self) -> Path:
        """The CSV to decide in."""
        return self.folder / NAME


def write_label_issues(folder: Path, found: Sequence[Suspected], max_sheets: int) -> int:
    """Writes the CSV, whose column `decision` is for a person to fill, and the sheets; returns how many are shown."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(SHEET.format("*")):
        old.unlink()
    rows = [
        [one.image.file_name, one.image.label, "", one.suggested, one.image.split]
        + [f"{value:.4f}" for value in (one.quality, one.score_of_label, one.score_of_suggested)]
        for one in found
    ]
    more = ["suggested", "split", "quality", "score_of_label", "score_of_suggested"]
    write_csv(folder / NAME, [*COLUMNS, *more], rows)
    shown = found[: A_SHEET * max_sheets]
    for start in range(0, len(shown), A_SHEET):
        _sheet(folder / SHEET.format(start // A_SHEET + 1), shown[start : start + A_SHEET], start)
    return len(shown)


def _sheet(path: Path, found: Sequence[Suspected], start: int) -> None:
    """A PNG of images with their number in the CSV, file, label and suggested class."""
    text, rows = 50, -(-len(found) // ACROSS)
    width, height = TILE + 12, TILE + text + 8
    sheet = Image.new("RGB", (min(ACROSS, len(found)) * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, one in enumerate(found):
        left, top = place % ACROSS * width + 6, place // ACROSS * height + 4
        sheet.paste(tile_of(one.image), (left, top))
        lines = [
            f"{start + place + 1}  {short(Path(one.image.file_name).name, LETTERS)}",
            short(f"label: {one.image.label} ({one.score_of_label:.2f})", LETTERS),
            short(f"models: {one.suggested} ({one.score_of_suggested:.2f})", LETTERS),
        ]
        draw.text((left, top + TILE + 1), "\n".join(lines), fill="black", font=font, spacing=2)
    write_picture(path, sheet)

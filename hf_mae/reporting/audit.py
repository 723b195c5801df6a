"""Results of an audit: CSV files and contact sheets of near-duplicate pairs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.checks.audit import AuditImage, PairKind, classify_duplicate_pair
from ..data.checks.duplicates import DuplicatePair
from ..data.images.image_io import read_rgb
from ..files.atomic import write_csv, write_image
from ..runs.record import FIGURES_DIR
from ..settings.audit import PAIRS_PER_SHEET
from .renderers.terminal import truncate_middle

THUMBNAIL_SIZE = 200  # pixels
MAX_LINE_LENGTH = 34  # characters of a line below an image


def describe_pair_kind(kind: PairKind) -> str:
    """Returns `conflicting labels`, `across splits`, both, or `same label`."""
    titles = ["conflicting labels"] if kind.conflicting_labels else []
    titles += ["across splits"] if kind.across_splits else []
    return "; ".join(titles) or "same label"


def write_pairs(path: Path, images: list[AuditImage], pairs: list[DuplicatePair]) -> None:
    """Writes pairs as CSV, in the format that `--exclude_pairs` reads."""
    sides = [f"{column}{side}" for side in "12" for column in ("filename", "label", "split")]
    rows = []
    for pair in pairs:
        first, second = images[pair.first], images[pair.second]
        cells = [cell for image in (first, second) for cell in (image.file_name, image.label, image.split)]
        kind = describe_pair_kind(classify_duplicate_pair(first, second))
        rows.append([*cells, pair.distance, f"{pair.similarity:.4f}", f"{pair.detail:.4f}", kind])
    write_csv(path, [*sides, "hash_distance", "similarity", "detail", "kind"], rows, for_people=True)


def write_pair_sheet(path: Path, images: list[AuditImage], pairs: list[DuplicatePair]) -> None:
    """Writes a PNG of pairs, side by side, with labels, splits and the correlation of their detail."""
    columns, caption_height = 3, 46
    rows = -(-len(pairs) // columns)
    width, height = 2 * THUMBNAIL_SIZE + 24, THUMBNAIL_SIZE + caption_height + 12
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, pair in enumerate(pairs):
        left, top = index % columns * width + 8, index // columns * height + 6
        first, second = images[pair.first], images[pair.second]
        for offset, image in ((0, first), (THUMBNAIL_SIZE + 4, second)):
            sheet.paste(load_thumbnail(image), (left + offset, top))
            lines = [Path(image.file_name).name, f"{image.split}: {image.label}"]
            text = "\n".join(truncate_middle(line, MAX_LINE_LENGTH) for line in lines)
            draw.text((left + offset, top + THUMBNAIL_SIZE + 1), text, fill="black", font=font, spacing=2)
        colour = "#b00000" if first.label != second.label else "#b06000" if first.split != second.split else "#404040"
        note = f"{pair.detail:.2f}  {describe_pair_kind(classify_duplicate_pair(first, second))}"
        draw.text((left, top + THUMBNAIL_SIZE + 30), note, fill=colour, font=font)
    write_image(path, sheet)


def load_thumbnail(image: AuditImage) -> Image.Image:
    """Reads an image as a thumbnail."""
    thumbnail = read_rgb(image.path, draft_size=(THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    thumbnail.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return thumbnail


@dataclass(frozen=True)
class AuditFindings:
    """Result of an audit.

    Args:
        num_images: number of images compared.
        num_images_in_pairs: number of images that have a near-duplicate.
        pairs_by_kind: number of pairs by kind, in the order of the descriptions.
        num_pairs_shown: number of pairs on the contact sheets.
    """

    folder: Path
    num_images: int
    num_images_in_pairs: int
    pairs_by_kind: dict[PairKind, int]
    num_pairs_shown: int

    @property
    def num_pairs(self) -> int:
        """Number of near-duplicate pairs."""
        return sum(self.pairs_by_kind.values())


def write_audit(folder: Path, images: list[AuditImage], pairs: list[DuplicatePair], max_sheets: int) -> AuditFindings:
    """Writes the CSVs and contact sheets of an audit."""
    for old in folder.glob(f"{FIGURES_DIR}/contact_sheet_*.png"):
        old.unlink()
    kinds = [classify_duplicate_pair(images[pair.first], images[pair.second]) for pair in pairs]
    write_pairs(folder / "near_duplicates.csv", images, pairs)
    for name in ("conflicting_labels", "across_splits"):
        selected = [pair for pair, kind in zip(pairs, kinds) if getattr(kind, name)]
        write_pairs(folder / f"{name}.csv", images, selected)
    # Conflicting labels first, then pairs across splits; within each, the least similar first.
    order = sorted(
        range(len(pairs)),
        key=lambda i: (not kinds[i].conflicting_labels, not kinds[i].across_splits, pairs[i].detail),
    )
    shown = [pairs[index] for index in order[: PAIRS_PER_SHEET * max_sheets]]
    for number in range(0, len(shown), PAIRS_PER_SHEET):
        path = folder / FIGURES_DIR / f"contact_sheet_{number // PAIRS_PER_SHEET + 1}.png"
        write_pair_sheet(path, images, shown[number : number + PAIRS_PER_SHEET])
    counts = dict(sorted(Counter(kinds).items(), key=lambda item: describe_pair_kind(item[0])))
    paired = {index for pair in pairs for index in (pair.first, pair.second)}
    return AuditFindings(folder, len(images), len(paired), counts, len(shown))

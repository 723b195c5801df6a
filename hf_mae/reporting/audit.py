"""What an audit leaves behind: CSVs of pairs, and contact sheets."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.audit import ACROSS_SPLITS, CONFLICTING_LABELS, AuditImage, classify_duplicate_pair
from ..data.duplicates import DuplicatePair
from ..data.image_io import open_image, to_rgb
from ..files.atomic import write_csv, write_image
from ..settings.studies import PAIRS_PER_SHEET

THUMBNAIL_SIZE = 200  # pixels of one image on a sheet


def write_pairs(path: Path, images: list[AuditImage], pairs: list[DuplicatePair]) -> None:
    """A CSV of pairs, as `--exclude_pairs` reads it."""
    sides = [f"{column}{side}" for side in "12" for column in ("filename", "label", "split")]
    rows = []
    for pair in pairs:
        one, two = images[pair.first], images[pair.second]
        cells = [cell for image in (one, two) for cell in (image.file_name, image.label, image.split)]
        rows.append(
            [*cells, pair.distance, f"{pair.similarity:.4f}", f"{pair.detail:.4f}", classify_duplicate_pair(one, two)]
        )
    write_csv(path, [*sides, "hash_distance", "similarity", "detail", "kind"], rows)


def write_pair_sheet(path: Path, images: list[AuditImage], pairs: list[DuplicatePair]) -> None:
    """A PNG of pairs, side by side, with labels, splits and the correlation of their detail."""
    columns, text = 3, 46
    rows = -(-len(pairs) // columns)
    width, height = 2 * THUMBNAIL_SIZE + 24, THUMBNAIL_SIZE + text + 12
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, pair in enumerate(pairs):
        left, top = place % columns * width + 8, place // columns * height + 6
        one, two = images[pair.first], images[pair.second]
        for offset, image in ((0, one), (THUMBNAIL_SIZE + 4, two)):
            sheet.paste(load_thumbnail(image), (left + offset, top))
            lines = [truncate_middle(Path(image.file_name).name), truncate_middle(f"{image.split}: {image.label}")]
            draw.text((left + offset, top + THUMBNAIL_SIZE + 1), "\n".join(lines), fill="black", font=font, spacing=2)
        colour = "#b00000" if one.label != two.label else "#b06000" if one.split != two.split else "#404040"
        note = f"{pair.detail:.2f}  {classify_duplicate_pair(one, two)}"
        draw.text((left, top + THUMBNAIL_SIZE + 30), note, fill=colour, font=font)
    write_image(path, sheet)


def load_thumbnail(image: AuditImage) -> Image.Image:
    """An image, small, for a sheet."""
    with open_image(image.path) as opened:
        opened.draft("RGB", (THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        tile = to_rgb(opened)
    tile.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return tile


def truncate_middle(text: str, length: int = 34) -> str:
    """A text without its middle, where it is long."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"


@dataclass(frozen=True)
class AuditFindings:
    """What an audit found.

    Args:
        num_images: that were looked at.
        num_images_in_pairs: of these, images that have a near-duplicate.
        pairs_by_kind: pairs by what is the matter with them (`data.audit.kind_of`).
        num_pairs_shown: pairs on the contact sheets.
    """

    folder: Path
    num_images: int
    num_images_in_pairs: int
    pairs_by_kind: dict[str, int]
    num_pairs_shown: int

    @property
    def num_pairs(self) -> int:
        """All pairs of near-duplicates."""
        return sum(self.pairs_by_kind.values())


def write_audit(folder: Path, images: list[AuditImage], pairs: list[DuplicatePair], max_sheets: int) -> AuditFindings:
    """Writes the CSVs and contact sheets of an audit."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("contact_sheet_*.png"):
        old.unlink()
    kinds = [classify_duplicate_pair(images[pair.first], images[pair.second]) for pair in pairs]
    files = {"near_duplicates": "", "conflicting_labels": CONFLICTING_LABELS, "across_splits": ACROSS_SPLITS}
    for name, wanted in files.items():
        write_pairs(folder / f"{name}.csv", images, [pair for pair, kind in zip(pairs, kinds) if wanted in kind])
    # What matters most comes first, and of that the least sure.
    order = sorted(
        range(len(pairs)),
        key=lambda i: (CONFLICTING_LABELS not in kinds[i], ACROSS_SPLITS not in kinds[i], pairs[i].detail),
    )
    shown = [pairs[index] for index in order[: PAIRS_PER_SHEET * max_sheets]]
    for number in range(0, len(shown), PAIRS_PER_SHEET):
        path = folder / f"contact_sheet_{number // PAIRS_PER_SHEET + 1}.png"
        write_pair_sheet(path, images, shown[number : number + PAIRS_PER_SHEET])
    involved = {index for pair in pairs for index in (pair.first, pair.second)}
    return AuditFindings(folder, len(images), len(involved), dict(sorted(Counter(kinds).items())), len(shown))

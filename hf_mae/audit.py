"""`hf-mae audit`: near-duplicate images within and across labels and splits, as CSV and as contact sheets."""

import csv
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict
from PIL import Image, ImageDraw, ImageFont

from .arguments import DataSourceArguments
from .data.duplicates import MAX_DISTANCE, MIN_DETAIL, MIN_SIMILARITY, Pair, near_duplicates
from .data.folders import image_files, load_unlabelled
from .data.sources import read_splits
from .data.transforms import to_rgb
from .errors import UsageError
from .recipe import parse
from .runs import set_up_logging

logger = logging.getLogger(__name__)

CONFLICTING, ACROSS, SAME = "conflicting labels", "across splits", "same label"
PAIRS_A_SHEET = 24
TILE = 200  # pixels of one image on a sheet


@dataclass
class AuditArguments(DataSourceArguments):
    """What is audited, and how near a duplicate is."""

    output_dir: str | None = field(default=None, metadata={"help": "Where the CSVs and the contact sheets go."})
    unlabelled: bool = field(default=False, metadata={"help": "data_dir is any tree of images, without classes."})
    max_hash_distance: int = field(
        default=MAX_DISTANCE, metadata={"help": "Bits of 64 by which the hashes of a candidate may differ."}
    )
    min_similarity: float = field(
        default=MIN_SIMILARITY, metadata={"help": "Structural similarity (0 to 1) that confirms a candidate."}
    )
    min_detail: float = field(default=MIN_DETAIL, metadata={"help": "And correlation of the fine detail (0 to 1)."})
    max_sheets: int = field(default=20, metadata={"help": f"Contact sheets at most, of {PAIRS_A_SHEET} pairs each."})


@dataclass(frozen=True)
class Audited:
    """An image of the audit."""

    path: str
    file_name: str
    label: str
    split: str


def audited_images(splits: DatasetDict | dict[str, Dataset]) -> list[Audited]:
    """Every image of the splits, with its label ("" where there are none).

    Raises:
        UsageError: the images are no files.
    """
    images = []
    for split, dataset in splits.items():
        paths = image_files(dataset)
        if len(dataset) and not paths:
            raise UsageError("The images are not files of their own (a parquet file or a Hub data set): unpack them.")
        labels = [""] * len(paths)
        if "labels" in dataset.column_names:
            labels = [dataset.features["labels"].names[index] for index in dataset["labels"][:]]
        images += [Audited(*image, split) for image in zip(paths, dataset["file_name"][:], labels)]
    return images


def kind_of(first: Audited, second: Audited) -> str:
    """What is the matter with a pair: `conflicting labels`, `across splits`, both, or `same label`."""
    kinds = [CONFLICTING] if first.label != second.label else []
    kinds += [ACROSS] if first.split != second.split else []
    return "; ".join(kinds) or SAME


def write_pairs(path: Path, images: list[Audited], pairs: list[Pair]) -> None:
    """A CSV of pairs, as `--exclude_pairs` reads it."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        sides = [f"{column}{side}" for side in "12" for column in ("filename", "label", "split")]
        writer.writerow([*sides, "hash_distance", "similarity", "detail", "kind"])
        for pair in pairs:
            one, two = images[pair.first], images[pair.second]
            cells = [cell for image in (one, two) for cell in (image.file_name, image.label, image.split)]
            writer.writerow([*cells, pair.distance, f"{pair.similarity:.4f}", f"{pair.detail:.4f}", kind_of(one, two)])


def contact_sheet(path: Path, images: list[Audited], pairs: list[Pair]) -> None:
    """A PNG of pairs, side by side, with labels, splits and the correlation of their detail."""
    columns, text = 3, 46
    rows = -(-len(pairs) // columns)
    width, height = 2 * TILE + 24, TILE + text + 12
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for place, pair in enumerate(pairs):
        left, top = place % columns * width + 8, place // columns * height + 6
        one, two = images[pair.first], images[pair.second]
        for offset, image in ((0, one), (TILE + 4, two)):
            with Image.open(image.path) as opened:
                opened.draft("RGB", (TILE, TILE))
                tile = to_rgb(opened)
            tile.thumbnail((TILE, TILE))
            sheet.paste(tile, (left + offset, top))
            lines = [_short(Path(image.file_name).name), _short(f"{image.split}: {image.label}")]
            draw.text((left + offset, top + TILE + 1), "\n".join(lines), fill="black", font=font, spacing=2)
        colour = "#b00000" if one.label != two.label else "#b06000" if one.split != two.split else "#404040"
        note = f"{pair.detail:.2f}  {kind_of(one, two)}"
        draw.text((left, top + TILE + 30), note, fill=colour, font=font)
    sheet.save(path)


def _short(text: str, length: int = 34) -> str:
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"


def main(argv: list[str]) -> int:
    (options,), _ = parse(
        "audit",
        "Find near-duplicate images within and across labels and splits.",
        [AuditArguments],
        argv,
        required=("data_dir", "output_dir"),
    )
    shares = options.min_similarity, options.min_detail
    if min(shares) < 0.0 or max(shares) > 1.0 or not 0 <= options.max_hash_distance <= 64:
        raise UsageError("min_similarity and min_detail lie between 0 and 1, max_hash_distance between 0 and 64.")
    set_up_logging(True)
    if options.unlabelled:
        workers = options.preprocessing_num_workers
        splits = {"all": load_unlabelled(options.data_dir, options.on_bad_image, workers)}
    else:
        splits = read_splits(options, keep_repeated=True)
    images = audited_images(splits)
    pairs = near_duplicates(
        [image.path for image in images],
        max_distance=options.max_hash_distance,
        min_similarity=options.min_similarity,
        min_detail=options.min_detail,
        num_workers=options.preprocessing_num_workers,
    )
    write_audit(Path(options.output_dir), images, pairs, options.max_sheets)
    return 0


def write_audit(folder: Path, images: list[Audited], pairs: list[Pair], max_sheets: int) -> None:
    """Writes the CSVs and contact sheets, and prints what was found."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("contact_sheet_*.png"):
        old.unlink()
    kinds = [kind_of(images[pair.first], images[pair.second]) for pair in pairs]
    files = {"near_duplicates": "", "conflicting_labels": CONFLICTING, "across_splits": ACROSS}
    for name, wanted in files.items():
        write_pairs(folder / f"{name}.csv", images, [pair for pair, kind in zip(pairs, kinds) if wanted in kind])
    # What matters most comes first, and of that the least sure.
    order = sorted(
        range(len(pairs)), key=lambda i: (CONFLICTING not in kinds[i], ACROSS not in kinds[i], pairs[i].detail)
    )
    shown = [pairs[index] for index in order[: PAIRS_A_SHEET * max_sheets]]
    for number in range(0, len(shown), PAIRS_A_SHEET):
        path = folder / f"contact_sheet_{number // PAIRS_A_SHEET + 1}.png"
        contact_sheet(path, images, shown[number : number + PAIRS_A_SHEET])
    involved = len({index for pair in pairs for index in (pair.first, pair.second)})
    print(f"{len(images)} images: {len(pairs)} pairs of near-duplicates, of {involved} images")
    for kind, count in sorted(Counter(kinds).items()):
        print(f"  {count:6d}  {kind}")
    if len(shown) < len(pairs):
        print(f"The contact sheets show the first {len(shown)} pairs (--max_sheets).")
    if any(CONFLICTING in kind for kind in kinds):
        print(f"--exclude_pairs {folder / 'conflicting_labels.csv'} leaves out both images of each conflicting pair.")
    if any(ACROSS in kind for kind in kinds):
        print(f"Scores on pairs across splits are too good: see {folder / 'across_splits.csv'}.")
    print(f"Look through contact_sheet_*.png in {folder} before you rely on it.")

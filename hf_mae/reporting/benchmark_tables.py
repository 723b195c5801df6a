"""Benchmarks as documents, for the terminal and for the documentation."""

from ..settings.benchmarks import BENCHMARKS, Benchmark
from .document import Block, Heading, Paragraph
from .renderers import markdown
from .table import CellLike, Column, Table, fields_table, number_columns


def build_benchmark_list() -> list[Block]:
    """Builds the list of benchmarks: classes, images, split, licence and source."""
    rows: list[list[CellLike]] = []
    for name, entry in BENCHMARKS.items():
        folds = f" (fold 1 of {entry.folds})" if entry.folds else ""
        split = _format_counts(entry.split_counts(1)) + folds
        rows.append([name, len(entry.classes), f"{entry.images:,}", split, entry.licence, entry.homepage])
    details = [Column(title, below=True) for title in ("split", "licence", "source")]
    return [
        Table([Column("benchmark"), *number_columns(["classes", "images"]), *details], rows),
        Paragraph("hf-mae benchmarks NAME shows the files that a benchmark needs."),
    ]


def build_benchmark(name: str, entry: Benchmark) -> list[Block]:
    """Builds the description of a benchmark: source, classes, splits, and the files that it needs."""
    classes = f"{len(entry.classes)}{' ordered grades' if entry.ordered else ''}: {', '.join(entry.classes)}"
    rows = [
        ("source", entry.homepage),
        ("licence", entry.licence),
        ("please cite", entry.citation),
        ("classes", classes),
    ]
    rows += [("" if index else "split", text) for index, text in enumerate(_protocol_lines(entry))]
    if agreements := entry.split_table.agreements:
        rows.append(("agreement", f"--agreement {' | '.join(agreements)} (default: the first)"))
    rows += [
        ("guaranteed", entry.guarantees),
        ("limitations", entry.limitations),
        ("on disk", _describe_layout(entry)),
    ]
    if entry.split_files:
        files = " ".join(file.name for file in entry.split_files)
        rows.append(("split files", f"downloaded once, or --split_file {files}"))
    train = f"hf-mae finetune --model_name_or_path CHECKPOINT --benchmark {name} --data_dir ARCHIVE --output_dir RUN"
    rows += [
        ("published", f"{len(entry.published_results)} rows: hf-mae report --benchmark {name}"),
        ("train", train),
    ]
    return [Heading(entry.title, 1), fields_table(rows)]


def _format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


def _protocol_lines(entry: Benchmark) -> list[str]:
    lines = []
    for name in entry.protocols:
        folds = entry.fold_counts(name)
        counts = "; ".join(_format_counts(fold) for fold in folds[:2])
        more = f"; ... {len(folds)} folds" if len(folds) > 2 else ""
        lines.append(f"{name}: {counts}{more}")
    return lines


def _describe_layout(entry: Benchmark) -> str:
    archive = (
        f"--data_dir is the archive ({entry.images:,} images), as downloaded or extracted, or a folder above or in it. "
    )
    if entry.split_folders:
        splits = " and ".join(f"{folder}/" for folder in entry.split_folders)
        return f"{archive}The images are in class folders below {splits}."
    if entry.keyed_by_class:
        names = ", ".join(entry.class_folder(name) for name in entry.classes[:3])
        layout = f"The images are in the class folders {names}, ..."
    else:
        layout = "The images are found by their file names, in any folder."
    test = f" The test images are in class folders below {entry.test_folder}/." if entry.test_folder else ""
    return archive + layout + test


def format_split_guarantees() -> str:
    """Formats the guarantees and limitations of the official splits as a Markdown table."""
    rows = [[name, entry.main_protocol, entry.guarantees, entry.limitations] for name, entry in BENCHMARKS.items()]
    titles = ("benchmark", "split", "guaranteed", "not guaranteed")
    return markdown.render([Table([Column(title) for title in titles], rows)])

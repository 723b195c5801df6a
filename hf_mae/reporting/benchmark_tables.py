"""The benchmarks as tables: for the screen, and for the documentation."""

from ..data.benchmarks import BENCHMARKS, Benchmark
from .render import escape_markdown_cell


def format_benchmark_list() -> str:
    """A line for each benchmark: classes, images, split, licence, where to get it."""
    lines = [f"{'name':28}{'classes':>8}{'images':>8}  split"]
    for name, entry in BENCHMARKS.items():
        counts = ", ".join(f"{split} {count:,}" for split, count in entry.split_counts(1).items())
        folds = f" (fold 1 of {entry.folds})" if entry.folds else ""
        lines.append(f"{name:28}{len(entry.classes):8}{entry.images:8,}  {counts}{folds}")
        lines.append(f"{'':44}  {entry.licence}; {entry.homepage}")
    return "\n".join([*lines, "hf-mae benchmarks NAME shows what one expects on disk."])


def format_benchmark(name: str, entry: Benchmark) -> str:
    """What a benchmark is, and what it expects."""
    agreements = entry.split_table.agreements
    lines = [
        entry.title,
        f"from         {entry.homepage}",
        f"licence      {entry.licence}",
        f"please cite  {entry.citation}",
        f"classes      {len(entry.classes)}{' grades' if entry.ordered else ''}: {', '.join(entry.classes)}",
        *(f"{'split' if number == 0 else '':12} {text}" for number, text in enumerate(_protocol_lines(entry))),
        *([f"agreement    --agreement {' | '.join(agreements)} (the first, if not given)"] if agreements else []),
        f"guaranteed   {entry.guarantees}",
        f"not          {entry.limitations}",
        f"on disk      {_describe_layout(entry)}",
        *(
            [f"split files  fetched once, or --split_file {' '.join(file.name for file in entry.split_files)}"]
            * bool(entry.split_files)
        ),
        f"published    {len(entry.published_results)} rows: hf-mae report --benchmark {name}",
        f"train        hf-mae finetune --model_name_or_path CHECKPOINT --benchmark {name} --data_dir ARCHIVE "
        "--output_dir RUN",
    ]
    return "\n".join(lines)


def _protocol_lines(entry: Benchmark) -> list[str]:
    lines = []
    for name, folds in entry.protocols.items():
        told = "; ".join(", ".join(f"{split} {count:,}" for split, count in counts.items()) for counts in folds[:2])
        more = f"; ... {len(folds)} folds" if len(folds) > 2 else ""
        lines.append(f"{name}: {told}{more}")
    return lines


def _describe_layout(entry: Benchmark) -> str:
    archive = (
        f"--data_dir is the archive ({entry.images:,} images), unpacked or as downloaded, or a folder above or in it. "
    )
    if entry.split_folders:
        splits = " and ".join(f"{folder}/" for folder in entry.split_folders)
        return archive + f"Images lie in class folders below {splits}."
    told = f"Images lie in the class folders {', '.join(entry.class_folder(name) for name in entry.classes[:3])}, ..."
    if not entry.keyed_by_class:
        told = "Images are found by their file names, in whatever folders."
    test = f" Those of the test split lie in {entry.test_folder}/, in class folders." if entry.test_folder else ""
    return archive + told + test


def format_split_guarantees() -> str:
    """What the official splits guarantee and what they do not, as a Markdown table."""
    lines = ["| benchmark | split | guaranteed | not guaranteed |", "|---|---|---|---|"]
    for name, entry in BENCHMARKS.items():
        lines.append(
            f"| {name} | {entry.main_protocol} | {escape_markdown_cell(entry.guarantees)} | {escape_markdown_cell(entry.limitations)} |"
        )
    return "\n".join(lines) + "\n"

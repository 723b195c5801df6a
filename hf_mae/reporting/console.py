"""Tables on the screen."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from typing import Any

import numpy as np
from datasets import Dataset

from ..data.cache_eviction import format_bytes
from ..errors import pluralize
from ..evaluation.confusion import available_metric_names, display_scale
from ..evaluation.metrics import HEADLINE, TITLES, zero_division_notes
from ..files.caches import cache_folder
from ..models.model_zoo import PublicCheckpoint, load_checkpoint_catalogue
from ..runs.record import RunRecord, Scores
from ..runs.record_io import read_record
from .label_issues import SHEET_PATTERN, LabelFindings


def format_scores_table(scores_by_split: Mapping[str, Scores], max_width: int | None = None) -> str:
    """The headline scores in per cent, a row for each split, and what was counted as 0.

    Args:
        max_width: that there are; where the table is wider, it has a row for each score. None: as many as it takes.
    """
    width = max(len("split"), *(len(split) for split in scores_by_split))
    names = available_metric_names(next(iter(scores_by_split.values()), {}))
    lines = [f"{'split':<{width}}  images  " + "  ".join(f"{TITLES[name]:>15}" for name in names)]
    for split, scores in scores_by_split.items():
        cells = "  ".join(f"{display_scale(name) * scores[name]:15.2f}" for name in names)
        lines.append(f"{split:<{width}}  {scores['num_images']:6d}  {cells}")
    if max_width is not None and max(map(len, lines)) > max_width:
        lines = _format_transposed_scores(scores_by_split, names)
    for split, scores in scores_by_split.items():
        lines += [f"{split}: {note}" for note in zero_division_notes(scores)]
    return "\n".join(lines)


def _format_transposed_scores(scores_by_split: Mapping[str, Scores], names: tuple[str, ...]) -> list[str]:
    """The same with a row for each score."""
    lines = [f"{'':17}" + "".join(f"{split:>12}" for split in scores_by_split)]
    lines.append(f"{'images':17}" + "".join(f"{scores['num_images']:12d}" for scores in scores_by_split.values()))
    for name in names:
        cells = (f"{display_scale(name) * scores[name]:12.2f}" for scores in scores_by_split.values())
        lines.append(f"{TITLES[name]:17}" + "".join(cells))
    return lines


def format_class_table(splits: Mapping[str, Dataset]) -> str:
    """Images by class and split."""
    names = next(iter(splits.values())).features["labels"].names
    counts = {split: np.bincount(dataset["labels"][:], minlength=len(names)) for split, dataset in splits.items()}
    width = max(len("class"), *(len(name) for name in names))
    lines = [f"{'class':<{width}}  " + "  ".join(f"{split:>10}" for split in counts)]
    lines += [
        f"{name:<{width}}  " + "  ".join(f"{by_class[index]:10d}" for by_class in counts.values())
        for index, name in enumerate(names)
    ]
    lines.append(f"{'all':<{width}}  " + "  ".join(f"{by_class.sum():10d}" for by_class in counts.values()))
    return "\n".join(lines)


def format_crossval_table(record: RunRecord, folder: str) -> str:
    """The runs of a cross-validation, and their mean and standard deviation."""
    found = record.crossval
    assert found is not None, "a record of crossval has its summary"
    scores = {str(run): one | read_record(f"{folder}/{run.folder}").scores["validation"] for run, one, _ in found.runs}
    lines, points = [format_scores_table(scores)], found.label_efficiency
    for point in points:
        if len(points) > 1:
            lines.append(f"{100 * point['fraction']:g} % of the labels ({point['images']:g} images):")
        lines += [
            f"{TITLES[name]:>15}  {display_scale(name) * point[name]['mean']:.2f} ± "
            f"{display_scale(name) * point[name]['std']:.2f}"
            for name in available_metric_names(point)
        ]
    each = f" for each of {len(points)} shares of the labels" if len(points) > 1 else ""
    count = len(found.runs) // len(points)
    lines.append(
        f"Mean ± standard deviation over {pluralize(count, 'run')}{each}; every run, and crossval.json, are in {folder}"
    )
    return "\n".join(lines)


def format_probe_table(record: RunRecord) -> str:
    """The scores of the probes, a row for each pooling and kind."""
    found = dict(record.probe or {})
    parts = found.pop("parts")
    lines = ["; ".join(f"{part}: {pluralize(record.images[part], 'image')} ({split})" for part, split in parts.items())]
    rows = [(pooling, kind, scores) for pooling, kinds in found.items() for kind, scores in kinds.items()]
    width = max(7, *(len(kind) for _, kind, _ in rows))
    lines.append(f"{'features':9} {'probe':{width}} " + "  ".join(f"{TITLES[name]:>15}" for name in HEADLINE))
    for pooling, kind, scores in rows:
        lines.append(f"{pooling:9} {kind:{width}} " + "  ".join(f"{100 * scores[name]:15.2f}" for name in HEADLINE))
    if "chosen" in found:
        lines.append(f"chosen: {found['chosen']['linear']['features']}")
    return "\n".join(lines)


def format_label_findings(findings: LabelFindings) -> str:
    """What an audit of labels found, and what to do with it."""
    lines = [
        f"{findings.num_evaluated_images} of {pluralize(findings.num_images, 'image')} were judged by models that were not trained on them: "
        f"{pluralize(len(findings.issues), 'label')} may be wrong"
    ]
    for one in findings.issues[:5]:
        said = f"the models say {one.suggested_label} ({one.suggested_label_score:.2f})"
        lines.append(f"  {one.image.file_name}: {one.image.label}, {said}")
    if findings.num_shown < len(findings.issues):
        lines.append(f"The contact sheets show the first {findings.num_shown} of them (--max_sheets).")
    lines.append(
        f"Look through {SHEET_PATTERN.format('*')} in {findings.folder}, fill the column decision of {findings.csv_path} (keep, remove, "
        f"or the class that it is), and train with --corrections {findings.csv_path}."
    )
    return "\n".join(lines)


def format_model_zoo() -> str:
    """The public checkpoints, a row each."""
    lines = [f"{'name':32}{'architecture':14}{'mask':6}{'MB':>6}  {'licence':14}layout; stage"]
    lines += [
        f"{entry.name:32}{entry.architecture:14}{entry.mask_ratio:6}{entry.megabytes:>6}  {entry.licence:14}"
        f"{entry.layout}; {entry.stage}"
        for entry in load_checkpoint_catalogue().values()
    ]
    return "\n".join([*lines, "Sizes are about, from the layout. Any name serves as --model_name_or_path."])


def format_checkpoint(entry: PublicCheckpoint) -> str:
    """What is known of a public checkpoint."""
    values = {item.name: getattr(entry, item.name) for item in fields(entry)}
    lines = [f"{name:13} {value}" for name, value in values.items() if value]
    return "\n".join([*lines, f"{'open':13} {entry.page_url}", f"{'kept at':13} {entry.converted_path}"])


def format_cache_result(action: str, result: Any) -> str:
    """What `hf-mae cache` says: the parts of the cache, the damaged files, or what was freed."""
    if action == "remove":
        return f"{format_bytes(result)} are free again"
    if action == "check":
        return "\n".join([*result, f"{pluralize(len(result), 'damaged file')} removed" if result else "all is whole"])
    if not result:
        return f"nothing is kept in {cache_folder()}"
    lines = [f"{'name':<12}  {'size':>9}  {'images':>9}  {'last used':<10}  what"]
    for part in result:
        used, images = date.fromtimestamp(part.last_used).isoformat(), "" if part.images is None else str(part.images)
        lines.append(f"{part.name:<12}  {format_bytes(part.size):>9}  {images:>9}  {used}  {part.description}")
    return "\n".join([*lines, f"{format_bytes(sum(part.size for part in result))} in {cache_folder()}"])

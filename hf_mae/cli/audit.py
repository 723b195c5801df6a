"""`hf-mae audit`: near-duplicate images within and across labels and splits, and labels that may be wrong."""

from typing import TYPE_CHECKING

from ..errors import counted
from .flags import Parser

if TYPE_CHECKING:
    from ..reporting.labels import LabelFindings


def parser() -> Parser:
    """Its flags."""
    return Parser("audit")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.labels import LabelFindings
    from ..workflows.audit import audit
    from .logs import show_logs

    show_logs(asked.quiet)
    found = audit(recipe=asked.recipe, **asked.flags)
    if isinstance(found, LabelFindings):
        _tell_labels(found)
        return 0
    print(
        f"{counted(found.images, 'image')}: {counted(found.pairs, 'pair')} of near-duplicates, "
        f"of {counted(found.involved, 'image')}"
    )
    for kind, count in found.kinds.items():
        print(f"  {count:6d}  {kind}")
    if found.shown < found.pairs:
        print(f"The contact sheets show the first {found.shown} pairs (--max_sheets).")
    if any("conflicting" in kind for kind in found.kinds):
        path = found.folder / "conflicting_labels.csv"
        print(f"--exclude_pairs {path} leaves out both images of each conflicting pair.")
    if any("across" in kind for kind in found.kinds):
        print(f"Scores on pairs across splits are too good: see {found.folder / 'across_splits.csv'}.")
    print(f"Look through contact_sheet_*.png in {found.folder} before you rely on it.")
    return 0


def _tell_labels(found: "LabelFindings") -> None:
    print(
        f"{found.images} of {counted(found.of, 'image')} were judged by models that were not trained on them: "
        f"{counted(len(found.found), 'label')} may be wrong"
    )
    for one in found.found[:5]:
        print(
            f"  {one.image.file_name}: {one.image.label}, the models say {one.suggested} ({one.score_of_suggested:.2f})"
        )
    if found.shown < len(found.found):
        print(f"The contact sheets show the first {found.shown} of them (--max_sheets).")
    path = found.folder / "label_issues.csv"
    print(
        f"Look through label_issues_*.png in {found.folder}, fill the column decision of {path} (keep, remove, or the "
        f"class that it is), and train with --corrections {path}."
    )

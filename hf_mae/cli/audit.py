"""`hf-mae audit`: near-duplicate images within and across labels and splits, and labels that may be wrong."""

from ..errors import counted
from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("audit")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.labels import LabelFindings
    from ..reporting.screen import label_lines
    from ..workflows.audit import audit
    from .logs import show_logs

    show_logs(asked.quiet)
    found = audit(recipe=asked.recipe, **asked.flags)
    if isinstance(found, LabelFindings):
        print(label_lines(found))
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

"""`hf-mae audit`: near-duplicate images within and across labels and splits, and labels that may be wrong."""

from ..errors import pluralize
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("audit")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..reporting.console import format_label_findings
    from ..reporting.label_issues import LabelFindings
    from ..workflows.audit import audit
    from .logs import configure_logging

    configure_logging(asked.quiet)
    found = audit(recipe=asked.recipe, **asked.flags)
    if isinstance(found, LabelFindings):
        print(format_label_findings(found))
        return 0
    print(
        f"{pluralize(found.num_images, 'image')}: {pluralize(found.num_pairs, 'pair')} of near-duplicates, "
        f"of {pluralize(found.num_images_in_pairs, 'image')}"
    )
    for kind, count in found.pairs_by_kind.items():
        print(f"  {count:6d}  {kind}")
    if found.num_pairs_shown < found.num_pairs:
        print(f"The contact sheets show the first {found.num_pairs_shown} pairs (--max_sheets).")
    if any("conflicting" in kind for kind in found.pairs_by_kind):
        path = found.folder / "conflicting_labels.csv"
        print(f"--exclude_pairs {path} leaves out both images of each conflicting pair.")
    if any("across" in kind for kind in found.pairs_by_kind):
        print(f"Scores on pairs across splits are too good: see {found.folder / 'across_splits.csv'}.")
    print(f"Look through contact_sheet_*.png in {found.folder} before you rely on it.")
    return 0

"""`hf-mae evaluate`: score a fine-tuned model on a split."""

from .output import print_json, terminal_width
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("evaluate")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..evaluation.calibration import format_calibration_gain
    from ..reporting.console import format_scores_table
    from ..runs.record_io import record_to_dict
    from ..workflows.evaluate import evaluate
    from .logs import configure_logging

    configure_logging(asked.quiet)
    record = evaluate(recipe=asked.recipe, **asked.flags)
    if record is None:
        return 0
    if asked.json:
        print_json(record_to_dict(record))
        return 0
    print(format_scores_table(record.scores, terminal_width()))
    if record.calibration:
        print(format_calibration_gain(record.calibration, next(iter(record.scores))))
        if "fitted_on" in record.calibration:
            folder = record.settings["output_dir"]
            print(f"It was fitted on these very images. --temperature {folder} uses it in evaluate and predict.")
    return 0

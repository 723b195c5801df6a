"""`hf-mae evaluate`: score a fine-tuned model on a split."""

from .flags import Parser
from .lines import print_json, width


def parser() -> Parser:
    """Its flags."""
    return Parser("evaluate")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..evaluation.calibration import calibration_sentence
    from ..reporting.screen import table
    from ..runs.record_files import to_json
    from ..workflows.evaluate import evaluate
    from .logs import show_logs

    show_logs(asked.quiet)
    record = evaluate(recipe=asked.recipe, **asked.flags)
    if record is None:
        return 0
    if asked.json:
        print_json(to_json(record))
        return 0
    print(table(record.scores, width()))
    if record.calibration:
        print(calibration_sentence(record.calibration, next(iter(record.scores))))
        if "fitted_on" in record.calibration:
            folder = record.settings["output_dir"]
            print(f"It was fitted on these very images. --temperature {folder} uses it in evaluate and predict.")
    return 0

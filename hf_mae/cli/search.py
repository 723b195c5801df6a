"""`hf-mae search`: choose hyper-parameters on images that judge nothing else, and train with the best."""

from .output import print_finetune_result, print_json
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("search")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..evaluation.confusion import TITLES
    from ..runs.record_io import record_to_dict
    from ..training.search import format_values
    from ..workflows.search import search
    from .logs import configure_logging

    configure_logging(asked.quiet)
    found = search(recipe=asked.recipe, **asked.flags)
    if asked.json:
        record = record_to_dict(found.record) if found.record else None
        print_json({"metric": found.metric, "best": vars(found.best), "record": record})
        return 0
    print(f"{TITLES.get(found.metric, found.metric)} on the selection split, the best of {len(found.trials)} trials:")
    for trial in sorted(found.trials, key=lambda one: one.score, reverse=found.greater_is_better)[:5]:
        stopped = " (stopped early)" if trial.pruned else ""
        print(f"  {100 * trial.score:6.2f}  trial {trial.number + 1}: {format_values(trial.values)}{stopped}")
    print_finetune_result(found.record, as_json=False)
    return 0

"""`hf-mae search`: choose hyper-parameters on images that judge nothing else, and train with the best."""

from .flags import Parser
from .lines import print_finetuned, print_json


def parser() -> Parser:
    """Its flags."""
    return Parser("search")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..evaluation.confusion import TITLES
    from ..runs.record_files import to_json
    from ..training.search import shown
    from ..workflows.search import search
    from .logs import show_logs

    show_logs(asked.quiet)
    found = search(recipe=asked.recipe, **asked.flags)
    if asked.json:
        record = to_json(found.record) if found.record else None
        print_json({"metric": found.metric, "best": vars(found.best), "record": record})
        return 0
    print(f"{TITLES.get(found.metric, found.metric)} on the selection split, the best of {len(found.trials)} trials:")
    for trial in sorted(found.trials, key=lambda one: one.score, reverse=found.largest)[:5]:
        stopped = " (stopped early)" if trial.stopped else ""
        print(f"  {100 * trial.score:6.2f}  trial {trial.number + 1}: {shown(trial.values)}{stopped}")
    print_finetuned(found.record, as_json=False)
    return 0

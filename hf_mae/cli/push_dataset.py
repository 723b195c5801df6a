"""`hf-mae push-dataset`: a labelled data set to the Hugging Face Hub."""

from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("push-dataset")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.push_dataset import push_dataset
    from .logs import configure_logging

    configure_logging(asked.quiet)
    where = push_dataset(recipe=asked.recipe, **asked.flags)
    print(f"{asked.flags['data_dir']} is at {where}")
    return 0

"""`hf-mae predict`: top classes of images and of videos' frames."""

import sys

from ..errors import escape_control_characters, pluralize
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("predict")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.predict import predict
    from .logs import configure_logging

    configure_logging(asked.quiet)
    done = predict(stream=sys.stdout, **asked.flags)
    if done.output:
        before = f" ({done.num_existing} were there before)" if done.num_existing else ""
        good = done.total - len(done.errors)
        print(f"{good} of {pluralize(done.total, 'image')} predicted: {done.written_path}{before}", file=sys.stderr)
        if done.is_merged:
            print(f"All {pluralize(done.num_shards, 'part')} are together: {done.output}", file=sys.stderr)
    for fault in done.errors:
        print(escape_control_characters(f"hf-mae predict: {fault}"), file=sys.stderr)
    # A launcher ends all processes where one has another status: of parts, the table tells what could not be read.
    return 1 if done.errors and done.num_shards == 1 else 0

"""`hf-mae predict`: top classes of images and of videos' frames."""

import sys

from ..errors import counted, printable
from .flags import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("predict")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    from ..workflows.predict import predict
    from .logs import show_logs

    show_logs(asked.quiet)
    done = predict(to=sys.stdout, **asked.flags)
    if done.output:
        before = f" ({done.before} were there before)" if done.before else ""
        good = done.total - len(done.faults)
        print(f"{good} of {counted(done.total, 'image')} predicted: {done.own}{before}", file=sys.stderr)
        if done.joined:
            print(f"All {counted(done.part_of, 'part')} are together: {done.output}", file=sys.stderr)
    for fault in done.faults:
        print(printable(f"hf-mae predict: {fault}"), file=sys.stderr)
    # A launcher ends all processes where one has another status: of parts, the table tells what could not be read.
    return 1 if done.faults and done.part_of == 1 else 0

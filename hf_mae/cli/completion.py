"""`hf-mae completion`: what a shell needs to complete verbs, flags and their choices."""

import argparse

from ..settings.commands import COMMANDS
from .parser import Parser


def parser() -> Parser:
    """Its flags."""
    return Parser("completion")


def main(argv: list[str]) -> int:
    """Runs it, and returns the exit status."""
    asked = parser().parse(argv)
    import shtab

    print(shtab.complete(_build_completion_parser(), asked.flags["shell"]))
    return 0


def _build_completion_parser() -> argparse.ArgumentParser:
    """The verbs with the flags that their `--help` shows, whose words and values may be files."""
    import shtab

    program = argparse.ArgumentParser(prog="hf-mae")
    verbs = program.add_subparsers()
    for verb in COMMANDS.values():
        known = Parser(verb.name)
        flags = verbs.add_parser(verb.name, help=verb.summary, description=verb.summary)
        for item in known.options.values():
            word = item.name in verb.positionals
            if not (item.show_in_help or word or item.name == "recipe"):
                continue
            said = item.help.replace("%", "%%")
            spelled = [item.name] if word else [f"--{item.name}"]
            if item.value_type is bool:
                flags.add_argument(*spelled, action="store_true", help=said)
                continue
            taken = flags.add_argument(
                *spelled, choices=item.choices, nargs="*" if item.multiple or word else None, help=said
            )
            if item.choices is None and item.value_type is str:
                taken.complete = shtab.FILE  # type: ignore[attr-defined]
    return program

"""`completion`: the completion script of a shell."""

import argparse

from ..settings.commands import COMMANDS, command_line_options
from ..settings.parse import Settings
from .command import command


@command("completion")
def completion(settings: Settings) -> str:
    """Returns the completion script of a shell."""
    import shtab

    return str(shtab.complete(_build_completion_parser(), settings.options.shell))


def _build_completion_parser() -> argparse.ArgumentParser:
    """Builds a parser of all commands with the flags of their `--help`; text values are completed as file names."""
    import shtab

    program = argparse.ArgumentParser(prog="hf-mae")
    subparsers = program.add_subparsers()
    for entry in COMMANDS.values():
        subparser = subparsers.add_parser(entry.name, help=entry.summary, description=entry.summary)
        for item in command_line_options(entry.name).values():
            is_positional = item.name in entry.positionals
            if not (item.show_in_help or is_positional or item.name == "recipe"):
                continue
            help_text = item.help.replace("%", "%%")
            spelling = item.name if is_positional else f"--{item.name}"
            if item.value_type is bool:
                subparser.add_argument(spelling, action="store_true", help=help_text)
                continue
            nargs = "*" if item.multiple or is_positional else None
            argument = subparser.add_argument(spelling, choices=item.choices, nargs=nargs, help=help_text)
            if item.choices is None and item.value_type is str:
                argument.complete = shtab.FILE  # type: ignore[attr-defined]
    return program

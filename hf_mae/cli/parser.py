"""Command-line parser: the same rules for flags, booleans, positional arguments and recipes in every command.

Flags are the options of `settings.commands`, with underscores or dashes. A boolean is `--tta`, `--tta true` or
`--no_tta`. Positional arguments may follow flags. Importing this module does not import torch.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import CommandLineError, did_you_mean
from ..settings.commands import JSON, QUIET, RECIPE, assign_positionals, command_line_options, find_command, usage
from ..settings.options import FALSE_STRINGS, TRUE_STRINGS, Option
from ..settings.parse import ParsedOptions, parse_options
from .flag_aliases import ALIASES_BY_FLAG
from .messages import CliMessage
from .terminal import print_text

HELP_FLAGS = ("-h", "--help")
HELP_ALL_FLAG = "--help_all"
HELP_WIDTH = 80


@dataclass(frozen=True)
class ParsedArgs:
    """The parsed command line: the options of a command, and how to print its result."""

    options: ParsedOptions
    quiet: bool = False
    json: bool = False


class Parser:
    """Parser of a command."""

    def __init__(self, command: str):
        self.command = find_command(command)
        self.options = command_line_options(command)
        self._spellings = {
            name: option.name for option in self.options.values() for name in (option.name, *option.aliases)
        }

    def parse(self, argv: list[str]) -> ParsedArgs:
        """Parses a command line and validates the values, before anything heavy is imported.

        Raises:
            SystemExit: After `--help` or `--help_all`.
            CommandLineError: If the command line is not valid; the message names all unknown flags.
        """
        if any(word in HELP_FLAGS for word in argv):
            print_text(self.help_text())
            raise SystemExit(0)
        if HELP_ALL_FLAG in map(_to_underscores, argv):
            print_text(self.help_text(show_all=True))
            raise SystemExit(0)
        parser = _RaisingArgumentParser(prog=f"hf-mae {self.command.name}", add_help=False, allow_abbrev=False)
        for option in self.options.values():
            parser.add_argument(
                f"--{option.name}", dest=option.name, nargs="+" if option.multiple else None, default=argparse.SUPPRESS
            )
        parser.add_argument("positionals", nargs="*", default=[])
        namespace, unknown = parser.parse_known_intermixed_args(self._normalize_flags(argv))
        flags = vars(namespace)
        positionals = [*flags.pop("positionals"), *(word for word in unknown if not word.startswith("--"))]
        self._check_unknown_flags(word for word in unknown if word.startswith("--"))
        flags |= assign_positionals(self.command.name, positionals, flags)
        recipe = flags.pop(RECIPE.name, None) if self.command.reads_recipes else None
        quiet, as_json = (option.read(flags.pop(option.name, False)) for option in (QUIET, JSON))
        options = parse_options(self.command.name, recipe, flags)
        return ParsedArgs(options, bool(quiet), bool(as_json))

    def _normalize_flags(self, argv: list[str]) -> list[str]:
        """Replaces spellings and aliases of flags, and gives booleans a value: `--no-tta` -> `--tta=false`."""
        normalized: list[str] = []
        words = list(argv)
        while words:
            word = words.pop(0)
            if word == "--":
                return [*normalized, word, *words]
            if not word.startswith("--"):
                normalized.append(word)
                continue
            flag, equals, value = word.partition("=")
            spelling = _to_underscores(flag)[2:]
            name = self._spellings.get(spelling)
            if name is None:
                negated = self._spellings.get(spelling.removeprefix("no_"))
                is_negation = negated is not None and self.options[negated].value_type is bool and not equals
                normalized.append(f"--{negated}=false" if is_negation else word)
            elif self.options[name].value_type is bool and not equals:
                has_value = words and words[0].lower() in TRUE_STRINGS + FALSE_STRINGS
                normalized.append(f"--{name}={words.pop(0) if has_value else 'true'}")
            else:
                normalized.append(f"--{name}{equals}{value}")
        return normalized

    def _check_unknown_flags(self, unknown_flags: Iterable[str]) -> None:
        flags = dict.fromkeys(word.partition("=")[0] for word in unknown_flags)
        if flags:
            named = [f"{flag}{self._suggest_flag(_to_underscores(flag)[2:])}" for flag in flags]
            raise CommandLineError(CliMessage.UNRECOGNIZED_FLAGS, flags=named, command=self.command.name)

    def _suggest_flag(self, name: str) -> str:
        """Returns the flag for a name used by the original MAE code, timm or older Trainers; else the most similar
        flag."""
        flags = [f for f, names in ALIASES_BY_FLAG.items() if name in names.split() and f in self.options]
        if flags:
            return f" (here it is {' or '.join(f'--{flag}' for flag in flags)})"
        return did_you_mean(f"--{name}", [f"--{known}" for known in self.options])

    def help_text(self, show_all: bool = False) -> str:
        """Returns the help text: usage, description and grouped flags with defaults.

        Args:
            show_all: include the flags that are not in `--help`.
        """
        parser = argparse.ArgumentParser(
            prog=f"hf-mae {self.command.name}",
            usage=usage(self.command.name).replace("%", "%%"),
            description=self.command.describe(),
            epilog=self._epilog(show_all),
            add_help=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=26, width=HELP_WIDTH),
        )
        if self.command.positionals:
            arguments = parser.add_argument_group("Arguments")
            for option in (self.options[name] for name in self.command.positionals):
                arguments.add_argument(option.name, metavar=option.placeholder, help=_help_line(option))
        groups: dict[str, Any] = {}
        for option in self.options.values():
            is_listed = show_all or option.show_in_help or option is RECIPE
            if not is_listed or option.name in self.command.positionals:
                continue
            if option.group not in groups:
                groups[option.group] = parser.add_argument_group(option.group)
            value = {"action": "store_true"} if option.value_type is bool else {"metavar": _placeholder(option)}
            groups[option.group].add_argument(f"--{option.name}", help=_help_line(option), **value)
        return parser.format_help().rstrip("\n")

    def _epilog(self, show_all: bool) -> str:
        hidden = sum(
            not (option.show_in_help or option is RECIPE or option.name in self.command.positionals)
            for option in self.options.values()
        )
        more = f" Use --help_all to list {hidden} more flags." if hidden and not show_all else ""
        return f"Flags may contain dashes instead of underscores. A boolean is --flag, --flag true or --no_flag.{more}"


class _RaisingArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandLineError(CliMessage.INVALID_USAGE, error=message, program=self.prog)


def _to_underscores(flag: str) -> str:
    """Returns `--data_dir=x` for `--data-dir=x`."""
    name, equals, value = flag.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else flag


def _placeholder(option: Option) -> str:
    return f"{option.placeholder} ..." if option.multiple else option.placeholder


def _help_line(option: Option) -> str:
    default = " ".join(map(str, option.default)) if isinstance(option.default, list) else option.default
    has_default = not (default is None or default is False or default == "")
    return f"{option.help} (default: {default})".replace("%", "%%") if has_default else option.help.replace("%", "%%")

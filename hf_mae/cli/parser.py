"""The one parser of the command line: the same behaviour for flags, booleans, words and recipes in every verb.

Flags are the options of `settings.verbs`, spelled with underscores or dashes. A boolean is `--tta`, `--tta true` or
`--no_tta`; words without a flag may stand anywhere. Nothing heavy is imported.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import CommandLineError, did_you_mean
from ..settings.commands import JSON, QUIET, RECIPE, command_options, find_command
from ..settings.options import FALSE_STRINGS, TRUE_STRINGS, Option
from ..settings.parse import check_consistency, check_paths_exist, read_values
from .flag_aliases import FLAG_ALIASES

HELP_FLAGS = ("-h", "--help")
HELP_ALL_FLAG = "--help_all"


@dataclass(frozen=True)
class ParsedArgs:
    """What a command line asks for: the settings of a workflow."""

    recipe: str | None
    flags: dict[str, Any]
    quiet: bool = False
    json: bool = False


class Parser:
    """The parser of a verb."""

    def __init__(self, command: str):
        self.command = find_command(command)
        self.options = dict(command_options(command))
        if self.command.reads_recipes:
            self.options[RECIPE.name] = RECIPE
        for item in (QUIET, *([JSON] if self.command.has_result else [])):
            self.options.setdefault(item.name, item)
        self._spellings = {name: item.name for item in self.options.values() for name in (item.name, *item.aliases)}

    def parse(self, argv: list[str]) -> ParsedArgs:
        """Reads a command line.

        Raises:
            SystemExit: `--help` or `--help_all` was asked for, and printed.
            CommandLineError: it is wrong; everything that is not known is named at once.
        """
        if any(word in HELP_FLAGS for word in argv):
            print(self.help_text())
            raise SystemExit(0)
        if HELP_ALL_FLAG in map(_to_underscores, argv):
            print(self.help_text(show_all=True))
            raise SystemExit(0)
        parser = _RaisingArgumentParser(prog=f"hf-mae {self.command.name}", add_help=False, allow_abbrev=False)
        for item in self.options.values():
            parser.add_argument(
                f"--{item.name}", dest=item.name, nargs="+" if item.multiple else None, default=argparse.SUPPRESS
            )
        parser.add_argument("words", nargs="*", default=[])
        found, unknown = parser.parse_known_intermixed_args(self._normalize_flags(argv))
        flags = vars(found)
        words = [*flags.pop("words"), *(word for word in unknown if not word.startswith("--"))]
        self._check_unknown_flags([word for word in unknown if word.startswith("--")])
        flags |= self._assign_positionals(words, flags)
        recipe = flags.pop(RECIPE.name, None) if self.command.reads_recipes else None
        quiet, as_json = (item.read(flags.pop(item.name, False), self.command.name) for item in (QUIET, JSON))
        # What can be refused at once is, before anything heavy is imported.
        values = read_values(self.command.name, recipe, flags)
        check_paths_exist(values)
        check_consistency(self.command.name, values)
        return ParsedArgs(recipe, {name: values[name] for name in flags}, bool(quiet), bool(as_json))

    def _normalize_flags(self, argv: list[str]) -> list[str]:
        """Flags by their own names, and booleans with a value: `--no-tta` -> `--tta=false`."""
        result: list[str] = []
        words = list(argv)
        while words:
            word = words.pop(0)
            if word == "--":
                return [*result, word, *words]
            if not word.startswith("--"):
                result.append(word)
                continue
            name, equals, value = word.partition("=")
            known = self._spellings.get(_to_underscores(name)[2:])
            if known is None:
                opposite = self._spellings.get(_to_underscores(name)[2:].removeprefix("no_"))
                if opposite is not None and self.options[opposite].value_type is bool and not equals:
                    result.append(f"--{opposite}=false")
                else:
                    result.append(word)
            elif self.options[known].value_type is bool and not equals:
                said = words and words[0].lower() in TRUE_STRINGS + FALSE_STRINGS
                result.append(f"--{known}={words.pop(0) if said else 'true'}")
            else:
                result.append(f"--{known}{equals}{value}")
        return result

    def _check_unknown_flags(self, unknown_flags: Iterable[str]) -> None:
        flags = list(dict.fromkeys(word.partition("=")[0] for word in unknown_flags))
        if not flags:
            return
        named = "; ".join(f"there is no flag {flag}{self._suggest_flag(_to_underscores(flag)[2:])}" for flag in flags)
        raise CommandLineError(f"{named}. See hf-mae {self.command.name} --help_all.")

    def _suggest_flag(self, name: str) -> str:
        """The right name of a flag: of those that the reference, timm and older Trainers know first."""
        if meant := [known for known in FLAG_ALIASES.get(name, ()) if known in self.options]:
            return f" (here it is {' or '.join(f'--{known}' for known in meant)})"
        return did_you_mean(f"--{name}", [f"--{known}" for known in self.options])

    def _assign_positionals(self, values: list[str], flags: dict[str, Any]) -> dict[str, Any]:
        """Words without a flag, by the options that they are for."""
        values = list(values)
        placed: dict[str, Any] = {}
        for name in self.command.positionals:
            if name in flags or not values:
                continue
            if self.options[name].multiple:
                placed[name], values = values, []
            else:
                placed[name] = values.pop(0)
        if values:
            takes = " ".join(_metavar(self.options[name]) for name in self.command.positionals)
            expected = f"it takes {takes}" if takes else "each value needs its flag"
            raise CommandLineError(f"there is no place for {' '.join(values)}: {expected}.")
        return placed

    def help_text(self, show_all: bool = False) -> str:
        """The flags that people use, grouped, with defaults; or all of them."""
        parser = argparse.ArgumentParser(
            prog=f"hf-mae {self.command.name}",
            usage=self._usage(),
            description=self.command.description,
            epilog=None if show_all else self._epilog(),
            add_help=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
        )
        shown = [item for item in self.options.values() if show_all or item.show_in_help or item is RECIPE]
        groups: dict[str, Any] = {}
        for item in shown:
            if item.group not in groups:
                groups[item.group] = parser.add_argument_group(item.group)
            word = item.name in self.command.positionals
            groups[item.group].add_argument(
                *([f"--{item.name}"] if not word else [_metavar(item)]),
                help=_help(item).replace("%", "%%"),
                **({} if word else {"metavar": "" if item.value_type is bool else _metavar(item)}),
            )
        return parser.format_help().rstrip("\n")

    def _usage(self) -> str:
        words = [f"[{_metavar(self.options[name])} ...]" if self.options[name].multiple else _metavar(self.options[name])
                 for name in self.command.positionals]  # fmt: skip
        flags = [
            f"--{name} {_metavar(self.options[name])}"
            for name in self.command.required
            if name not in self.command.positionals
        ]
        return " ".join([f"hf-mae {self.command.name}", *words, *flags, "[flags]"]).replace("%", "%%")

    def _epilog(self) -> str:
        hidden = sum(1 for item in self.options.values() if not item.show_in_help and item is not RECIPE)
        more = f" --help_all shows {hidden} more." if hidden else ""
        return f"Flags may be spelled with dashes; a boolean is --flag, --flag true or --no_flag.{more}"


class _RaisingArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandLineError(f"{message} (see {self.prog} --help).")


def _to_underscores(flag: str) -> str:
    """`--data-dir=x` -> `--data_dir=x`."""
    name, equals, value = flag.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else flag


def _metavar(item: Option) -> str:
    return item.metavar or {"data_dir": "D", "output_dir": "O", "model_name_or_path": "X"}.get(
        item.name, {int: "N", float: "NUMBER", dict: "JSON"}.get(item.value_type, item.name.upper())
    )


def _help(item: Option) -> str:
    choices = f" One of {', '.join(map(str, item.choices))}." if item.choices else ""
    default = item.default
    if isinstance(default, list):
        default = " ".join(map(str, default))
    shown = "" if default is None or default is False or default == "" else f" (default: {default})"
    return f"{item.help}{choices}{shown}"

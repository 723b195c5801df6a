"""Writes docs/reference.md, every flag of every verb, from the parsers and dataclasses themselves."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from hf_mae.cli import VERBS

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Flags

Written by `python scripts/write_flag_reference.py`; do not edit. Underscores may be dashes. Verbs that take
`--recipe` read any of these from a YAML file, too; those that train also take every field of [transformers'
TrainingArguments](https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments) (listed
here only where the default is another).
"""


class Parser(Exception):
    """Carries a verb's parser out of it, instead of parsing."""


def parser_of(verb: str) -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser.parse_known_args

    def hand_over(self, *args, **kwargs):
        if len(self._actions) < 2:  # that which only looks for --recipe
            return parse(self, *args, **kwargs)
        raise Parser(self)

    argparse.ArgumentParser.parse_known_args = hand_over
    try:
        module = import_module(VERBS[verb][0])
        (getattr(module, verb) if verb in ("convert", "export") else module.main)([])
    except Parser as found:
        return found.args[0]
    finally:
        argparse.ArgumentParser.parse_known_args = parse
    raise AssertionError(f"{verb} parses nothing")


def own_fields(parser: argparse.ArgumentParser) -> set[str] | None:
    """Fields that this project's dataclasses declare themselves; None where a parser is not made of dataclasses."""
    kinds = getattr(parser, "dataclass_types", None)
    if kinds is None:
        return None
    classes = [base for kind in kinds for base in kind.__mro__ if base.__module__.startswith("hf_mae")]
    return {name for base in classes for name in base.__dict__.get("__annotations__", {})} | {"recipe"}


def rows(parser: argparse.ArgumentParser) -> list[str]:
    own, found = own_fields(parser), ["| flag | default | |", "|---|---|---|"]
    for action in parser._actions:
        if action.dest == "help" or (own is not None and action.dest not in own):
            continue
        if action.option_strings and action.option_strings[0].startswith("--no_"):
            continue  # the opposite of a flag that is listed
        name = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
        choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
        text = (action.help or "").replace("%(default)s", str(action.default)).replace("|", "\\|")
        default = action.default
        unset = default is None or default is False or default == argparse.SUPPRESS or action.required
        shown = "" if unset else f"`{default}`"
        found.append(f"| `{name}` | {shown} | {text}{choices} |")
    return found


def page() -> str:
    parts = [HEAD]
    for verb, (_, what) in VERBS.items():
        parts.append(
            f"\n## hf-mae {verb}\n\n{what[0].upper()}{what[1:]}.\n\n" + "\n".join(rows(parser_of(verb))) + "\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)

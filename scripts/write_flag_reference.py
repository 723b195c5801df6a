"""Writes docs/reference.md, every flag of every verb, from the options themselves."""

import sys
from pathlib import Path

from hf_mae.settings.commands import COMMANDS, RECIPE, Command, command_options
from hf_mae.settings.options import Option
from hf_mae.settings.training import MaeTrainingFields

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Flags

Written by `python scripts/write_flag_reference.py`; do not edit. Underscores may be dashes, and a boolean is `--flag`,
`--flag true` or `--no_flag`. Verbs that take `--recipe` read any of these from a YAML file, too; those that train also
take every field of [transformers' TrainingArguments](https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments)
(listed here only where the default is another). The same names are the arguments of the functions in Python
(`hf_mae.finetune(...)`).
"""


def list_own_options(command: Command) -> list[Option]:
    """The options that this package declares, and what it shows of transformers'."""
    options = command_options(command.name)
    own = {name for kind in command.arg_classes for name in kind.__dataclass_fields__}
    if command.is_training:
        own |= set(MaeTrainingFields.__dataclass_fields__) | set(command.defaults)
    found = [item for name, item in options.items() if name in own or item.show_in_help]
    return [*found, *([RECIPE] if command.reads_recipes else [])]


def render_row(command: Command, item: Option) -> str:
    """A line of a verb's table."""
    name = item.metavar or item.name.upper() if item.name in command.positionals else f"--{item.name}"
    choices = f" ({', '.join(map(str, item.choices))})" if item.choices else ""
    default = " ".join(map(str, item.default)) if isinstance(item.default, list) else item.default
    unset = default is None or default is False or default == ""
    text = item.help.replace("|", "\\|")
    return f"| `{name}` | {'' if unset else f'`{default}`'} | {text}{choices} |"


def render_page() -> str:
    """The whole page."""
    parts = [HEAD]
    for verb in COMMANDS.values():
        rows = ["| flag | default | |", "|---|---|---|", *(render_row(verb, item) for item in list_own_options(verb))]
        title = f"\n## hf-mae {verb.name}\n\n{verb.summary[0].upper()}{verb.summary[1:]}.\n\n"
        parts.append(title + "\n".join(rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)

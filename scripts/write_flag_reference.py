"""Writes docs/reference.md from the options: `python scripts/write_flag_reference.py`."""

import sys
from pathlib import Path

from hf_mae.settings.commands import RECIPE, Command, command_options, commands_by_task
from hf_mae.settings.messages import SettingsMessage
from hf_mae.settings.options import Option
from hf_mae.settings.trainer_options import SET_BY_TRANSFORMERS, UNSUPPORTED_OPTIONS
from hf_mae.settings.training import MaeTrainingFields

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Flag reference

`python scripts/write_flag_reference.py` writes this page; do not edit it.

- Flags may contain dashes instead of underscores. A boolean is `--flag`, `--flag true` or `--no_flag`.
- Arguments in capitals are positional. They can also be given as flags (in parentheses).
- Commands with `--recipe` read the same names from a YAML file. Flags override the recipe.
- Training commands also accept every field of [TrainingArguments][1], with
  [exceptions](#fields-that-are-not-supported). This page lists those with another default.
- In Python, the same names are arguments of the functions (`hf_mae.finetune(...)`).

[1]: https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments
"""


EXCEPTIONS = """
## Fields that are not supported

These fields of TrainingArguments are rejected. All others have their effect, or need another field that is not given.

| field | reason |
|---|---|
"""


def list_options(command: Command) -> list[Option]:
    """Returns the options of this package, and those of transformers with another default or in `--help`."""
    options = command_options(command.name)
    names = {name for cls in command.arg_classes for name in cls.__dataclass_fields__}
    if command.is_training:
        names |= set(MaeTrainingFields.__dataclass_fields__) | set(command.defaults)
    listed = [options[name] for name in command.positionals]
    listed += [item for name, item in options.items() if (name in names or item.show_in_help) and item not in listed]
    return [*listed, *([RECIPE] if command.reads_recipes else [])]


def render_row(command: Command, item: Option) -> str:
    """Renders the table row of an option."""
    is_positional = item.name in command.positionals
    name = f"`{item.placeholder}` (`--{item.name}`)" if is_positional else f"`--{item.name}`"
    default = " ".join(map(str, item.default)) if isinstance(item.default, list) else item.default
    has_default = not (default is None or default is False or default == "")
    choices = f" Choices: {', '.join(item.choices)}." if item.choices else ""
    text = f"{item.help}{choices}".replace("|", "\\|")
    return f"| {name} | {f'`{default}`' if has_default else ''} | {text} |"


def render_page() -> str:
    """Renders the page."""
    parts = [HEAD]
    for task, commands in commands_by_task().items():
        parts.append(f"\n## {task}\n")
        for command in commands:
            rows = [render_row(command, item) for item in list_options(command)]
            table = "\n".join(["| flag | default | description |", "|---|---|---|", *rows])
            parts.append(f"\n### hf-mae {command.name}\n\n{command.describe()}\n\n{table}\n")
    messages = {**UNSUPPORTED_OPTIONS, **dict.fromkeys(SET_BY_TRANSFORMERS, SettingsMessage.SET_BY_COMMAND)}
    rows = [f"| `--{name}` | {message.render(name=name)} |\n" for name, message in messages.items()]
    return "".join([*parts, EXCEPTIONS, *rows])


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)

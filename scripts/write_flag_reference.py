"""Writes docs/reference.md, every flag of every verb, from the options themselves."""

import sys
from pathlib import Path

from hf_mae.settings.options import Option
from hf_mae.settings.training import ReferenceFields
from hf_mae.settings.verbs import RECIPE, VERBS, Verb, options_of_verb

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Flags

Written by `python scripts/write_flag_reference.py`; do not edit. Underscores may be dashes, and a boolean is `--flag`,
`--flag true` or `--no_flag`. Verbs that take `--recipe` read any of these from a YAML file, too; those that train also
take every field of [transformers' TrainingArguments](https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments)
(listed here only where the default is another). The same names are the arguments of the functions in Python
(`hf_mae.finetune(...)`).
"""


def own_options(verb: Verb) -> list[Option]:
    """The options that this package declares, and what it shows of transformers'."""
    options = options_of_verb(verb.name)
    own = {name for kind in verb.kinds for name in kind.__dataclass_fields__}
    if verb.trains:
        own |= set(ReferenceFields.__dataclass_fields__) | set(verb.defaults)
    found = [item for name, item in options.items() if name in own or item.common]
    return [*found, *([RECIPE] if verb.reads_recipes else [])]


def row(verb: Verb, item: Option) -> str:
    """A line of a verb's table."""
    name = item.metavar or item.name.upper() if item.name in verb.words else f"--{item.name}"
    choices = f" ({', '.join(map(str, item.choices))})" if item.choices else ""
    default = " ".join(map(str, item.default)) if isinstance(item.default, list) else item.default
    unset = default is None or default is False or default == ""
    text = item.help.replace("|", "\\|")
    return f"| `{name}` | {'' if unset else f'`{default}`'} | {text}{choices} |"


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for verb in VERBS.values():
        rows = ["| flag | default | |", "|---|---|---|", *(row(verb, item) for item in own_options(verb))]
        title = f"\n## hf-mae {verb.name}\n\n{verb.summary[0].upper()}{verb.summary[1:]}.\n\n"
        parts.append(title + "\n".join(rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)

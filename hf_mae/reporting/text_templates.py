"""Texts of documents: Jinja templates, by name, in the YAML files of `templates/`."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined, Template

from . import run_sentences

TEMPLATES_DIR = Path(__file__).with_name("templates")


@cache
def load_templates(file_name: str) -> dict[str, Any]:
    """Loads the templates of a file, or lists of templates, by name; they can call `run_sentences.describe_...`."""
    environment = Environment(undefined=StrictUndefined)
    environment.globals |= {name: value for name, value in vars(run_sentences).items() if name.startswith("describe_")}

    def compile_text(text: Any) -> Any:
        return environment.from_string(text) if isinstance(text, str) else [compile_text(part) for part in text]

    texts = yaml.safe_load((TEMPLATES_DIR / f"{file_name}.yaml").read_text(encoding="utf-8"))
    return {name: compile_text(text) for name, text in texts.items()}


def render_text(template: Template, facts: dict[str, Any]) -> str:
    """Renders a text in one line; several spaces count as one."""
    return re.sub("[ \n]+", " ", template.render(facts)).strip()


def report_text(name: str, **facts: Any) -> str:
    """Renders a text of `templates/report.yaml`."""
    return render_text(load_templates("report")[name], facts)

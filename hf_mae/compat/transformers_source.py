"""Reads the fields of `TrainingArguments` from the source of transformers, because importing it takes seconds.

Verified with transformers 5.17 to 5.24 (the contract test compares the fields with those of the class).
"""

import ast
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SourceField:
    """A field in the source: the annotation is text, and the default is a literal (None for any other expression)."""

    name: str
    annotation: str
    default: Any
    help: str


@cache
def training_argument_fields() -> tuple[SourceField, ...]:
    """Returns the constructor fields of the installed `TrainingArguments`, in order."""
    package = find_spec("transformers")
    if package is None or not package.submodule_search_locations:
        raise ImportError("transformers is not installed")
    source = Path(package.submodule_search_locations[0]) / "training_args.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    return tuple(
        field
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if (field := _parse_field(node.target.id, node)) is not None
    )


def _parse_field(name: str, node: ast.AnnAssign) -> SourceField | None:
    annotation = ast.unparse(node.annotation)
    if annotation.startswith("ClassVar"):
        return None
    default, text = None, ""
    if isinstance(node.value, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in node.value.keywords}
        if "init" in keywords and _eval_literal(keywords["init"]) is False:
            return None
        default = _eval_literal(keywords["default"]) if "default" in keywords else None
        metadata = keywords.get("metadata")
        text = _get_help_text(metadata) if isinstance(metadata, ast.Dict) else ""
    elif node.value is not None:
        default = _eval_literal(node.value)
    return SourceField(name, annotation, default, " ".join(text.split()))


def _get_help_text(metadata: ast.Dict) -> str:
    for key, value in zip(metadata.keys, metadata.values):
        if isinstance(key, ast.Constant) and key.value == "help":
            return str(_eval_literal(value))
    return ""


def _eval_literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None

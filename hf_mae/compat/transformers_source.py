"""The fields of transformers' `TrainingArguments`, read from its source: importing it takes seconds.

Verified with transformers 5.17 to 5.24 (the contract test compares with the class itself).
"""

import ast
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SourceField:
    """A field as it is written: its annotation is text, its default a literal (None where it is something else)."""

    name: str
    annotation: str
    default: Any
    help: str


@cache
def training_argument_fields() -> tuple[SourceField, ...]:
    """Every field of the installed `TrainingArguments` that its constructor takes, in order."""
    package = find_spec("transformers")
    if package is None or not package.submodule_search_locations:
        raise ImportError("transformers is not installed")
    source = Path(package.submodule_search_locations[0]) / "training_args.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    return tuple(
        found
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if (found := _parse_field(node.target.id, node)) is not None
    )


def _parse_field(name: str, node: ast.AnnAssign) -> SourceField | None:
    annotation = ast.unparse(node.annotation)
    if annotation.startswith("ClassVar"):
        return None
    default, text = None, ""
    if isinstance(node.value, ast.Call):
        given = {word.arg: word.value for word in node.value.keywords}
        if "init" in given and _eval_literal(given["init"]) is False:
            return None
        default = _eval_literal(given["default"]) if "default" in given else None
        metadata = given.get("metadata")
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

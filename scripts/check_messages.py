"""Checks the message catalogues against the code: `python scripts/check_messages.py [--under PREFIX]`; exits 1 if a
fault is found.

Every member is used; every use passes exactly the fields of the template; no exception for users is raised with bare
text.
"""

import argparse
import ast
import string
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "hf_mae", ROOT / "conversion")
# Exceptions whose message is shown to the user as it is.
USER_ERRORS = {"UsageError", "ImageError"}


def read_trees() -> dict[Path, ast.Module]:
    """The syntax tree of each module."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for folder in FOLDERS for path in folder.rglob("*.py")}


def find_subclasses(trees: dict[Path, ast.Module], root: set[str]) -> set[str]:
    """Names of the classes that derive from `root`, itself included."""
    names = set(root)
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        more = {node.name for node in classes if {ast.unparse(base) for base in node.bases} & names} - names
        if not more:
            return names
        names |= more


def read_catalogues(trees: dict[Path, ast.Module]) -> dict[str, tuple[Path, int, str]]:
    """`Class.MEMBER` -> file, line and template."""
    catalogues = find_subclasses(trees, {"Message"}) - {"Message"}
    members = {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name in catalogues:
                for item in node.body:
                    if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
                        name = f"{node.name}.{item.targets[0].id}"
                        members[name] = (path, item.lineno, ast.literal_eval(item.value))
    return members


def template_fields(template: str) -> set[str]:
    """Names of the fields of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def find_faults() -> Iterator[tuple[Path, int, str]]:
    """File, line and fault of each wrong or unused message."""
    trees = read_trees()
    members, errors = read_catalogues(trees), find_subclasses(trees, USER_ERRORS)
    used, templates = set(), {}
    for name, (path, line, template) in members.items():
        if template in templates:
            yield path, line, f"{name} has the template of {templates[template]}"
        templates[template] = name
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in members:
                used.add(name)
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                first = node.exc.args[0] if node.exc.args else None
                if ast.unparse(node.exc.func) in errors and isinstance(first, (ast.JoinedStr, ast.Constant, ast.BinOp)):
                    yield path, node.lineno, f"{ast.unparse(node.exc.func)} is raised with bare text"
            if isinstance(node, ast.Call):
                yield from ((path, node.lineno, fault) for fault in find_wrong_fields(node, members))
    for name in members.keys() - used:
        yield members[name][0], members[name][1], f"{name} is not used"


def find_wrong_fields(call: ast.Call, members: dict[str, tuple[Path, int, str]]) -> Iterator[str]:
    """Fields of a message that a call does not pass, and keywords that the message does not have."""
    codes = [ast.unparse(argument) for argument in call.args if isinstance(argument, ast.Attribute)]
    keywords = {keyword.arg for keyword in call.keywords}
    for code in codes:
        if code in members and None not in keywords:
            expected = template_fields(members[code][2])
            if missing := expected - keywords:
                yield f"{code} misses {', '.join(sorted(missing))}"
            if extra := {str(keyword) for keyword in keywords} - expected:
                yield f"{code} has no field {', '.join(sorted(extra))}"


def main() -> int:
    """Prints the faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--under", default="", help="only files whose path starts with one of these (comma-separated)")
    prefixes = tuple(parser.parse_args().under.split(","))
    faults = [(str(path.relative_to(ROOT)), line, text) for path, line, text in find_faults()]
    faults = sorted(fault for fault in faults if fault[0].startswith(prefixes))
    for path, line, text in faults:
        print(f"{path}:{line}: {text}")
    print(f"{len(faults)} faults", file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())

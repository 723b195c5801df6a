"""Counts private words in code and pages: `python scripts/check_language.py [ROOT] [--summary]`; exits 1 if there are
any.

Names are read from the syntax tree; phrases are searched in docstrings, comments, strings and pages. Words that are
wrong everywhere are in PHRASES, with what to write instead.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

CODE = ("hf_mae", "conversion", "scripts", "tests")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs",
    "hf_mae/recipes",
    "hf_mae/published/benchmarks",
    "accelerate_configs",
    "hf_mae/reporting/templates",
)
PAGE_SUFFIXES = (".md", ".yaml", ".ipynb", ".sh", ".sbatch")
SKIPPED = ("check_language.py", "test_messages.py")  # they contain the words that they look for

# Not as a name of anything, local variables included.
BANNED_NAMES = frozenset(
    "held kept told said judged judge settled cut made taken of at there beside without asked meant begun left_out "
    "ledger verb verbs room doubt mended anew whole going".split()
)
# Not as the name of a module, class, function, method, parameter, field or constant.
BANNED_DEFINITIONS = BANNED_NAMES | frozenset(
    "found known chosen given shown drawn seen parts words about where what why worth share shares beside".split()
)
# Attribute and argument names of other libraries.
LIBRARY_NAMES = {"at", "of"}

UNITS = "second|minute|epoch|layout|file|class|image|process|row|line"
# Regular expression -> what to write instead.
PHRASES = {
    r"(?:is|are|was|were|be) no (?!longer\b|more\b|less\b|need\b|other\b|way\b|risk\b)(?:\w+)": "is not a ...",
    r"(?:go|goes|going|went|gone) on\b": "resume, continue",
    r"(?:is|are|was|were|be|been) (?:said|told)": "the subject reports, warns or rejects",
    r"tell|tells|told|telling": "report, state, distinguish",
    r"there is no place for": "unrecognized arguments",
    r"mend|mends|mended|mending": "fix",
    r"anew": "again, from the start",
    r"others than|otherwise than": "different from",
    r"of which": "two sentences",
    r"lately": "recently",
    rf"(?:{UNITS})s? an? (?:{UNITS})": "per",
    r"brings|bring": "contain, improve",
    r"verb|verbs": "command",
    r"judge|judges|judged|judging": "validate, evaluate, select",
    r"doubt|doubts": "uncertainty",
    r"settle|settles|settled": "resolve",
    r"room|rooms": "free space; package",
    r"whole": "complete, all",
    r"beside": "next to, besides, with",
    r"the reference(?:'s)?(?! (?:category|level|class|standard|list|page|manual))": "the original code",
    r"ledger|certificate": "mapping, report",
    r"(?:keep|keeps|kept|hold|holds|held) apart": "hold out",
    r"(?:nobody|whoever)": "name the subject",
    r"in a sentence|in words|with a word|a word of": "with a message",
    r"where (?:there (?:is|are|was)|it (?:is|has|was|can)|they (?:are|have)|that is|none|nothing|nobody|one)": "if",
    r"what (?:stands|stood|lies|lay|came|comes|becomes|is there)": "name the thing",
    r"(?-i:is none)": "is missing",
}
PATTERN = re.compile("|".join(rf"(?P<p{n}>\b(?:{text})\b)" for n, text in enumerate(PHRASES)), re.IGNORECASE)


def find_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and fault of each name in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bare = node.name.strip("_")
            if bare.startswith("refuse"):
                yield node.lineno, "name refuse_*"
            elif isinstance(node, ast.FunctionDef) and re.search(r"_of$|^of_", bare):
                yield node.lineno, "name *_of"
            elif bare.lower() in BANNED_DEFINITIONS:
                yield node.lineno, f"name {bare}"
        elif isinstance(node, ast.arg) and node.arg.strip("_") in BANNED_DEFINITIONS:
            yield node.lineno, f"name {node.arg}"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            if node.id.strip("_") in BANNED_NAMES:
                yield node.lineno, f"name {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr.strip("_") in BANNED_NAMES - LIBRARY_NAMES:
            yield node.lineno, f"name {node.attr}"


def find_texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and string of a program."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or "FSTRING_MIDDLE" in tokenize.tok_name[token.type]:
            for offset, line in enumerate(token.string.split("\n")):
                yield token.start[0] + offset, line


def find_faults(root: Path) -> Iterator[tuple[str, int, str]]:
    """File, line and fault, of all code and pages below `root`."""
    for path in sorted(path for folder in CODE for path in (root / folder).rglob("*.py")):
        if path.name in SKIPPED or "__pycache__" in path.parts:
            continue
        name, source = str(path.relative_to(root)), path.read_text(encoding="utf-8")
        if path.stem.strip("_") in BANNED_DEFINITIONS | {"judge", "refuse"}:
            yield name, 1, f"module {path.stem}"
        yield from ((name, line, fault) for line, fault in find_names(ast.parse(source)))
        yield from ((name, line, fault) for line, text in find_texts(source) for fault in find_phrases(text))
    for path in sorted(
        path for page in PAGES for path in ([root / page] if (root / page).is_file() else (root / page).rglob("*"))
    ):
        if path.suffix in PAGE_SUFFIXES and "api" not in path.parts:
            for line, text in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                yield from ((str(path.relative_to(root)), line, fault) for fault in find_phrases(text))


def find_phrases(text: str) -> Iterator[str]:
    """The banned phrases in a line of text, each with what to write instead."""
    advice = list(PHRASES.values())
    for match in PATTERN.finditer(text):
        yield f'"{match[0]}": {advice[int(str(match.lastgroup)[1:])]}'


def main() -> int:
    """Prints the faults, or with --summary the number of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--under", default="", help="only files whose path starts with this")
    options = parser.parse_args()
    faults = [fault for fault in find_faults(options.root) if fault[0].startswith(tuple(options.under.split(",")))]
    if options.summary:
        for fault, count in Counter(text for _, _, text in faults).most_common():
            print(f"{count:5}  {fault}")
    else:
        for path, line, text in faults:
            print(f"{path}:{line}: {text}")
    names = sum(text.startswith(("name ", "module ")) for _, _, text in faults)
    print(f"{len(faults)} faults: {names} names, {len(faults) - names} phrases", file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())

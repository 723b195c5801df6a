#!/usr/bin/env bash
# Style, language, import order of the packages, and types: bash scripts/lint.sh. Sets up .venv on the first run.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$ROOT"
ruff check .
ruff format --check .
python scripts/check_messages.py
python scripts/check_language.py
# The package in its installed layout (conversion/ inside hf_mae/), for tools that read files by path.
tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
cp -rs "$ROOT/hf_mae" "$tree/hf_mae"
ln -s "$ROOT/conversion" "$tree/hf_mae/conversion"
cd "$tree"
PYTHONPATH="$tree" lint-imports "$ROOT/setup.cfg" --no-logo
mypy --config-file "$ROOT/setup.cfg" --cache-dir "$ROOT/.mypy_cache"

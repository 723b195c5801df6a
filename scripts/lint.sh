#!/usr/bin/env bash
# Style, the order of the rooms, and types: bash scripts/lint.sh. Sets up .venv on the first run.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$ROOT"
ruff check .
ruff format --check .
# The package as it is installed, with conversion/ in its place, for the tools that read files by their place.
tree="$(mktemp -d)"
trap 'rm -rf "$tree"' EXIT
cp -rs "$ROOT/hf_mae" "$tree/hf_mae"
ln -s "$ROOT/conversion" "$tree/hf_mae/conversion"
cd "$tree"
PYTHONPATH="$tree" lint-imports "$ROOT/setup.cfg" --no-logo
mypy --config-file "$ROOT/setup.cfg" --cache-dir "$ROOT/.mypy_cache"

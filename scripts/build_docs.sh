#!/usr/bin/env bash
# Builds the docs site: bash scripts/build_docs.sh [FOLDER] (site). Warnings are errors. Sets up .venv on the first run.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
site="$(realpath -m "${1:-$ROOT/site}")"
cd "$ROOT"
export DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=true
python scripts/write_api_reference.py > /dev/null # docs/api, from the docstrings
python -m mkdocs build --quiet --strict --config-file scripts/mkdocs.yml --site-dir "$site"
echo "$site/index.html"

#!/usr/bin/env bash
# Runs the test suite: bash scripts/test.sh [pytest arguments]. Sets up .venv on the first run.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$ROOT"
export PYTHONDONTWRITEBYTECODE= # else every process of the tests compiles hf_mae anew
exec python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --no-loadscope-reorder "$@"

#!/usr/bin/env bash
# Runs the test suite: bash scripts/test.sh [pytest arguments]. Sets up .venv on the first run.
EXTRAS=test
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$ROOT"
export PYTHONDONTWRITEBYTECODE= # otherwise every test process compiles hf_mae again
exec python -m pytest -n "${TEST_PROCESSES:-3}" --dist loadfile --no-loadscope-reorder "$@"

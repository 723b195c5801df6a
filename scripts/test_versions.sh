#!/usr/bin/env bash
# Tests with the oldest versions that setup.cfg allows, and with the newest: bash scripts/test_versions.sh [oldest|newest|both] [pytest arguments]
# Without pytest arguments the contract tests run (tests/compat, minutes); `-m unit` runs the fast suite.
# The environments are .venv-oldest and .venv-newest. Each is created once, and again if setup.cfg changes.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
which="${1:-both}"
[ $# -gt 0 ] && shift
# Contract tests need only pytest; other tests need the extra `test`.
wanted=("$ROOT[test]")
[ $# -gt 0 ] || { set -- tests/compat; wanted=("$ROOT" pytest pytest-xdist hypothesis); }
# The minimum versions in setup.cfg; a test compares both.
oldest=(torch==2.11.0 torchvision==0.26.0 transformers==5.17.0 datasets==5.0.1 accelerate==1.10.0 timm==1.0.20
    evaluate==0.4.3 huggingface_hub==1.5.0 safetensors==0.8.0 numpy==2.0.0)

environment() { # name, constraints...
    local venv="$ROOT/.venv-$1" stamp
    stamp="$(cksum < setup.cfg) ${wanted[*]} ${*:2}"
    if [ "$(cat "$venv/.installed" 2>/dev/null || true)" != "$stamp" ]; then
        echo "Setting up $venv ..."
        rm -rf "$venv"
        "${PYTHON:-python3}" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --upgrade pip
        "$venv/bin/python" -m pip install --quiet --upgrade -e "${wanted[@]}" "${@:2}"
        echo "$stamp" > "$venv/.installed"
    fi
}

run() { # name, pytest arguments...
    local python="$ROOT/.venv-$1/bin/python"
    echo "== $1: $("$python" -c 'from importlib.metadata import version as v; print(", ".join(f"{n} {v(n)}" for n in ("torch", "transformers", "datasets", "accelerate", "timm")))')"
    PATH="$ROOT/.venv-$1/bin:$PATH" "$python" -m pytest -q -n "${TEST_PROCESSES:-2}" --dist loadfile -p no:cacheprovider "${@:2}"
}

if [ "$which" != newest ]; then
    environment oldest "${oldest[@]}"
    run oldest "$@"
fi
if [ "$which" != oldest ]; then
    environment newest
    run newest "$@"
fi

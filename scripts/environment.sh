# Sourced by the scripts: makes .venv in the project once, installs the project into it, and puts it on PATH.
# ROOT is the project's folder, from wherever the script is called; EXTRAS, set before, are the extras that it needs.
set -euo pipefail
EXTRAS="${EXTRAS:-}"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
stamp="$ROOT/.venv/.installed" # the state of setup.cfg that was installed, then the extras
wanted="$(cksum < "$ROOT/setup.cfg")"
installed="$(cat "$stamp" 2>/dev/null || true)"
if [ ! -x "$ROOT/.venv/bin/hf-mae" ] || [[ "$installed" != "$wanted"* ]] || [[ "$installed" != *"$EXTRAS"* ]]; then
    echo "Setting up $ROOT/.venv (once; torch is a large download) ..."
    [ -x "$ROOT/.venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$ROOT/.venv"
    "$ROOT/.venv/bin/python" -m pip install --quiet --upgrade pip
    "$ROOT/.venv/bin/python" -m pip install --quiet -e "$ROOT${EXTRAS:+[$EXTRAS]}"
    echo "$wanted $EXTRAS" > "$stamp"
fi
export PATH="$ROOT/.venv/bin:$PATH"

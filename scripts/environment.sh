# Sourced by the scripts: creates .venv in the project once, installs the project into it, and puts it on PATH.
# Sets ROOT, the project folder. Set EXTRAS before to install extras.
set -euo pipefail
EXTRAS="${EXTRAS:-}"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
stamp="$ROOT/.venv/.installed" # checksum of the installed setup.cfg, then the extras
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

#!/usr/bin/env bash
# Makes a virtual environment with everything this repository needs, or brings it up to date.
#
#   tools/setup_env.sh            # into .venv
#   VENV=/somewhere tools/setup_env.sh
#   PYTHON=python3.12 tools/setup_env.sh
#
# Run again it does nothing, unless setup.cfg or this file changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}
TORCH=2.10.0
TORCHVISION=0.25.0
LOG=$VENV/setup.log
STAMP=$VENV/setup.stamp
FINGERPRINT=$(cat setup.cfg tools/setup_env.sh | cksum)

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

[ "$(cat "$STAMP" 2>/dev/null)" = "$FINGERPRINT" ] && exit 0

# --- what must be there -------------------------------------------------------------------------------------------
if [ -z "${PYTHON:-}" ]; then
  for candidate in python3.11 python3.12 python3.10 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
      PYTHON=$candidate
      break
    fi
  done
fi
[ -n "${PYTHON:-}" ] || die "no Python 3.10, 3.11 or 3.12 found; install one (Debian: apt install python3 python3-venv) or set PYTHON"
"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null \
  || die "PYTHON=$PYTHON is not a Python 3.10, 3.11 or 3.12"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || die "$PYTHON has no venv module (Debian: apt install python3-venv)"
command -v g++ >/dev/null || die 'no C++ compiler (g++), which mmcv needs (Debian: apt install g++)'
"$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
  || die "$PYTHON has no headers (Python.h), which mmcv needs (Debian: apt install python3-dev)"
mkdir -p "$(dirname "$VENV")"
free=$(df -Pk "$(dirname "$VENV")" | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free" -ge 14 ] || die "only $free GB are free beside $VENV; the environment takes 9 GB, and 5 more while it installs"

# --- install ------------------------------------------------------------------------------------------------------
# Run a step with its output in the log; a line every minute shows that it is alive.
step() {
  local label=$1 start=$SECONDS pid
  shift
  say "$label"
  "$@" >>"$LOG" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    (((SECONDS - start) % 60)) || say "  ... $(((SECONDS - start) / 60)) min"
  done
  if ! wait "$pid"; then
    tail -n 30 "$LOG" >&2
    die "failed: $label (everything it printed: $LOG)"
  fi
}

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
PIP="$VENV/bin/python -m pip --disable-pip-version-check"
: >"$LOG"
say "Setting up $VENV with $("$PYTHON" --version): 7 to 15 minutes the first time, details in $LOG"
step 'Build tools' $PIP install 'setuptools>=77,<81' wheel ninja psutil
step "PyTorch $TORCH (7 GB on disk, 1 to 5 minutes)" $PIP install "torch==$TORCH" "torchvision==$TORCHVISION"
# Without torch at build time mmcv would silently come without operators, hence no build isolation.
step 'OpenMMLab (compiles the operators of mmcv: about 5 minutes on 2 cores, once; pip keeps the result)' \
  env CFLAGS="${CFLAGS:--g0}" $PIP install --no-build-isolation -e '.[onedl,test]'
"$VENV/bin/python" - <<'PY' || die 'the environment is not usable, see above'
import sys

from mlp_backbones import check_environment

problems = {name: problem for name, problem in check_environment().items() if problem}
for name, problem in problems.items():
    print(f'{name}: {problem}', file=sys.stderr)
sys.exit(bool(problems))
PY
printf '%s' "$FINGERPRINT" >"$STAMP"
say "Ready. Use it with: source $VENV/bin/activate"

#!/usr/bin/env bash
# Create or update a virtual environment with everything this repository needs.
#
#   tools/setup_env.sh                     # the default stack, into .venv
#   tools/setup_env.sh --stack openmmlab   # upstream OpenMMLab on torch 2.1, into .venv-openmmlab
#   tools/setup_env.sh --locked            # the versions and hashes of requirements/ (Python 3.11, Linux)
#   VENV=/somewhere tools/setup_env.sh
#   PYTHON=python3.12 TORCH=2.12 tools/setup_env.sh   # another Python, another torch with the torchvision of that time
#
# Does nothing if the environment is up to date with setup.cfg, this file and mlp_backbones/utils/environment.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/_stack.sh
LOG=$VENV/setup.log
STAMP=$VENV/setup.stamp # the stack, then a fingerprint when everything is installed
LOCK=
case "${1:-}" in --locked) LOCK=requirements/$STACK.txt && shift ;; esac
FINGERPRINT="$STACK $(cat setup.cfg tools/setup_env.sh mlp_backbones/utils/environment.py $LOCK | cksum)${TORCH:+ torch $TORCH}"

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

[[ ${TORCH:=} =~ ^(2\.[0-9]+)?$ ]] || die "TORCH must be a version such as 2.12, got '$TORCH'"
[ -z "$TORCH" ] || [ -z "$LOCK" ] || die "TORCH=$TORCH cannot be with --locked, which has its own"
[ $# -eq 0 ] || die "unknown arguments: $* (there are --stack onedl or --stack openmmlab, and --locked after it)"
found=$(cat "$STAMP" 2>/dev/null || true)
[ "$found" = "$FINGERPRINT" ] && exit 0
there=${found%% *}
[[ $there =~ ^[0-9]+$ ]] && there=onedl # format of older versions, with a single stack
case $there in
  '' | "$STACK") ;;
  *) die "$VENV holds the stack $there, not $STACK, and the two cannot be mixed: remove it, or name another place with VENV" ;;
esac

# --- requirements ------------------------------------------------------------------------------------------------
# ask PYTHON EXPRESSION: evaluate it with `stack` (the requirements of this stack), `CFLAGS` and `sys`.
ask() { "$1" -S -c "import sys; from mlp_backbones.utils.environment import CFLAGS, STACKS; stack = STACKS['$STACK']; print($2)" 2>/dev/null; }
fits() { [ "$(ask "$1" '"%d.%d" % sys.version_info[:2] in stack.pythons')" = True ]; }

[ -x "$VENV/bin/python" ] && PYTHON=$VENV/bin/python
if [ -z "${PYTHON:-}" ]; then
  for candidate in python3.11 python3.12 python3.13 python3.10 python3 python; do
    fits "$candidate" && PYTHON=$candidate && break
  done
fi
versions=$([ "$STACK" = onedl ] && echo '3.10 to 3.13' || echo '3.10 or 3.11')
[ -n "${PYTHON:-}" ] || die "no Python $versions found; install one (Debian: apt install python3 python3-venv) or set PYTHON"
fits "$PYTHON" || die "$PYTHON is not a Python $versions, which the stack $STACK needs"
[ -z "$LOCK" ] || [ "$(ask "$PYTHON" 'sys.version_info[:2]')" = '(3, 11)' ] \
  || die "$LOCK is for Python 3.11, and $PYTHON is not: set PYTHON, or leave --locked out"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || die "$PYTHON has no venv module (Debian: apt install python3-venv)"
command -v g++ >/dev/null || die 'no C++ compiler (g++), which mmcv needs (Debian: apt install g++)'
"$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
  || die "$PYTHON has no headers (Python.h), which mmcv needs (Debian: apt install python3-dev)"
mkdir -p "$(dirname "$VENV")"
if [ ! -x "$VENV/bin/python" ]; then
  free=$(df -Pk "$(dirname "$VENV")" | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge 14 ] || die "only $free GB are free beside $VENV; the environment takes 9 GB, and 5 more while it installs"
fi

# --- install ------------------------------------------------------------------------------------------------------
pid=
trap '[ -z "$pid" ] || kill -- "-$pid" 2>/dev/null' EXIT # nothing goes on installing
trap 'exit 130' HUP INT TERM
# Run a step with its output in the log, and print a line every minute.
step() {
  local label=$1 start=$SECONDS
  shift
  say "$label"
  set -m # a process group of its own
  "$@" >>"$LOG" 2>&1 &
  pid=$!
  set +m
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    (((SECONDS - start) % 60)) || say "  ... $(((SECONDS - start) / 60)) min"
  done
  if ! wait "$pid"; then
    tail -n 30 "$LOG" >&2
    die "failed: $label (everything it printed: $LOG)"
  fi
  pid=
}

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
PIP="$VENV/bin/python -m pip --disable-pip-version-check"
: >"$LOG"
printf '%s' "$STACK" >"$STAMP"
say "Setting up $VENV (stack $STACK, $("$PYTHON" --version)): 7 to 20 minutes the first time, details in $LOG"
# No build isolation: without torch at build time, mmcv silently builds without operators.
FLAGS=${CFLAGS:-$(ask "$PYTHON" CFLAGS)}
if [ "${TORCH#2.}" -ge 13 ] 2>/dev/null; then # mmcv asks for C++17, these need C++20
  printf '#!/bin/bash\nexec %s "${@/#-std=c++17/-std=c++20}"\n' "${CXX:-g++}" >"$VENV/c++"
  chmod +x "$VENV/c++"
  export CXX=$(realpath "$VENV/c++")
fi
MMCV='compiles the operators of mmcv: 5 to 15 minutes on 2 cores, once; pip keeps the result'
if [ -n "$LOCK" ]; then
  # What builds the others, then all but mmcv, then mmcv; everything that is downloaded has its hash in the file.
  awk '/^[a-z]/ { keep = /^(setuptools|wheel|ninja|psutil)==/ } keep' "$LOCK" >"$VENV/locked-build.txt"
  awk '/^[a-z]/ { keep = !/^(onedl-)?mmcv==/ } keep' "$LOCK" >"$VENV/locked-most.txt"
  install="$PIP install --require-hashes --no-deps --no-build-isolation"
  step 'Build tools' $install -r "$VENV/locked-build.txt"
  step "Everything but mmcv, as in $LOCK (up to 9 GB on disk, 2 to 10 minutes)" $install -r "$VENV/locked-most.txt"
  step "mmcv ($MMCV)" env CFLAGS="$FLAGS" $install -r "$LOCK"
  step 'This package' $PIP install --no-deps --no-build-isolation -e .
else
  read -ra torch <<<"$(ask "$PYTHON" '*stack.torch')"
  [ -z "$TORCH" ] || torch=("torch==$TORCH.*" "torchvision==0.$((${TORCH#2.} + 15)).*")
  read -ra build <<<"$(ask "$PYTHON" '*stack.build')"
  step 'Build tools' $PIP install "${build[@]}"
  step "PyTorch: ${torch[*]} (up to 7 GB on disk, 1 to 5 minutes)" $PIP install "${torch[@]}"
  # pip's cache does not tell apart what was compiled with which torch.
  step "OpenMMLab ($MMCV)" env CFLAGS="$FLAGS" \
    $PIP install ${TORCH:+--no-cache-dir} --no-build-isolation -e ".[$STACK,test]"
fi
"$VENV/bin/python" tools/check_env.py || die 'the environment is not usable, see above'
printf '%s' "$FINGERPRINT" >"$STAMP"
say "Ready. Use it with: source $VENV/bin/activate"
